//! Fetching one commit from a git host: the conversation with `git-upload-pack` (protocol version 0), in one request.
//!
//! libgit2's own fetch is not used: it asks for the references anew, needs a request more for a shallow fetch, cannot want
//! a commit by its name from hosts that would give it, and leaves files behind. It indexes and stores the pack.

use std::collections::BTreeSet;
use std::io::{Read, Write};

use git2::{Oid, Repository};

use super::baked;
use super::libgit::git_error;
use super::pktline::{self, Packet, Packets};
use super::refs::{Refs, server_error};
use super::sideband::Lines;
use super::{Fetched, Resolved};
use crate::cancel::Cancel;
use crate::error::{Error, Kind, Result};
use crate::host::memory;
use crate::report::{RunningPhase, Unit};
use crate::step;

/// git makes deltas of objects of up to 512 MiB (`core.bigFileThreshold`): room for one, and for what it is a delta of.
const MEMORY_OF_DELTAS: u64 = 1280 << 20;

/// A way to talk to `git-upload-pack`.
pub(super) trait Connection: Send + Sync {
    /// Reads the references, anew.
    fn refs(&self) -> Result<Refs>;

    /// Sends a request (wants, haves and `done`) and returns what is answered, as a stream.
    fn request(&self, body: &[u8]) -> Result<Box<dyn Read + '_>>;

    /// The git host's name, for messages.
    fn host(&self) -> &str;
}

/// How much history to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// The commit alone.
    One,
    /// Everything, also where the repository has been shallow so far.
    Full,
}

/// What git takes for "no limit".
const INFINITE_DEPTH: u32 = 0x7fff_ffff;

/// What is asked for, and what need not be sent again.
#[derive(Debug, Default)]
pub(super) struct Ask {
    pub wants: BTreeSet<Oid>,
    pub haves: BTreeSet<Oid>,
    pub cuts: BTreeSet<Oid>,
}

impl Ask {
    /// The body of the one request.
    pub fn request(&self, refs: &Refs, depth: Depth) -> Vec<u8> {
        let mut body = Vec::new();
        let mut capabilities = String::new();
        let multi_ack = if refs.can("multi_ack_detailed") { "multi_ack_detailed" } else { "multi_ack" };
        for wanted in [multi_ack, "side-band-64k", "ofs-delta", "thin-pack"] {
            if refs.can(wanted) {
                capabilities.push(' ');
                capabilities.push_str(wanted);
            }
        }
        capabilities.push_str(concat!(" agent=ebs-bake/", env!("CARGO_PKG_VERSION")));
        for want in &self.wants {
            pktline::push(&mut body, &format!("want {want}{capabilities}\n"));
            capabilities.clear();
        }
        if refs.can("shallow") {
            self.cuts.iter().for_each(|cut| pktline::push(&mut body, &format!("shallow {cut}\n")));
            match depth {
                Depth::One => pktline::push(&mut body, "deepen 1\n"),
                Depth::Full if !self.cuts.is_empty() => pktline::push(&mut body, &format!("deepen {INFINITE_DEPTH}\n")),
                Depth::Full => {}
            }
        }
        pktline::flush(&mut body);
        self.haves.iter().for_each(|have| pktline::push(&mut body, &format!("have {have}\n")));
        pktline::push(&mut body, "done\n");
        body
    }
}

/// One fetch into one repository.
pub(super) struct Fetch<'a> {
    pub connection: &'a dyn Connection,
    pub into: &'a Repository,
    pub phase: &'a RunningPhase,
    pub cancel: &'a Cancel,
}

impl Fetch<'_> {
    /// Brings the commit and its tree. Tried in turn: the reference or the commit itself at depth 1; after a refusal, with
    /// fresh references (somebody pushed in between); the whole history of the reference or of all of them.
    pub fn run(&self, refs: &Refs, resolved: &Resolved) -> Result<Fetched> {
        let mut fetched = match self.commit(refs, resolved) {
            Err(error) if is_refusal(&error) => {
                let fresh = self.connection.refs()?;
                match self.commit(&fresh, resolved) {
                    Err(error) if is_refusal(&error) => self.history(&fresh, resolved, error)?,
                    other => other?,
                }
            }
            other => other?,
        };
        if !self.has(resolved.commit) {
            let refs = self.connection.refs()?;
            let none = Error::new(Kind::Git, "the git host did not send the commit");
            fetched.add(self.history(&refs, resolved, none)?);
        }
        baked::cut_at(self.into, resolved.commit)?;
        Ok(fetched)
    }

    fn has(&self, commit: Oid) -> bool {
        self.into.find_commit(commit).is_ok()
    }

    /// The commit alone, at depth 1: by its reference when that still leads to it, else by its name.
    fn commit(&self, refs: &Refs, resolved: &Resolved) -> Result<Fetched> {
        let tip = resolved.reference.as_ref().and_then(|name| refs.tips.get(name));
        let tip = tip.filter(|tip| tip.commit() == resolved.commit);
        let want = tip.map_or(resolved.commit, |tip| tip.object);
        let depth = if refs.can("shallow") { Depth::One } else { Depth::Full };
        self.pack(refs, BTreeSet::from([want]), depth)
    }

    /// The whole history, of the reference if there is one, else of all branches and tags.
    fn history(&self, refs: &Refs, resolved: &Resolved, cause: Error) -> Result<Fetched> {
        self.phase.output(&format!(
            "{} does not give commit {} alone: fetching history",
            self.connection.host(),
            resolved.commit
        ));
        let named = resolved.reference.as_ref().and_then(|name| refs.tips.get(name));
        let all = || refs.tips.iter().filter(|(name, _)| is_branch_or_tag(name)).map(|(_, tip)| tip.object);
        let mut fetched = Fetched::default();
        for wants in [named.map(|tip| tip.object).into_iter().collect::<BTreeSet<_>>(), all().collect()] {
            if !wants.is_empty() && !self.has(resolved.commit) {
                fetched.add(self.pack(refs, wants, Depth::Full)?);
            }
        }
        if self.has(resolved.commit) {
            return Ok(fetched);
        }
        Err(Error::new(
            Kind::Git,
            format!("commit {} is not in the repository, or no branch or tag leads to it", resolved.commit),
        )
        .hint("was it force-pushed away? bake a commit that a branch or tag still contains")
        .because(cause))
    }

    fn pack(&self, refs: &Refs, wants: BTreeSet<Oid>, depth: Depth) -> Result<Fetched> {
        if !refs.can("side-band-64k") {
            return Err(Error::new(Kind::Git, format!("{} speaks too old a git protocol", self.connection.host())));
        }
        self.cancel.check()?;
        let ask = Ask { wants, haves: baked::kept(self.into).into_iter().collect(), cuts: baked::shallow(self.into)? };
        let body = ask.request(refs, depth);
        let answer = self.connection.request(&body)?;
        let shallow_section = refs.can("shallow") && (depth == Depth::One || !ask.cuts.is_empty());
        let fetched = self.receive(Packets::new(answer), shallow_section)?;
        if depth == Depth::Full {
            baked::forget_healed_cuts(self.into)?;
        }
        Ok(fetched)
    }

    /// Reads the answer: where the history was cut (known beforehand), acknowledgements, then the pack.
    fn receive(&self, mut packets: Packets<Box<dyn Read + '_>>, shallow_section: bool) -> Result<Fetched> {
        let odb = self.into.odb().map_err(git_error("cannot open the object database"))?;
        let (progress, counted) = (self.progress(), std::cell::Cell::new((0, 0)));
        let mut writer = odb.packwriter().map_err(git_error("cannot write a pack"))?;
        writer.progress(|stats| {
            counted.set((stats.received_objects(), stats.received_bytes() as u64));
            progress(stats.received_objects() as u64, stats.total_objects() as u64);
            !self.cancel.is_cancelled()
        });
        let mut lines = Lines::new(|line| self.phase.output(&format!("remote: {line}")));
        let mut in_shallow = shallow_section;
        loop {
            self.cancel.check()?;
            let packet = packets.next().map_err(|error| self.broken(error))?;
            match packet {
                Packet::Flush if in_shallow => in_shallow = false,
                Packet::Flush => break,
                Packet::Data([1, pack @ ..]) => writer.write_all(pack).map_err(|error| self.bad_pack(error))?,
                Packet::Data([2, text @ ..]) => lines.push(text),
                Packet::Data([3, text @ ..]) => return Err(refusal(text)),
                Packet::Data(data) => match data.strip_prefix(b"ERR ") {
                    Some(message) => return Err(refusal(message)),
                    None if [&b"ACK "[..], b"NAK", b"shallow ", b"unshallow "].iter().any(|start| data.starts_with(start)) => {}
                    None => return Err(self.broken(std::io::Error::other("an unexpected packet"))),
                },
            }
        }
        // Here deltas are put together, each in memory: a few bytes of one can say that it is as large as the machine's.
        let keep = || memory::bounded(MEMORY_OF_DELTAS, || writer.commit());
        step::around("keeping the received pack", keep).map_err(|error| self.bad_pack(error))?;
        drop(writer);
        let (objects, bytes) = counted.get();
        Ok(Fetched { objects, bytes })
    }

    fn progress(&self) -> impl Fn(u64, u64) + '_ {
        let last = std::cell::Cell::new(u64::MAX);
        move |done, total| {
            let step = (done * 100).checked_div(total).unwrap_or(0);
            if last.replace(step) != step {
                self.phase.progress(done, Some(total), Unit::Objects);
            }
        }
    }

    fn broken(&self, error: std::io::Error) -> Error {
        if self.cancel.is_cancelled() {
            return self.cancel.error();
        }
        let silent = error.kind() == std::io::ErrorKind::TimedOut || super::http_setup::is_timeout(&error);
        let message = if silent {
            format!("{} stopped sending", self.connection.host())
        } else {
            format!("the answer of {} broke off or cannot be understood", self.connection.host())
        };
        Error::new(Kind::Git, message).hint("run again: nothing was changed").because(error)
    }

    fn bad_pack(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        if self.cancel.is_cancelled() {
            return self.cancel.error();
        }
        Error::new(Kind::Git, format!("the pack that {} sent cannot be stored", self.connection.host())).because(error)
    }
}

impl Fetched {
    fn add(&mut self, other: Fetched) {
        self.objects += other.objects;
        self.bytes += other.bytes;
    }
}

fn is_branch_or_tag(name: &str) -> bool {
    name.starts_with("refs/heads/") || name.starts_with("refs/tags/")
}

/// The git host does not want to give an object: the references may have moved since they were read.
#[derive(Debug, thiserror::Error)]
#[error("the git host refused the request")]
struct Refused;

fn refusal(message: &[u8]) -> Error {
    server_error(message).because(Refused)
}

fn is_refusal(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|cause| cause.is::<Refused>())
}

/// Whether everything of `commit`'s tree is in the repository; subtrees of `known`, which is complete, are not looked at.
pub(super) fn is_complete(repository: &Repository, commit: Oid, known: Option<Oid>) -> bool {
    let tree = |commit: Oid| repository.find_commit(commit).map(|commit| commit.tree_id());
    let (Ok(odb), Ok(root)) = (repository.odb(), tree(commit)) else { return false };
    let known = known.and_then(|known| tree(known).ok());
    super::trees::difference(&odb, root, known.map(|id| (&odb, id))).is_ok_and(|all| all.iter().all(|id| odb.exists(*id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(refs: &Refs, ask: &Ask, depth: Depth) -> String {
        String::from_utf8(ask.request(refs, depth)).unwrap()
    }

    #[test]
    fn the_request_is_what_git_servers_understand() {
        let (one, two) = ("1".repeat(40), "2".repeat(40));
        let refs = Refs {
            capabilities: [
                "multi_ack",
                "multi_ack_detailed",
                "thin-pack",
                "side-band-64k",
                "ofs-delta",
                "shallow",
                "include-tag",
            ]
            .map(String::from)
            .to_vec(),
            ..Refs::default()
        };
        let oid = |text: &str| BTreeSet::from([Oid::from_str(text).unwrap()]);
        let first = Ask { wants: oid(&one), ..Ask::default() };
        let version = env!("CARGO_PKG_VERSION");
        let want = format!("want {one} multi_ack_detailed side-band-64k ofs-delta thin-pack agent=ebs-bake/{version}\n");
        let want = format!("{:04x}{want}", want.len() + 4);
        assert_eq!(text(&refs, &first, Depth::One), format!("{want}000ddeepen 1\n00000009done\n"));
        assert_eq!(text(&refs, &first, Depth::Full), format!("{want}00000009done\n"));
        let update = Ask { wants: oid(&one), haves: oid(&two), cuts: oid(&two) };
        assert_eq!(
            text(&refs, &update, Depth::One),
            format!("{want}0035shallow {two}\n000ddeepen 1\n00000032have {two}\n0009done\n")
        );
        assert!(text(&refs, &update, Depth::Full).contains("deepen 2147483647\n"));
    }
}
