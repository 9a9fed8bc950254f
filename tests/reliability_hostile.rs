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
#[path = "support/hostile.rs"]
mod hostile;
#[path = "support/packs.rs"]
mod packs;
#[path = "support/reliability.rs"]
mod reliability;
mod support;

use std::fs;
use std::process::{Command, Stdio};

use git_server::Fault;
use hostile::{Ended, MEMORY, MEMORY_OF_DELTAS, MEMORY_OF_TREES, Stage, wait};
use packs::{BLOB, DELTA, Objects, advertised, delta_bomb, entry, lying_delta, pack, packet, sent, varint};
use reliability::rounds;
use support::needs_root;

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
