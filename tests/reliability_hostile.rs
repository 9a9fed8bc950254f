//! Repositories and git hosts that mean harm, and the whole program on them: nothing is written outside of the volume, nothing of theirs is
//! run, memory stays bounded, and what is wrong is said in one line. What the checkout itself refuses is in `checkout_hostile.rs`,
//! what the checks of a chef-repo withstand in `chef_hostile.rs`.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/bake.rs"]
#[allow(dead_code)]
mod bake;
#[path = "support/git_cli.rs"]
mod git_cli;
#[path = "support/git_server.rs"]
mod git_server;
#[path = "support/reliability.rs"]
mod reliability;
mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;

use bake::{Host, Node, Run, assert_same, tree_of};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use git_cli::Scratch;
use git_server::{Fault, GitServer};
use reliability::{record, rounds};
use sha1::{Digest, Sha1};
use support::needs_root;

/// Of the program, with everything that it starts, in MiB: what a bake of a few files takes is far below.
const MEMORY: u64 = 400;
/// Where a delta is put together: as much as the largest that git makes takes.
const MEMORY_OF_DELTAS: u64 = MEMORY + 1280;
/// Where a tree is as large as it may be.
const MEMORY_OF_TREES: u64 = 900;

/// What happened in each group of attacks: how many, and the most memory.
static NOTED: Mutex<BTreeMap<&str, (u64, u64)>> = Mutex::new(BTreeMap::new());

/// A machine, a git host, and what is around the mount point.
struct Stage {
    host: Host,
    scratch: Scratch,
    server: GitServer,
    precious: BTreeMap<PathBuf, Node>,
    group: &'static str,
}

/// How a run ended.
struct Ended {
    code: i32,
    said: String,
}

impl Stage {
    fn new(group: &'static str) -> Stage {
        let (host, scratch) = (Host::new(), Scratch::new());
        scratch.repository("up");
        let server = GitServer::start(&scratch.path(""));
        for name in ["outside", "code"] {
            fs::create_dir(host.path(name)).unwrap();
        }
        fs::write(host.path("outside/precious"), "precious").unwrap();
        let precious = tree_of(&host.path("outside"));
        Stage { host, scratch, server, precious, group }
    }

    fn bake(&self) -> Run {
        self.host.bake(self.server.url("up"))
    }

    /// Runs it, and looks that what is around is as it was and that it took no more memory than this.
    #[track_caller]
    fn run(&self, run: Run, memory: u64) -> Ended {
        let (status, mebibytes, said) = measured(run, &self.host);
        assert_same(&tree_of(&self.host.path("outside")), &self.precious);
        assert_eq!(bake::names_in(&self.host.path("home")), Vec::<String>::new(), "something was written, or run");
        assert!(mebibytes <= memory, "{mebibytes} MiB of memory: {said}");
        let mut all = NOTED.lock().unwrap();
        let noted = all.entry(self.group).or_default();
        *noted = (noted.0 + 1, noted.1.max(mebibytes));
        let mut figures = "Each is a run of the whole program against a git host that serves it.\n\n\
                           | Attack | Runs | Most memory (MiB) |\n|---|--:|--:|\n"
            .to_owned();
        for (group, (runs, most)) in all.iter() {
            writeln!(figures, "| {group} | {runs} | {most} |").unwrap();
        }
        record("hostile", &figures);
        Ended { code: status.code().or(status.signal().map(|signal| -signal)).unwrap(), said }
    }

    /// It is refused as a fault of the repository: one event with one line, no control characters, nothing left behind.
    #[track_caller]
    fn refused(&self, run: Run, words: &str) {
        self.refused_within(run, words, MEMORY);
    }

    #[track_caller]
    fn refused_within(&self, run: Run, words: &str, memory: u64) {
        let Ended { code, said } = self.run(run, memory);
        assert_eq!(code, 7, "{said}");
        let errors: Vec<&str> = said.lines().filter(|line| line.contains("\"event\":\"error\"")).collect();
        let [error] = errors.as_slice() else { panic!("one error is expected: {said}") };
        assert!(error.contains(words), "{words:?} is not said: {error}");
        assert!(!said.chars().any(|c| c.is_control() && c != '\n'), "{said:?}");
        assert_eq!(self.host.loop_devices(), []);
        assert_eq!(self.host.snapshots().len(), 0);
    }

    /// Puts an object into the repository, whatever it is.
    fn object(&self, kind: &str, content: &[u8]) -> String {
        let mut command = self.scratch.command("up", &["hash-object", "-t", kind, "--literally", "-w", "--stdin"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(content).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn tree(&self, items: &[(&str, &[u8], &str)]) -> String {
        self.object("tree", &tree(items))
    }

    /// Makes `main` a commit of this tree.
    fn publish(&self, tree: &str) {
        let commit = self.scratch.git("up", &["commit-tree", tree, "-m", "x"]);
        self.scratch.git("up", &["update-ref", "refs/heads/main", &commit]);
    }
}

/// A tree object, sorted as git sorts.
fn tree(items: &[(&str, &[u8], &str)]) -> Vec<u8> {
    let mut items = items.to_vec();
    items.sort_by_key(|(mode, name, _)| [*name, if *mode == "40000" { &b"/"[..] } else { &b""[..] }].concat());
    let mut content = Vec::new();
    for (mode, name, id) in items {
        content.extend([mode.as_bytes(), b" ", name, b"\0", git2::Oid::from_str(id).unwrap().as_bytes()].concat());
    }
    content
}

/// How a run ended, the most memory that it had at once in MiB, and what it said.
#[allow(clippy::zombie_processes, reason = "wait4 waits for it: it tells the memory")]
fn measured(mut run: Run, host: &Host) -> (ExitStatus, u64, String) {
    let log = host.path("log");
    let child = run.0.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
    let (status, usage) = wait(child.id());
    (status, usage.ru_maxrss.cast_unsigned() >> 10, fs::read_to_string(log).unwrap())
}

fn wait(pid: u32) -> (ExitStatus, libc::rusage) {
    // SAFETY: an all-zero rusage is a value of it; the kernel writes a status and a rusage there; the process is our child, and
    // nobody else waits for it.
    let (mut status, mut usage) = (0, unsafe { std::mem::zeroed() });
    // SAFETY: as above.
    let waited = unsafe { libc::wait4(pid.cast_signed(), &raw mut status, 0, &raw mut usage) };
    assert_eq!(waited, pid.cast_signed());
    (ExitStatus::from_raw(status), usage)
}

fn packet(content: &[u8]) -> Vec<u8> {
    [format!("{:04x}", content.len() + 4).as_bytes(), content].concat()
}

/// What a git host advertises: `HEAD` is `main`, and more lines.
fn advertised(commit: &str, more: &[Vec<u8>]) -> Vec<u8> {
    let head = format!("{commit} HEAD\0side-band-64k ofs-delta shallow thin-pack symref=HEAD:refs/heads/main\n");
    let lines = [head, format!("{commit} refs/heads/main\n")].map(String::into_bytes);
    let lines = lines.iter().chain(more).map(|line| packet(line));
    [packet(b"# service=git-upload-pack\n"), b"0000".to_vec()]
        .into_iter()
        .chain(lines)
        .chain([b"0000".to_vec()])
        .collect::<Vec<_>>()
        .concat()
}

fn deflated(content: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Numbers as packs and deltas have them: seven bits a byte, the least first.
fn varint(mut number: u64, mut first: u8, bits: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    first |= (number & ((1 << bits) - 1)) as u8;
    number >>= bits;
    while number > 0 {
        bytes.push(first | 0x80);
        first = (number & 0x7f) as u8;
        number >>= 7;
    }
    bytes.push(first);
    bytes
}

const COMMIT: u8 = 1;
const TREE: u8 = 2;
const BLOB: u8 = 3;
const DELTA: u8 = 7;

/// An entry of a pack: `base` for one that is a delta.
fn entry(kind: u8, size: u64, base: &[u8], content: &[u8]) -> Vec<u8> {
    [varint(size, kind << 4, 4), base.to_vec(), deflated(content)].concat()
}

fn pack(count: u32, entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = [&b"PACK\0\0\0\x02"[..], &count.to_be_bytes(), &entries.concat()].concat();
    let hash = Sha1::digest(&bytes);
    bytes.extend_from_slice(&hash);
    bytes
}

/// The answer that brings a pack.
fn sent(pack: &[u8]) -> Vec<u8> {
    let start = [b"0000".to_vec(), packet(b"NAK\n")].concat();
    let pieces = pack.chunks(60_000).map(|piece| packet(&[b"\x01", piece].concat()));
    [start].into_iter().chain(pieces).chain([b"0000".to_vec()]).collect::<Vec<_>>().concat()
}

fn id_of(kind: &str, content: &[u8]) -> [u8; 20] {
    Sha1::new().chain_update(format!("{kind} {}\0", content.len())).chain_update(content).finalize().into()
}

/// A pack of some kilobytes: a commit with one file, a delta that copies its base again and again until it is so large.
fn delta_bomb(size: u64) -> (String, Vec<u8>) {
    const PIECE: u64 = 0xff_ffff;
    let base = vec![0; PIECE as usize + 1];
    let copies = size / PIECE;
    let mut delta = [varint(base.len() as u64, 0, 7), varint(copies * PIECE, 0, 7)].concat();
    for _ in 0..copies {
        delta.extend_from_slice(&[0x80 | 0x70, 0xff, 0xff, 0xff]);
    }
    // Which nobody gets to compute.
    let blob = [9_u8; 20];
    let tree = [&b"100644 large\0"[..], &blob].concat();
    let tree_id = git2::Oid::from_bytes(&id_of("tree", &tree)).unwrap();
    let commit = format!("tree {tree_id}\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nx\n").into_bytes();
    let commit_id = git2::Oid::from_bytes(&id_of("commit", &commit)).unwrap().to_string();
    let entries = [
        entry(COMMIT, commit.len() as u64, b"", &commit),
        entry(TREE, tree.len() as u64, b"", &tree),
        entry(BLOB, base.len() as u64, b"", &base),
        entry(DELTA, delta.len() as u64, &id_of("blob", &base), &delta),
    ];
    (commit_id, pack(4, &entries))
}

/// Objects for a pack: git itself would not send some of them.
#[derive(Default)]
struct Objects(Vec<Vec<u8>>);

impl Objects {
    fn add(&mut self, kind: u8, content: &[u8]) -> String {
        self.0.push(entry(kind, content.len() as u64, b"", content));
        let name = ["commit", "tree", "blob"][usize::from(kind) - 1];
        git2::Oid::from_bytes(&id_of(name, content)).unwrap().to_string()
    }

    fn tree(&mut self, items: &[(&str, &[u8], &str)]) -> String {
        let content = tree(items);
        self.add(TREE, &content)
    }

    /// The answers of a host whose `main` is a commit of this tree.
    fn served(mut self, tree: &str) -> Fault {
        let commit = format!("tree {tree}\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nx\n");
        let commit = self.add(COMMIT, commit.as_bytes());
        Fault::Answers(advertised(&commit, &[]), sent(&pack(self.0.len() as u32, &self.0)))
    }
}

#[test]
fn root_trees_that_lead_out_of_the_volume_are_refused() {
    if !needs_root() {
        return;
    }
    let stage = Stage::new("Names and links in trees");
    let outside = stage.host.path("outside");
    let absolute = outside.join("owned").into_os_string().into_encoded_bytes();
    let outside = outside.into_os_string().into_encoded_bytes();
    let long = [b'x'; 4096];
    let names: [&[u8]; 13] = [
        b"..",
        b".",
        b"",
        b"../../outside/owned",
        &absolute,
        b".git",
        b".GiT",
        b"git~1",
        b".git ",
        b".git::$INDEX_ALLOCATION",
        b".g\xe2\x80\x8cit",
        b"a\\.git\\hooks",
        &long,
    ];
    for (name, mode) in names.into_iter().flat_map(|name| [(name, "100755"), (name, "40000")]) {
        let mut objects = Objects::default();
        let file = objects.add(BLOB, b"#!/bin/sh\ntouch ~/owned\n");
        let hooks = objects.tree(&[("100755", b"post-checkout", &file)]);
        let directory = objects.tree(&[("40000", b"hooks", &hooks)]);
        let root = objects.tree(&[(mode, name, if mode == "40000" { &directory } else { &file })]);
        stage.server.fault(objects.served(&root));
        stage.refused(stage.bake(), "cannot be checked out");
    }
    let mut objects = Objects::default();
    let (link, file) = (objects.add(BLOB, &outside), objects.add(BLOB, b"owned"));
    let inner = objects.tree(&[("100644", b"owned", &file)]);
    let root = objects.tree(&[("120000", b"a", &link), ("40000", b"a", &inner)]);
    stage.server.fault(objects.served(&root));
    stage.refused(stage.bake(), "both a file and a directory");
    for name in [&b".gitmodules"[..], b".GITMODULES"] {
        let mut objects = Objects::default();
        let link = objects.add(BLOB, &outside);
        let root = objects.tree(&[("120000", name, &link)]);
        stage.server.fault(objects.served(&root));
        stage.refused(stage.bake(), "cannot be checked out");
    }
}

#[test]
fn root_a_link_that_one_commit_left_is_not_written_through_by_the_next() {
    if !needs_root() {
        return;
    }
    let stage = Stage::new("A link, then a directory in its place");
    let file = stage.object("blob", b"owned");
    let inner = stage.tree(&[("100644", b"owned", &file), ("100644", b"precious", &file)]);
    let outside = stage.host.path("outside").into_os_string().into_encoded_bytes();
    let links = [outside, b"../../outside".to_vec(), b"../outside".to_vec(), b".git".to_vec(), b"/proc/self/cwd".to_vec()];
    for target in &links {
        let link = stage.object("blob", target);
        stage.publish(&stage.tree(&[("120000", b"a", &link)]));
        assert_eq!(stage.run(stage.bake(), MEMORY).code, 0);
        stage.publish(&stage.tree(&[("40000", b"a", &inner)]));
        let id = stage.bake().baked().id;
        stage.host.restored(&id, |root| {
            assert!(root.join("a").symlink_metadata().unwrap().is_dir());
            assert_eq!(fs::read(root.join("a/owned")).unwrap(), b"owned");
            assert!(!root.join(".git/owned").exists());
        });
        // And back: what was a directory becomes a link, and is removed as what it is.
        stage.publish(&stage.tree(&[("120000", b"a", &link), ("100644", b"b", &file)]));
        assert_eq!(stage.run(stage.bake(), MEMORY).code, 0);
    }
}

#[test]
fn root_nothing_that_a_commit_says_is_run() {
    if !needs_root() {
        return;
    }
    let stage = Stage::new("Filters, hooks, submodules that name programs");
    let touch = "touch ~/owned; true";
    let config =
        format!("[core]\n\tfsmonitor = {touch}\n\thooksPath = hooks\n[filter \"x\"]\n\tsmudge = {touch}\n\trequired = true\n");
    let hook = format!("#!/bin/sh\n{touch}\n");
    let files = [
        (".gitattributes", "* filter=x merge=x diff=x\n"),
        (".gitconfig", &config),
        (".lfsconfig", &config),
        ("hooks/post-checkout", &hook),
        ("HEAD", "ref: refs/heads/main\n"),
        ("config", &config),
        ("objects/x", ""),
        ("refs/x", ""),
    ];
    stage.scratch.commit("up", &files);
    assert_eq!(stage.run(stage.bake(), MEMORY).code, 0);
    let commit = stage.scratch.git("up", &["rev-parse", "HEAD"]);
    for (path, url) in [
        ("a", "ext::sh -c touch% ~/owned"),
        ("a", "--upload-pack=touch ~/owned"),
        ("a", "ssh://-oProxyCommand=touch% ~/owned/x"),
        ("a", "ssh://h/$(touch ~/owned)"),
        ("a", "file:///etc"),
        ("a", "/etc"),
        ("a", "../../../../up"),
        ("a", "git://127.0.0.1/x"),
        ("-a", "../up"),
    ] {
        let file = stage.object("blob", format!("[submodule \"a\"]\n\tpath = {path}\n\turl = \"{url}\"\n").as_bytes());
        stage.publish(&stage.tree(&[("160000", path.as_bytes(), &commit), ("100644", b".gitmodules", &file)]));
        let Ended { code, said } = stage.run(stage.bake().args(["--submodules", "yes"]), MEMORY);
        assert_eq!(code, 7, "{url}: {said}");
    }
}

#[test]
fn root_what_unfolds_without_end_is_refused_in_bounded_memory() {
    if !needs_root() {
        return;
    }
    let stage = Stage::new("Trees that unfold to millions of files");
    // The second one takes a minute or two.
    for width in 1..=rounds(1, 2) {
        let mut objects = Objects::default();
        let file = objects.add(BLOB, b"x");
        let mut id = objects.tree(&[("100644", b"x", &file)]);
        let names: Vec<Vec<u8>> = (0..width).map(|number| number.to_string().into_bytes()).collect();
        for _ in 0..if width == 1 { 5000 } else { 60 } {
            let items: Vec<_> = names.iter().map(|name| ("40000", &name[..], id.as_str())).collect();
            id = objects.tree(&items);
        }
        stage.server.fault(objects.served(&id));
        stage.refused_within(stage.bake(), "than a volume should", MEMORY_OF_TREES);
    }
    stage.server.fault(Fault::None);
    // One attribute file in each of many directories.
    let large = "x -a -b -c -d\n".repeat(3_000);
    let attributes = stage.object("blob", large.as_bytes());
    let directory = stage.tree(&[("100644", b".gitattributes", &attributes)]);
    let names: Vec<Vec<u8>> = (0..1000).map(|number| format!("{number:04}").into_bytes()).collect();
    let items: Vec<_> = names.iter().map(|name| ("40000", &name[..], directory.as_str())).collect();
    stage.publish(&stage.tree(&items));
    stage.refused(stage.bake(), ".gitattributes");
    // Not by git's own commands, which take as long as the attack wants.
    let stars = stage.object("blob", format!("{}x eol=crlf\n", "**/".repeat(600)).as_bytes());
    let mut id = stage.tree(&[("100644", b"y", &stars)]);
    for _ in 0..200 {
        id = stage.tree(&[("40000", b"a", &id)]);
    }
    stage.publish(&stage.tree(&[("100644", b".gitattributes", &stars), ("40000", b"a", &id)]));
    assert_eq!(stage.run(stage.bake(), MEMORY).code, 0, "and not in a thousand years");
}

#[test]
fn root_a_pack_of_some_kilobytes_does_not_fill_the_memory() {
    if !needs_root() {
        return;
    }
    let stage = Stage::new("Deltas that unfold to gigabytes");
    // libgit2 itself refuses more than two.
    for (gigabytes, words) in [(2, "Out of memory"), (3, "overly large object"), (20, "overly large object")] {
        let (commit, pack) = delta_bomb(gigabytes << 30);
        assert!(pack.len() < 64 << 10, "{}", pack.len());
        stage.server.fault(Fault::Answers(advertised(&commit, &[]), sent(&pack)));
        stage.refused_within(stage.bake(), words, MEMORY_OF_DELTAS);
    }
}

#[test]
fn root_answers_that_lie_or_are_cut_off_are_refused() {
    if !needs_root() {
        return;
    }
    let stage = Stage::new("Answers that lie, break off, or are no git");
    let blob = entry(BLOB, 5, b"", b"hello");
    let good = pack(1, std::slice::from_ref(&blob));
    let commit = "1".repeat(40);
    let mut damaged = good.clone();
    damaged[20] ^= 1;
    for (what, answer) in [
        ("no objects at all", sent(&pack(0, &[]))),
        ("another object than was asked for", sent(&good)),
        ("fewer objects than it says", sent(&pack(1000, std::slice::from_ref(&blob)))),
        ("more objects than it says", sent(&pack(1, &[blob.clone(), blob.clone()]))),
        ("four billion objects", sent(&pack(u32::MAX, std::slice::from_ref(&blob)))),
        ("a damaged pack", sent(&damaged)),
        ("a wrong hash", sent(&[&good[..good.len() - 20], &[0; 20]].concat())),
        ("an object of another size", sent(&pack(1, &[entry(BLOB, 5_000_000_000, b"", b"hello")]))),
        ("a delta of nothing", sent(&pack(1, &[entry(DELTA, 4, &[7; 20], &[5, 5, 0x91, 5])]))),
        ("a delta that reads outside of its base", sent(&pack(2, &[blob.clone(), lying_delta()]))),
        ("an object of no kind", sent(&pack(1, &[entry(5, 5, b"", b"hello")]))),
        ("half a packet", sent(&good)[..20].to_vec()),
        ("a packet of impossible length", b"0000fffffffff".to_vec()),
        ("nothing", Vec::new()),
        ("another protocol", packet(b"\x07what")),
        ("an error with control characters", packet(b"\x03\x1b[31mdenied\r\n::add-mask::x\x07\n")),
    ] {
        stage.server.fault(Fault::Answers(advertised(&commit, &[]), answer));
        let Ended { code, said } = stage.run(stage.bake(), MEMORY);
        assert_eq!(code, 7, "{what}: {said}");
        assert!(!said.chars().any(|c| c.is_control() && c != '\n'), "{what}: {said:?}");
        assert_eq!(stage.host.snapshots().len(), 0, "{what}");
        assert_eq!(stage.host.loop_devices(), [], "{what}");
    }
    stage.server.fault(Fault::Redirect("http://127.0.0.2:1{}".into()));
    stage.refused(stage.bake(), "another host");
}

/// It copies a hundred bytes of five.
fn lying_delta() -> Vec<u8> {
    let delta = [5, 100, 0x90, 100];
    entry(DELTA, delta.len() as u64, &id_of("blob", b"hello"), &delta)
}

#[test]
fn root_references_that_lie_are_left_out() {
    if !needs_root() {
        return;
    }
    let stage = Stage::new("References: thousands, hostile names, without end");
    let commit = stage.scratch.git("up", &["rev-parse", "HEAD"]);
    let hostile = [
        "refs/heads/\x1b[31mx",
        "refs/heads/a\nb",
        "refs/heads/../../x",
        "refs/heads/x.lock",
        "refs/../HEAD",
        "x",
        "refs/heads/\r",
    ];
    let lines: Vec<Vec<u8>> = hostile
        .iter()
        .map(|name| format!("{commit} {name}\n").into_bytes())
        .chain((0..20_000).map(|number| format!("{commit} refs/heads/x{number}\n").into_bytes()))
        .collect();
    let refs = advertised(&commit, &lines);
    for name in ["x19999", "\u{1b}[31mx", "a\nb", "../../x", "x.lock"] {
        stage.server.fault(Fault::Answers(refs.clone(), Vec::new()));
        let Ended { code, said } = stage.run(stage.bake().args(["--ref", name]), MEMORY);
        // The one that is there breaks off when it is fetched.
        assert!([2, 7].contains(&code), "{name:?}: {said}");
        assert_eq!(said.contains("answer"), name == "x19999", "{name:?}: {said}");
        assert!(!said.chars().any(|c| c.is_control() && c != '\n'), "{name:?}: {said:?}");
    }
    let start = advertised(&commit, &[]);
    let more: Vec<u8> = lines.iter().flat_map(|line| packet(line)).collect();
    stage.server.fault(Fault::Endless(None, start[..start.len() - 4].to_vec(), more));
    stage.refused(stage.bake(), "more references than any repository has");
    let names = |of: usize| -> Vec<u8> {
        (0..of).flat_map(|number| packet(format!("{commit} refs/heads/{}{number}\n", "x".repeat(60_000)).as_bytes())).collect()
    };
    stage.server.fault(Fault::Endless(None, start[..start.len() - 4].to_vec(), names(100)));
    stage.refused(stage.bake(), "more references than any repository has");
}

#[test]
#[allow(clippy::zombie_processes, reason = "wait4 waits for it: it tells the memory")]
fn root_a_host_that_never_ends_is_left_when_asked_to() {
    if !needs_root() {
        return;
    }
    let stage = Stage::new("Packs and messages without end");
    let commit = "1".repeat(40);
    let start = [b"0000".to_vec(), packet(b"NAK\n")].concat();
    // One object of a terabyte, in blocks that zlib only copies.
    let header = packet(&[b"\x01PACK\0\0\0\x02\0\0\0\x01", &varint(1 << 40, BLOB << 4, 4)[..], b"\x78\x01"].concat());
    let object = packet(&[&b"\x01\0\x60\xea\x9f\x15"[..], &[0; 60_000]].concat());
    let line = packet(&[&b"\x02"[..], &[b'x'; 1000], b"\r"].concat());
    for (first, again) in [([start.clone(), header].concat(), object), (start, line)] {
        let refs = advertised(&commit, &[]);
        stage.server.fault(Fault::Endless(Some(refs), first, again.repeat(20)));
        let mut run = stage.bake();
        let log = stage.host.path("log");
        let child = run.0.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
        let stat = format!("/proc/{}/stat", child.id());
        while stage.server.sent() < 4 << 20 {
            assert!(
                !fs::read_to_string(&stat).unwrap().contains(") Z "),
                "it ended by itself: {}",
                fs::read_to_string(&log).unwrap()
            );
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Command::new("kill").arg(child.id().to_string()).status().unwrap();
        let (status, usage) = wait(child.id());
        assert_eq!(status.code(), Some(143));
        assert!(usage.ru_maxrss >> 10 <= MEMORY.cast_signed(), "{} MiB", usage.ru_maxrss >> 10);
        assert_eq!(stage.host.loop_devices(), []);
        assert_eq!(bake::names_in(&stage.host.path("tmp")), Vec::<String>::new());
    }
}

#[test]
fn root_names_of_volumes_and_devices_lead_nowhere() {
    if !needs_root() {
        return;
    }
    let stage = Stage::new("Names of volumes and mount points");
    for name in [
        "../x",
        "/etc",
        ".",
        "..",
        "-x",
        "a b",
        "a\nb",
        "a;touch ~/owned",
        "$(touch ~/owned)",
        "\u{1b}[31m",
        "",
        "x/y",
        "ééééééééé",
    ] {
        let Ended { code, said } = stage.run(stage.bake().arg(format!("--volume-name={name}")), MEMORY);
        assert_eq!(code, 2, "{name:?}: {said}");
        assert!(!said.chars().any(|c| c.is_control() && c != '\n'), "{name:?}: {said:?}");
    }
    assert!(!stage.host.path("store").exists(), "nothing was begun");
}
