//! The references of a repository, and which of them the user means.

use std::collections::BTreeMap;
use std::io::Read;

use git2::Oid;

use super::pktline::{Packet, Packets};
use super::{Resolved, Wanted};
use crate::error::{Error, Kind, OrFail, Result};

/// More than any repository advertises (the largest public ones have some tens of MiB): beyond it the answer is hostile.
const ADVERTISEMENT_LIMIT: usize = 256 << 20;

/// What a reference points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tip {
    /// The object itself: a commit or an annotated tag.
    pub object: Oid,
    /// What an annotated tag leads to.
    pub peeled: Option<Oid>,
}

impl Tip {
    /// The commit, if this leads to one at all.
    pub fn commit(&self) -> Oid {
        self.peeled.unwrap_or(self.object)
    }
}

/// All references of a repository.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Refs {
    /// By full name; `HEAD` is not among them.
    pub tips: BTreeMap<String, Tip>,
    /// Where HEAD is, if anywhere.
    pub head: Option<Tip>,
    /// The branch that HEAD stands for; none when it is detached.
    pub head_target: Option<String>,
    /// What the server can do; empty for a local repository.
    pub capabilities: Vec<String>,
}

impl Refs {
    /// Reads what `git-upload-pack` advertises (protocol version 0), from its first reference to the flush.
    pub fn read<R: Read>(packets: &mut Packets<R>) -> Result<Refs> {
        let mut refs = Refs::default();
        let mut total = 0;
        let mut first = true;
        loop {
            let packet = packets.next().or_fail(Kind::Git, || "cannot read the references of the repository")?;
            let Some(line) = packet.line() else { return Ok(refs) };
            total += line.len();
            if total > ADVERTISEMENT_LIMIT {
                return Err(Error::new(Kind::Git, "the git host sends more references than any repository has"));
            }
            if let Some(message) = line.strip_prefix(b"ERR ") {
                return Err(server_error(message));
            }
            let mut parts = line.splitn(2, |byte| *byte == 0);
            let reference = parts.next().unwrap_or_default();
            if first {
                refs.read_capabilities(&String::from_utf8_lossy(parts.next().unwrap_or_default()))?;
                first = false;
            }
            refs.add_line(reference)?;
        }
    }

    fn read_capabilities(&mut self, text: &str) -> Result<()> {
        for capability in text.split(' ').filter(|word| !word.is_empty()) {
            if let Some(target) = capability.strip_prefix("symref=HEAD:") {
                self.head_target = is_acceptable(target).then(|| target.to_owned());
            }
            if capability.strip_prefix("object-format=").is_some_and(|format| format != "sha1") {
                return Err(Error::new(Kind::Git, "the repository uses SHA-256 object names, which are not supported"));
            }
            self.capabilities.push(capability.to_owned());
        }
        Ok(())
    }

    fn add_line(&mut self, line: &[u8]) -> Result<()> {
        let invalid = || Error::new(Kind::Git, "the git host sends references that cannot be understood");
        if line.starts_with(b"shallow ") {
            return Ok(());
        }
        let (object, name) = line.split_at_checked(40).ok_or_else(invalid)?;
        let object = parse_oid(object).ok_or_else(invalid)?;
        let name = name.strip_prefix(b" ").ok_or_else(invalid)?;
        let Ok(name) = std::str::from_utf8(name) else { return Ok(()) };
        if name == "capabilities^{}" {
            return Ok(());
        }
        self.add(name, object);
        Ok(())
    }

    /// Adds a reference (or, with `^{}`, what one leads to); names that git would not accept are left out.
    pub fn add(&mut self, name: &str, object: Oid) {
        if name == "HEAD" {
            self.head = Some(Tip { object, peeled: None });
        } else if let Some(tag) = name.strip_suffix("^{}") {
            if let Some(tip) = self.tips.get_mut(tag) {
                tip.peeled = Some(object);
            }
        } else if is_acceptable(name) {
            self.tips.insert(name.to_owned(), Tip { object, peeled: None });
        }
    }

    /// Whether the server can do something.
    pub fn can(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|have| have == capability)
    }

    /// Which commit `wanted` means.
    pub fn resolve(&self, wanted: &Wanted) -> Result<Resolved> {
        if self.head.is_none() && self.tips.is_empty() {
            return Err(Error::new(Kind::Git, "the repository is empty: it has no commits").hint("push a commit first"));
        }
        match (&wanted.reference, wanted.commit) {
            // The name is only remembered: the branch may have moved on, or be gone, since the commit was chosen.
            (Some(name), Some(commit)) => {
                let reference = self.find(name).ok().and_then(|found| found.reference);
                Ok(Resolved { commit, reference })
            }
            (None, Some(commit)) => Ok(Resolved { commit, reference: None }),
            (Some(name), None) => self.find(name),
            (None, None) => self.default_branch(),
        }
    }

    fn default_branch(&self) -> Result<Resolved> {
        let Some(head) = self.head else {
            let what = self.head_target.as_deref().map(|name| format!(" ({name})")).unwrap_or_default();
            return Err(Error::new(Kind::Git, format!("the repository's default branch{what} does not exist"))
                .hint("say which branch, tag or commit to bake with --ref"));
        };
        Ok(Resolved { commit: head.commit(), reference: self.head_target.clone() })
    }

    fn find(&self, name: &str) -> Result<Resolved> {
        if name == "HEAD" {
            return self.default_branch();
        }
        if let Some(commit) = full_sha(name) {
            return Ok(Resolved { commit, reference: None });
        }
        let found = |full: &str| {
            let tip = self.tips.get(full)?;
            Some(Resolved { commit: tip.commit(), reference: Some(full.to_owned()) })
        };
        let exact = if name.starts_with("refs/") { name.to_owned() } else { format!("refs/{name}") };
        if let Some(resolved) = found(&exact) {
            return Ok(resolved);
        }
        let (tag, branch) = (format!("refs/tags/{name}"), format!("refs/heads/{name}"));
        match (found(&tag), found(&branch)) {
            (Some(a), Some(b)) if a.commit != b.commit => {
                Err(Error::new(Kind::Git, format!("{name:?} is both a tag and a branch, at different commits"))
                    .hint(format!("write {tag} or {branch}")))
            }
            (Some(resolved), _) | (None, Some(resolved)) => Ok(resolved),
            // A clone made by a CI system often has the branch only as its remote's.
            (None, None) => found(&format!("refs/remotes/{name}"))
                .or_else(|| found(&format!("refs/remotes/origin/{name}")))
                .ok_or_else(|| self.not_found(name)),
        }
    }

    fn not_found(&self, name: &str) -> Error {
        let error = Error::new(Kind::Git, format!("the repository has no branch or tag {name:?}"));
        if (4..40).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return error.hint("a commit must be given by its full SHA of 40 digits");
        }
        match self.nearest(name) {
            Some(nearest) => error.hint(format!("did you mean {nearest:?}?")),
            None => error.hint("see what there is with git ls-remote"),
        }
    }

    fn nearest(&self, name: &str) -> Option<&str> {
        let full = name.starts_with("refs/");
        let short = |tip: &'_ str| -> usize {
            ["refs/heads/", "refs/tags/"].iter().find(|prefix| tip.starts_with(**prefix)).map_or(0, |prefix| prefix.len())
        };
        self.tips
            .keys()
            .filter(|tip| tip.starts_with("refs/heads/") || tip.starts_with("refs/tags/"))
            .map(|tip| if full { tip.as_str() } else { &tip[short(tip)..] })
            .map(|tip| (strsim::jaro_winkler(&tip.to_lowercase(), &name.to_lowercase()), tip))
            .filter(|(likeness, _)| *likeness > 0.8)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, tip)| tip)
    }
}

/// A commit's full SHA.
pub(super) fn full_sha(text: &str) -> Option<Oid> {
    parse_oid(text.as_bytes())
}

/// 40 hexadecimal digits.
pub(super) fn parse_oid(digits: &[u8]) -> Option<Oid> {
    let text = std::str::from_utf8(digits).ok()?;
    (text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| Oid::from_str(text).ok()).flatten()
}

/// What a git host says went wrong; nothing in it is trusted.
pub(super) fn server_error(message: &[u8]) -> Error {
    let message: String = String::from_utf8_lossy(message).chars().filter(|c| !c.is_control()).take(500).collect();
    Error::new(Kind::Git, format!("the git host says: {}", message.trim()))
}

/// Stricter than git, which knows the control characters of ASCII alone.
fn is_acceptable(name: &str) -> bool {
    let is_plain = !name.chars().any(char::is_control);
    name.starts_with("refs/") && name.len() < 4096 && is_plain && git2::Reference::is_valid_name(name)
}

/// Skips the line `# service=git-upload-pack` and its flush, which HTTP puts before the advertisement.
pub(super) fn skip_service_line<R: Read>(packets: &mut Packets<R>) -> std::io::Result<()> {
    let invalid = || std::io::Error::new(std::io::ErrorKind::InvalidData, "not a git advertisement");
    let first = packets.next()?;
    if first.line() != Some(b"# service=git-upload-pack") {
        return Err(invalid());
    }
    if packets.next()? == Packet::Flush { Ok(()) } else { Err(invalid()) }
}

#[cfg(test)]
mod tests;
