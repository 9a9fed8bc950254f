//! Repositories on this machine as sources, and the upkeep of what was fetched, judged by the git command line.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/git_cli.rs"]
mod git_cli;

use std::collections::BTreeSet;

use ebs_bake::cancel::Cancel;
use ebs_bake::error::Kind;
use ebs_bake::report::Change;
use ebs_bake::source::maintain::maintain;
use ebs_bake::source::{Wanted, kept, open_repository, stream_object};
use git_cli::{Scratch, all, bake, disk_use, oid, open, phase, wanted};

fn path(scratch: &Scratch, name: &str) -> String {
    scratch.path(name).to_str().unwrap().to_owned()
}

#[test]
fn every_kind_of_local_repository_is_a_source() {
    let scratch = Scratch::new();
    scratch.repository("up");
    let commit = scratch.commit("up", &[("README", "two\n"), ("a b/\u{fc} ;'\"", "odd\n"), ("empty", "")]);
    scratch.git("", &["clone", "-q", "--bare", "up", "bare.git"]);
    scratch.git("", &["clone", "-q", "--depth", "1", &format!("file://{}", path(&scratch, "up")), "shallow"]);
    scratch.git("up", &["worktree", "add", "-q", "--detach", "../tree"]);
    scratch.git("bare.git", &["gc", "-q"]);
    if nix::unistd::geteuid().is_root() {
        // As in a container whose workspace belongs to the host's user.
        for name in ["up", "bare.git", "shallow", "tree"] {
            assert!(
                std::process::Command::new("chown").args(["-R", "12345"]).arg(scratch.path(name)).status().unwrap().success()
            );
        }
    }
    for (number, name) in ["up", "up/.git", "bare.git", "shallow", "tree"].iter().enumerate() {
        let down = format!("down{number}");
        let into = scratch.target(&down);
        let (resolved, fetched) = bake(&open(&path(&scratch, name)).unwrap(), &Wanted::default(), &into).unwrap();
        assert_eq!(resolved.commit, oid(&commit), "{name}");
        assert_eq!(fetched.objects, 10, "{name}");
        scratch.check(&down, &commit, false);
    }
    let url = format!("file://{}", path(&scratch, "bare.git"));
    assert_eq!(open(&url).unwrap().resolve(&wanted("main")).unwrap().commit, oid(&commit));
}

#[test]
fn a_clone_has_the_identity_of_its_origin() {
    let scratch = Scratch::new();
    scratch.repository("up");
    scratch.git("", &["clone", "-q", "up", "clone"]);
    let identity = |name: &str| open(&path(&scratch, name)).unwrap().canonical_url().to_owned();
    assert_eq!(identity("up"), format!("file://{}", scratch.path("up").canonicalize().unwrap().display()));
    assert_eq!(identity("clone"), identity("up"));
    for (origin, expected) in [
        ("https://ci:token@Example.com/team/repo.git", "https://example.com/team/repo"),
        ("git@example.com:team/repo", "ssh://example.com/team/repo"),
        ("../up", identity("up").as_str()),
        ("/gone", &format!("file://{}", scratch.path("clone").canonicalize().unwrap().display())),
    ] {
        scratch.git("clone", &["remote", "set-url", "origin", origin]);
        assert_eq!(identity("clone"), expected, "{origin}");
    }
}

#[test]
fn an_update_copies_only_what_is_new() {
    let scratch = Scratch::new();
    let first = scratch.repository("up");
    let into = scratch.target("down");
    bake(&open(&path(&scratch, "up")).unwrap(), &Wanted::default(), &into).unwrap();
    let second = scratch.commit("up", &[("recipes/default.rb", "package 'y'\n")]);
    let source = open(&path(&scratch, "up")).unwrap();
    let (_, fetched) = bake(&source, &Wanted::default(), &into).unwrap();
    assert_eq!(fetched.objects, 4, "a commit, two trees, a file");
    scratch.check("down", &second, false);
    assert_eq!(bake(&source, &Wanted::default(), &into).unwrap().1.objects, 0);
    bake(&source, &wanted(&first), &into).unwrap();
    scratch.check("down", &first, false);
    // A change of mode, a removal, a file that becomes a directory and an empty commit.
    std::fs::remove_file(scratch.path("up/README")).unwrap();
    scratch.git("up", &["update-index", "--chmod=+x", "recipes/default.rb"]);
    scratch.git("up", &["commit", "-q", "-m", "mode"]);
    std::fs::remove_file(scratch.path("up/bin/run")).unwrap();
    let third = scratch.commit("up", &[("README/now", "a directory\n")]);
    bake(&open(&path(&scratch, "up")).unwrap(), &Wanted::default(), &into).unwrap();
    scratch.check("down", &third, false);
    let fourth = scratch.commit("up", &[]);
    assert_eq!(bake(&open(&path(&scratch, "up")).unwrap(), &Wanted::default(), &into).unwrap().1.objects, 1);
    scratch.check("down", &fourth, false);
}

#[test]
fn what_a_killed_run_has_fetched_is_not_fetched_again() {
    let scratch = Scratch::new();
    let commit = scratch.repository("up");
    let source = open(&path(&scratch, "up")).unwrap();
    let into = scratch.target("down");
    let resolved = source.resolve(&Wanted::default()).unwrap();
    assert!(source.fetch(&resolved, &into, &phase()).unwrap().objects > 0);
    // No `keep`: the run ended here. The next one opens the repository anew.
    let into = open_repository(&scratch.path("down")).unwrap();
    assert_eq!(kept(&into), None);
    assert_eq!(source.fetch(&resolved, &into, &phase()).unwrap().objects, 0);
    scratch.check("down", &commit, false);
}

#[test]
fn errors_name_what_is_missing() {
    let scratch = Scratch::new();
    let first = scratch.repository("up");
    scratch.commit("up", &[("README", "two\n")]);
    scratch.git("", &["clone", "-q", "--depth", "1", &format!("file://{}", path(&scratch, "up")), "shallow"]);
    let source = open(&path(&scratch, "shallow")).unwrap();
    let error = bake(&source, &wanted(&first), &scratch.target("down")).unwrap_err();
    assert!(error.to_string().contains(&first) && all(&error).contains("shallow"), "{}", all(&error));
    for name in ["nothing", ""] {
        let error = open(&path(&scratch, name)).map(|_| ()).unwrap_err();
        assert!(error.kind() == Kind::Git && error.to_string().contains("cannot open"), "{}", all(&error));
    }
    std::fs::create_dir(scratch.path("empty")).unwrap();
    scratch.git("empty", &["init", "-q"]);
    let error = open(&path(&scratch, "empty")).unwrap().resolve(&Wanted::default()).unwrap_err();
    assert!(error.to_string().contains("empty"), "{}", all(&error));
}

#[test]
fn a_damaged_source_is_noticed_and_nothing_is_kept() {
    let scratch = Scratch::new();
    scratch.repository("up");
    let blob = scratch.git("up", &["rev-parse", "HEAD:README"]);
    let other = scratch.git("up", &["rev-parse", "HEAD:bin/run"]);
    let loose = |id: &str| scratch.path(&format!("up/.git/objects/{}/{}", &id[..2], &id[2..]));
    std::fs::remove_file(loose(&blob)).unwrap();
    // A valid object under another's name.
    std::fs::copy(loose(&other), loose(&blob)).unwrap();
    let into = scratch.target("down");
    let error = bake(&open(&path(&scratch, "up")).unwrap(), &Wanted::default(), &into).unwrap_err();
    assert!(error.to_string().contains(&blob) && error.to_string().contains("damaged"), "{}", all(&error));
    assert_eq!(kept(&into), None);
    assert_eq!(scratch.path("down/.git/objects/pack").read_dir().map_or(0, Iterator::count), 0);
}

#[test]
fn large_and_many_objects_are_packed_so_that_git_accepts_them() {
    let scratch = Scratch::new();
    scratch.repository("up");
    // More than is held in memory, not compressible to nothing; git itself stores it packed or loose.
    let noise: String = (0..1_200_000_u64).map(|n| format!("{:x}\n", n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40)).collect();
    let names: Vec<String> = (0..300).map(|n| format!("d{}/f{n}", n % 7)).collect();
    let mut files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    files.push(("large", &noise));
    let commit = scratch.commit("up", &files);
    let packed = |name: &str| {
        let into = scratch.target(name);
        bake(&open(&path(&scratch, "up")).unwrap(), &Wanted::default(), &into).unwrap();
        scratch.check(name, &commit, false);
        assert_eq!(std::fs::read_to_string(scratch.path(name).join("large")).unwrap(), noise);
        let packs = scratch.path(name).join(".git/objects/pack");
        let names: BTreeSet<_> = packs.read_dir().unwrap().map(|file| file.unwrap().file_name()).collect();
        (into, names)
    };
    let (_, first) = packed("from-loose");
    let (_, second) = packed("from-loose-again");
    assert_eq!(first, second, "equal objects make equal packs");
    scratch.git("up", &["-c", "core.bigFileThreshold=1m", "gc", "-q", "--prune=now"]);
    let (into, _) = packed("from-pack");
    let id = oid(&scratch.git("up", &["rev-parse", "HEAD:large"]));
    let mut content = String::new();
    let size = stream_object(&into, id, |_, size, reader| {
        reader.read_to_string(&mut content).unwrap();
        Ok(size)
    });
    assert_eq!((size.unwrap(), content.len()), (noise.len(), noise.len()));
    assert!(content == noise);
}

#[test]
fn five_hundred_commits_take_no_more_than_twice_a_fresh_clone() {
    let scratch = Scratch::new();
    scratch.repository("up");
    let names: Vec<String> = (0..60).map(|n| format!("cookbooks/c{}/f{n}", n % 9)).collect();
    let text = "some words that are like other words\n".repeat(20);
    let files: Vec<(&str, String)> = names.iter().map(|name| (name.as_str(), format!("{name}\n{text}"))).collect();
    scratch.commit("up", &files.iter().map(|(name, text)| (*name, text.as_str())).collect::<Vec<_>>());
    bake_each(&scratch, (0..500).map(|round| format!("{round}\n{text}")));
    let (ours, fresh) = (disk_use(&scratch.path("down/.git/objects")), disk_use(&scratch.path("fresh.git/objects")));
    assert!(ours <= 2 * fresh, "{ours} against {fresh}");
    assert!(disk_use(&scratch.path("down/.git")) <= 2 * disk_use(&scratch.path("fresh.git")));
}

/// Bakes and looks after the repository once per text, each committed in the same file.
fn bake_each(scratch: &Scratch, texts: impl Iterator<Item = String>) {
    let up = git2::Repository::open(scratch.path("up")).unwrap();
    let mut commit = up.head().unwrap().target().unwrap();
    drop(scratch.target("down"));
    for text in texts {
        commit = change_one_file(&up, commit, &text);
        let into = open_repository(&scratch.path("down")).unwrap();
        bake(&open(&path(scratch, "up")).unwrap(), &wanted("main"), &into).unwrap();
        maintain(&into, commit, &Cancel::new()).unwrap();
    }
    scratch.git("", &["clone", "-q", "--bare", "--depth", "1", &format!("file://{}", path(scratch, "up")), "fresh.git"]);
    scratch.check("down", &commit.to_string(), false);
}

fn noise(seed: u64, lines: u64) -> String {
    (0..lines).map(|n| format!("{:x}\n", (n + seed * lines).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20)).collect()
}

#[test]
fn garbage_in_few_packs_is_dropped() {
    let scratch = Scratch::new();
    scratch.repository("up");
    bake_each(&scratch, (0..12).map(|round| noise(round, 10_000)));
    let (ours, fresh) = (disk_use(&scratch.path("down/.git/objects")), disk_use(&scratch.path("fresh.git/objects")));
    assert!(ours <= 2 * fresh, "{ours} against {fresh}");
}

#[test]
fn many_small_packs_become_few_beside_a_big_one_that_stays() {
    let scratch = Scratch::new();
    scratch.repository("up");
    scratch.commit("up", &[("big", &noise(1, 60_000))]);
    bake_each(&scratch, (0..40).map(|round| format!("{round}\n")));
    let packs = scratch.path("down/.git/objects/pack");
    let sizes: Vec<u64> = packs.read_dir().unwrap().map(|file| file.unwrap().metadata().unwrap().len()).collect();
    assert!(sizes.len() <= 2 * 33, "{} files", sizes.len());
    assert_eq!(sizes.iter().filter(|size| **size > 100_000).count(), 1, "{sizes:?}");
}

/// Without the git command line: five hundred of them would take longer than all other tests.
fn change_one_file(repository: &git2::Repository, parent: git2::Oid, text: &str) -> git2::Oid {
    let parent = repository.find_commit(parent).unwrap();
    let mut update = git2::build::TreeUpdateBuilder::new();
    update.upsert("cookbooks/c1/f1", repository.blob(text.as_bytes()).unwrap(), git2::FileMode::Blob);
    let tree = update.create_updated(repository, &parent.tree().unwrap()).unwrap();
    let who = git2::Signature::new("a", "a@example.com", &git2::Time::new(0, 0)).unwrap();
    let tree = repository.find_tree(tree).unwrap();
    repository.commit(Some("refs/heads/main"), &who, &who, "m", &tree, &[&parent]).unwrap()
}

#[test]
fn upkeep_drops_what_nothing_needs_and_keeps_what_a_reference_needs() {
    let scratch = Scratch::new();
    let first = scratch.repository("up");
    let into = scratch.target("down");
    bake(&open(&path(&scratch, "up")).unwrap(), &Wanted::default(), &into).unwrap();
    scratch.git("down", &["branch", "mine", &first]);
    let second = scratch.commit("up", &[("README", &"x".repeat(100_000)), ("unrelated", "u\n")]);
    bake(&open(&path(&scratch, "up")).unwrap(), &Wanted::default(), &into).unwrap();
    std::fs::write(scratch.path("down/.git/objects/pack/tmp_pack_killed"), "half").unwrap();
    scratch.git("down", &["config", "user.name", "x"]);
    std::fs::write(scratch.path("down/loose"), "loose\n").unwrap();
    scratch.git("down", &["hash-object", "-w", "loose"]);
    std::fs::remove_file(scratch.path("down/loose")).unwrap();
    assert_eq!(maintain(&into, oid(&second), &Cancel::new()).unwrap(), Change::Changed);
    let into = open_repository(&scratch.path("down")).unwrap();
    assert_eq!(maintain(&into, oid(&second), &Cancel::new()).unwrap(), Change::Unchanged);
    assert_eq!(scratch.git("down", &["cat-file", "-t", "mine"]), "commit");
    assert!(!scratch.git("down", &["count-objects", "-v"]).contains("size-garbage: 1"));
    scratch.git("down", &["branch", "-q", "-D", "mine"]);
    scratch.check("down", &second, false);
}

#[test]
fn interrupted_upkeep_leaves_a_whole_repository() {
    let scratch = Scratch::new();
    scratch.repository("up");
    let into = scratch.target("down");
    bake(&open(&path(&scratch, "up")).unwrap(), &Wanted::default(), &into).unwrap();
    let commit = scratch.commit("up", &[("README", "two\n")]);
    bake(&open(&path(&scratch, "up")).unwrap(), &Wanted::default(), &into).unwrap();
    let packs = scratch.path("down/.git/objects/pack");
    let orphan = packs.join(format!("pack-{}.pack", "0".repeat(40)));
    std::fs::write(&orphan, "an index was removed, its pack not yet").unwrap();
    let cancelled = Cancel::new();
    cancelled.cancel(15);
    assert_eq!(maintain(&into, oid(&commit), &cancelled).unwrap_err().kind(), Kind::Interrupted(15));
    std::fs::remove_file(&orphan).unwrap();
    scratch.check("down", &commit, false);
    std::fs::write(&orphan, "an index was removed, its pack not yet").unwrap();
    maintain(&open_repository(&scratch.path("down")).unwrap(), oid(&commit), &Cancel::new()).unwrap();
    assert!(!orphan.exists());
    scratch.check("down", &commit, false);
}

#[test]
fn upkeep_that_was_killed_between_a_pack_and_its_index_makes_both() {
    let scratch = Scratch::new();
    scratch.repository("up");
    let into = scratch.target("down");
    bake(&open(&path(&scratch, "up")).unwrap(), &Wanted::default(), &into).unwrap();
    let commit = scratch.commit("up", &[("README", &noise(1, 10_000))]);
    bake(&open(&path(&scratch, "up")).unwrap(), &Wanted::default(), &into).unwrap();
    // The same upkeep, not killed, tells the pack's name and content.
    let copied = std::process::Command::new("cp").arg("-a").args([scratch.path("down"), scratch.path("whole")]).status();
    assert!(copied.unwrap().success());
    std::fs::write(scratch.path("whole/.git/objects/pack/tmp_pack_killed"), "half").unwrap();
    maintain(&open_repository(&scratch.path("whole")).unwrap(), oid(&commit), &Cancel::new()).unwrap();
    let packs =
        |repository: &str| scratch.path(repository).join(".git/objects/pack").read_dir().unwrap().map(|it| it.unwrap().path());
    let is_new = |pack: &std::path::PathBuf| !packs("down").any(|old| old.file_name() == pack.file_name());
    let pack = packs("whole").find(|path| path.extension().unwrap() == "pack" && is_new(path)).unwrap();
    std::fs::copy(&pack, scratch.path("down/.git/objects/pack").join(pack.file_name().unwrap())).unwrap();
    assert_eq!(
        maintain(&open_repository(&scratch.path("down")).unwrap(), oid(&commit), &Cancel::new()).unwrap(),
        Change::Changed
    );
    scratch.check("down", &commit, false);
}
