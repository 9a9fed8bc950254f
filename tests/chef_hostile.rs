//! Repositories that mean harm, or are only large: the checks stay inside of them, end, and say what they can.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/chef_repo.rs"]
mod chef_repo;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use chef_repo::{GOOD, NONE, Repo, shown};
use ebs_bake::cancel::Cancel;
use ebs_bake::chef;
use ebs_bake::chef::judge::judge;
use ebs_bake::chef::read::Place;
use ebs_bake::chef::repository::{Findings, Lists, Named, Repository, RunLists};

#[test]
fn links_are_followed_within_the_repository_and_what_is_outside_is_neither_read_nor_judged() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("role.json"), "{,").unwrap();
    let outside = outside.path().to_str().unwrap();
    let repo = Repo::new(&GOOD);
    repo.link("../shared/app", "cookbooks/app");
    repo.write("shared/app/recipes/default.rb", "");
    repo.link(&format!("{outside}/role.json"), "roles/absolute.json");
    repo.link("../../../../../../../../etc/passwd", "roles/relative.json");
    repo.link("/chef/else/where", "cookbooks/mounted");
    repo.link("nowhere", "roles/dangling.json");
    repo.link("loop", "roles/loop");
    repo.link("..", "roles/up");
    nix::unistd::mkfifo(&repo.path("roles/pipe.json"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    let list = ["app", "app::gone", "mounted::any", "role[absolute]", "role[relative]", "role[dangling]", "role[pipe]"];
    repo.write("nodes/a.json", format!("{{\"run_list\": {list:?}}}"));
    let expected = [
        "error nodes/a.json:1: cookbook \"app\" has no recipe \"gone\"",
        "error nodes/a.json:1: there is no role \"dangling\"",
        "error nodes/a.json:1: there is no role \"pipe\"",
    ];
    assert_eq!(repo.found(), expected);
}

#[test]
fn nothing_is_said_of_roles_and_cookbooks_that_are_all_elsewhere() {
    let repo = Repo::new(&[("nodes/a.json", r#"{"run_list": ["role[x]", "y"]}"#)]);
    repo.link("/chef/roles", "roles");
    repo.link("/chef/cookbooks", "cookbooks");
    assert_eq!(repo.found(), NONE);
    assert_eq!(chef::roles(repo.0.path(), &Place::default(), &Cancel::new()).unwrap(), None);
}

#[test]
fn names_of_roles_are_those_of_their_files() {
    let repo =
        Repo::new(&[("roles/web.rb", "broken ("), ("roles/sub/db.json", "{,"), ("roles/README.md", ""), ("roles/.x.rb", "")]);
    let names = |path: &str| {
        let place = Place { path: path.into(), ..Place::default() };
        chef::roles(repo.0.path(), &place, &Cancel::new()).unwrap().unwrap().into_iter().collect::<Vec<_>>()
    };
    assert_eq!(names(""), ["db", "web"]);
    assert_eq!(names("sub"), NONE);
}

#[test]
fn what_is_too_large_is_not_read() {
    let repo = Repo::new(&GOOD);
    repo.write("data_bags/b/large.json", vec![b' '; (16 << 20) + 1]);
    repo.write("roles/large.rb", vec![b'('; (1 << 20) + 1]);
    let expected = [
        "warning data_bags/b/large.json: it is larger than 16 MiB and was not read",
        "warning roles/large.rb: it is larger than 1 MiB and was not read",
    ];
    assert_eq!(repo.found(), expected);
}

#[test]
fn findings_and_names_have_an_end() {
    let repo = Repo::new(&GOOD);
    let list = vec!["\"recipe[ngin]\""; 300_000].join(",");
    repo.write("roles/a.json", format!("{{\"run_list\": [{list}]}}"));
    repo.write("roles/b.json", format!("{{\"run_list\": [\"{}\"]}}", "x".repeat(5 << 20)));
    let checked = repo.checked(&Place::default());
    assert!((190_000..=200_000).contains(&checked.errors), "{}", checked.errors);
    assert_eq!(checked.findings.len(), 1000);
    let suggested = checked.findings.iter().filter(|finding| finding.message.contains("did you mean")).count();
    assert!((50..=100).contains(&suggested), "each costs a look at all names: {suggested}");
    assert!(checked.findings.iter().all(|finding| finding.message.len() < 2000));
    assert_eq!(checked.warnings, 1, "that not all were checked");
}

#[test]
fn names_with_control_characters_and_bytes_that_are_no_text_do_no_harm() {
    let repo = Repo::new(&GOOD);
    repo.write("roles/x\n::error::y.json", "{\"run_list\": [\"a\\u001b[2J\\u0000::warning::\\u202e\"]}");
    repo.write("roles/bytes.rb", b"run_list '\xff\xfe', 'nginx'\n");
    fs::write(repo.path("roles").join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff.json")), "{,")
        .unwrap();
    let found = repo.found();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|it| !it.contains(['\u{1b}', '\0', '\u{202e}'])), "{found:?}");
}

#[test]
fn a_chain_of_roles_may_be_longer_than_a_stack() {
    let count = 100_000;
    let role = |number: usize| {
        let entries = [number + 1, number + 2].map(|next| Named { name: format!("role[r{}]", next % count), line: 1 });
        (
            format!("r{number}"),
            vec![Lists { file: format!("roles/r{number}.rb"), lists: RunLists::from([("_default".into(), entries.into())]) }],
        )
    };
    let repository = Repository { roles: (0..count).map(role).collect::<BTreeMap<_, _>>(), ..Repository::default() };
    let mut findings = Findings::default();
    judge(&repository, &mut findings);
    let found = findings.into_sorted();
    assert!(found[0].message.starts_with("role \"r0\" includes itself: r0 → r1 →"), "{}", found[0].message);
    assert!(found.iter().all(|finding| finding.message.len() < 200));
}

#[test]
fn nothing_is_said_of_a_cookbook_that_is_there_too_often() {
    let asking = |count: usize| {
        let repo = Repo::new(&[("nodes/a.json", r#"{"run_list": ["x::gone", "x@9.9.9"]}"#)]);
        (0..count).for_each(|number| repo.write(&format!("cookbooks/x{number}/metadata.rb"), "name 'x'"));
        shown(&repo.checked(&Place::default())).iter().filter(|finding| finding.starts_with("error")).count()
    };
    assert_eq!(asking(16), 3);
    assert_eq!(asking(17), 0);
}

#[test]
fn a_cancelled_check_ends() {
    let cancel = Cancel::new();
    let signal = nix::sys::signal::Signal::SIGTERM as i32;
    cancel.cancel(signal);
    let repo = Repo::new(&GOOD);
    let error = chef::check(Path::new(repo.0.path()), &Place::default(), &cancel).unwrap_err();
    assert_eq!(error.kind(), ebs_bake::error::Kind::Interrupted(signal));
}
