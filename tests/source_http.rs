//! Fetching over HTTP from a real git, judged by the git command line.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/git_cli.rs"]
mod git_cli;
#[path = "support/git_server.rs"]
mod git_server;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ebs_bake::cancel::Cancel;
use ebs_bake::error::Kind;
use ebs_bake::report::{Event, Observer, Phase, Report};
use ebs_bake::source::{Access, Location, Login, Source, Wanted, kept};
use git_cli::{Scratch, all, bake, oid, open, open_with, phase, wanted};
use git_server::{Fault, GitServer};

fn serve() -> (Scratch, GitServer, String) {
    let scratch = Scratch::new();
    let commit = scratch.repository("up");
    let server = GitServer::start(&scratch.path(""));
    (scratch, server, commit)
}

fn methods(server: &GitServer) -> Vec<String> {
    server.requests().into_iter().map(|request| request.method).collect()
}

#[test]
fn a_bake_takes_one_get_and_one_post_on_one_connection() {
    let (scratch, server, _) = serve();
    let second = scratch.commit("up", &[("README", "two\n")]);
    let source = open(&server.url("up")).unwrap();
    let into = scratch.target("down");
    let (resolved, fetched) = bake(&source, &Wanted::default(), &into).unwrap();
    assert_eq!((resolved.commit, resolved.reference.as_deref()), (oid(&second), Some("refs/heads/main")));
    assert_eq!(fetched.objects, 7, "a commit, three trees and three files");
    let requests = server.requests();
    assert_eq!(requests.iter().map(|request| request.method.as_str()).collect::<Vec<_>>(), ["GET", "POST"]);
    assert!(requests.iter().all(|request| request.connection == 0), "{requests:?}");
    assert_eq!(kept(&into), Some(oid(&second)));
    scratch.check("down", &second, false);
}

#[test]
fn an_update_brings_only_what_changed() {
    let (scratch, server, _) = serve();
    let first = scratch.commit("up", &[("README", "one\n")]);
    let into = scratch.target("down");
    bake(&open(&server.url("up")).unwrap(), &Wanted::default(), &into).unwrap();
    scratch.check("down", &first, false);
    let second = scratch.commit("up", &[("recipes/default.rb", "package 'y'\n")]);
    server.requests();
    let (_, fetched) = bake(&open(&server.url("up")).unwrap(), &Wanted::default(), &into).unwrap();
    assert!(fetched.objects <= 4, "{fetched:?}");
    assert_eq!(methods(&server), ["GET", "POST"]);
    scratch.check("down", &second, false);
    assert_eq!(std::fs::read_to_string(scratch.path("down/.git/shallow")).unwrap(), format!("{second}\n"));
    let (_, nothing) = bake(&open(&server.url("up")).unwrap(), &Wanted::default(), &into).unwrap();
    assert_eq!((nothing.objects, methods(&server)), (0, vec!["GET".to_owned()]));
}

#[test]
fn a_branch_that_was_forced_back_and_a_rewritten_one_are_fetched() {
    let (scratch, server, first) = serve();
    let second = scratch.commit("up", &[("README", "two\n")]);
    let into = scratch.target("down");
    bake(&open(&server.url("up")).unwrap(), &Wanted::default(), &into).unwrap();
    scratch.git("up", &["reset", "-q", "--hard", &first]);
    bake(&open(&server.url("up")).unwrap(), &Wanted::default(), &into).unwrap();
    scratch.check("down", &first, false);
    scratch.git("up", &["checkout", "-q", "--orphan", "other"]);
    let rewritten = scratch.commit("up", &[("README", "again\n")]);
    scratch.git("up", &["branch", "-f", "main", "other"]);
    scratch.git("up", &["symbolic-ref", "HEAD", "refs/heads/main"]);
    scratch.git("up", &["gc", "-q", "--prune=now"]);
    bake(&open(&server.url("up")).unwrap(), &wanted("main"), &into).unwrap();
    scratch.check("down", &rewritten, false);
    assert_ne!(second, rewritten);
}

#[test]
fn tags_lead_to_their_commits_and_no_tag_is_left_behind() {
    let (scratch, server, first) = serve();
    scratch.git("up", &["tag", "-a", "-m", "one", "v1"]);
    scratch.git("up", &["tag", "-a", "-m", "tag of a tag", "v1-again", "v1"]);
    scratch.commit("up", &[("README", "two\n")]);
    for name in ["v1", "v1-again", "refs/tags/v1"] {
        let into = scratch.target(&format!("down-{}", name.replace('/', "-")));
        let (resolved, _) = bake(&open(&server.url("up")).unwrap(), &wanted(name), &into).unwrap();
        assert_eq!(resolved.commit, oid(&first), "{name}");
        assert_eq!(into.tag_names(None).unwrap().len(), 0);
        scratch.check(&format!("down-{}", name.replace('/', "-")), &first, false);
    }
}

#[test]
fn a_commit_is_had_by_its_sha_alone() {
    let (scratch, server, first) = serve();
    scratch.commit("up", &[("README", "two\n")]);
    let into = scratch.target("down");
    let asked = Wanted { reference: Some("main".into()), commit: Some(oid(&first)) };
    let (resolved, _) = bake(&open(&server.url("up")).unwrap(), &asked, &into).unwrap();
    assert_eq!((resolved.commit, resolved.reference.as_deref()), (oid(&first), Some("refs/heads/main")));
    assert_eq!(methods(&server), ["GET", "POST"]);
    scratch.check("down", &first, false);
}

#[test]
fn a_commit_that_nothing_leads_to_is_an_error_that_names_it() {
    let (scratch, server, _) = serve();
    let lost = scratch.commit("up", &[("README", "lost\n")]);
    scratch.git("up", &["reset", "-q", "--hard", "HEAD~1"]);
    let into = scratch.target("down");
    for commit in [lost.as_str(), &"e".repeat(40)] {
        let error = bake(&open(&server.url("up")).unwrap(), &wanted(commit), &into).unwrap_err();
        assert_eq!(error.kind(), Kind::Git);
        assert!(error.to_string().contains(commit), "{}", all(&error));
        assert_eq!(kept(&into), None);
    }
}

#[test]
fn a_push_between_reading_the_references_and_fetching_does_no_harm() {
    let (scratch, server, first) = serve();
    let command = ["git", "-C", "up", "-c", "user.name=A", "-c", "user.email=a@b", "commit", "-q", "--amend", "-m", "forced"];
    server.fault(Fault::BeforePost(command.map(str::to_owned).to_vec()));
    let into = scratch.target("down");
    // The old commit is still in the object database, but no reference leads to it any more.
    let result = bake(&open(&server.url("up")).unwrap(), &Wanted::default(), &into);
    match result {
        Ok((resolved, _)) => scratch.check("down", &resolved.commit.to_string(), true),
        Err(error) => assert!(error.to_string().contains(&first), "{}", all(&error)),
    }
    let gets = methods(&server).iter().filter(|method| *method == "GET").count();
    assert_eq!(gets, 2, "the references are read anew exactly once");
}

#[test]
fn credentials_are_sent_when_asked_for_and_never_shown() {
    let (scratch, server, commit) = serve();
    server.require_login("ci:s3cret");
    let error = open(&server.url("up")).map(|_| ()).unwrap_err();
    assert!(all(&error).contains("EBS_BAKE_GIT_TOKEN"), "{}", all(&error));
    let wrong = Login { user: "ci".into(), password: "wr0ng".into() };
    let error = open_with(&server.url("up"), &Access { login: Some(wrong), ..Access::default() }).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("refuses"), "{}", all(&error));
    assert!(!format!("{error:?}{}", all(&error)).contains("wr0ng"));
    server.requests();
    let source = open(&format!("http://ci:s3cret@{}/up", server.address)).unwrap();
    assert!(!source.canonical_url().contains("s3cret"));
    bake(&source, &Wanted::default(), &scratch.target("down")).unwrap();
    let sent: Vec<bool> = server.requests().iter().map(|request| request.authorization.is_some()).collect();
    assert_eq!(sent, [false, true, true], "in clear text only after the host has asked");
    scratch.check("down", &commit, false);
}

#[test]
fn redirects_are_followed_on_the_same_host_only() {
    let (scratch, server, commit) = serve();
    scratch.git("", &["clone", "-q", "--bare", "up", "moved.git"]);
    server.fault(Fault::Redirect("/moved.git/info/refs?service=git-upload-pack".into()));
    bake(&open(&server.url("old")).unwrap(), &Wanted::default(), &scratch.target("down")).unwrap();
    scratch.check("down", &commit, false);
    assert!(server.requests().last().unwrap().path.starts_with("/moved.git/"));

    let other = GitServer::start(&scratch.path(""));
    server.fault(Fault::Redirect(format!("http://{}{{}}", other.address)));
    let login = Login { user: "u".into(), password: "p".into() };
    let error = open_with(&server.url("up"), &Access { login: Some(login), ..Access::default() }).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains(&other.address), "{}", all(&error));
    assert!(other.requests().is_empty(), "the other host must not hear of us");
    server.fault(Fault::Redirect(server.url("{}/")));
    assert!(open(&server.url("up")).is_err());
}

#[test]
fn refusals_and_nonsense_are_told_apart() {
    let (scratch, server, _) = serve();
    for (fault, says) in [
        (Fault::Status(404), "no such repository"),
        (Fault::Status(403), "does not permit"),
        (Fault::Status(500), "500"),
        (Fault::Status(418), "418"),
        (Fault::Page, "does not answer as a git repository"),
    ] {
        server.fault(fault);
        let error = open(&server.url("up")).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains(says), "{}", all(&error));
        assert_eq!(error.kind().exit_code(), 7);
    }
    server.fault(Fault::None);
    let error = open(&server.url("nothing-here")).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("no such repository"), "{}", all(&error));
    let error = open("http://host.invalid/x").map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("host.invalid"), "{}", all(&error));
    let error = open("http://127.0.0.1:1/x").map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("cannot talk"), "{}", all(&error));
    std::fs::create_dir(scratch.path("empty")).unwrap();
    scratch.git("empty", &["init", "-q"]);
    let error = open(&server.url("empty")).unwrap().resolve(&Wanted::default()).unwrap_err();
    assert!(error.to_string().contains("empty"), "{}", all(&error));
}

#[test]
fn a_broken_answer_leaves_the_repository_as_it_was() {
    let (scratch, server, commit) = serve();
    let into = scratch.target("down");
    let quick = Access { silence: Some(Duration::from_millis(300)), ..Access::default() };
    for (fault, says) in [(Fault::Truncate, "broke off"), (Fault::Stall, "stopped sending"), (Fault::Status(500), "500")] {
        server.fault(Fault::None);
        let source = open_with(&server.url("up"), &quick).unwrap();
        server.fault(fault);
        let error = bake(&source, &Wanted::default(), &into).unwrap_err();
        assert!(error.to_string().contains(says), "{}", all(&error));
        assert_eq!(kept(&into), None);
        let packs = scratch.path("down/.git/objects/pack");
        assert_eq!(packs.read_dir().map_or(0, Iterator::count), 0, "something was left in {}", packs.display());
    }
    server.fault(Fault::Close);
    bake(&open(&server.url("up")).unwrap(), &Wanted::default(), &into).unwrap();
    scratch.check("down", &commit, false);
}

#[test]
fn a_cancelled_run_does_not_wait_for_a_silent_host() {
    let (scratch, server, _) = serve();
    let cancel = Cancel::new();
    let (location, _) = Location::parse(&server.url("up")).unwrap();
    let source = Source::open(&location, &Access::default(), &cancel).unwrap();
    let into = scratch.target("down");
    server.fault(Fault::Stall);
    let resolved = source.resolve(&Wanted::default()).unwrap();
    let late = cancel.clone();
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        late.cancel(15);
    });
    let began = Instant::now();
    let error = source.fetch(&resolved, &into, &phase()).unwrap_err();
    killer.join().unwrap();
    assert_eq!(error.kind(), Kind::Interrupted(15));
    // The host would have been waited for a minute.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[derive(Default)]
struct Collect(Mutex<Vec<String>>);

impl Observer for Collect {
    fn event(&self, event: &Event<'_>) {
        if let Event::Output { line, .. } = event {
            self.0.lock().unwrap().push((*line).to_owned());
        }
    }
}

#[test]
fn what_the_host_says_is_passed_on_as_lines() {
    let (scratch, server, _) = serve();
    let lines = Arc::new(Collect::default());
    let phase = Report::new(lines.clone()).phase(Phase::Fetch);
    let source = open(&server.url("up")).unwrap();
    source.fetch(&source.resolve(&Wanted::default()).unwrap(), &scratch.target("down"), &phase).unwrap();
    let lines = lines.0.lock().unwrap();
    assert!(lines.iter().any(|line| line.starts_with("remote: ") && line.contains("objects")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains(char::is_control)), "{lines:?}");
}
