use super::*;
use crate::source::pktline;

fn oid(digit: char) -> Oid {
    Oid::from_str(&digit.to_string().repeat(40)).unwrap()
}

fn refs(lines: &[(&str, char)]) -> Refs {
    let mut refs = Refs { head_target: Some("refs/heads/main".into()), ..Refs::default() };
    for (name, digit) in lines {
        refs.add(name, oid(*digit));
    }
    refs
}

fn by_name(refs: &Refs, name: &str) -> Result<Resolved> {
    refs.resolve(&Wanted { reference: Some(name.into()), commit: None })
}

fn usual() -> Refs {
    refs(&[
        ("HEAD", '1'),
        ("refs/heads/main", '1'),
        ("refs/heads/release", '2'),
        ("refs/heads/same", '3'),
        ("refs/remotes/origin/topic", '9'),
        ("refs/tags/release", '4'),
        ("refs/tags/same", '5'),
        ("refs/tags/same^{}", '3'),
        ("refs/tags/v1", '6'),
        ("refs/tags/v1^{}", '7'),
    ])
}

#[test]
fn names_resolve_as_git_resolves_them() {
    for (name, full, digit) in [
        ("main", Some("refs/heads/main"), '1'),
        ("heads/main", Some("refs/heads/main"), '1'),
        ("refs/heads/release", Some("refs/heads/release"), '2'),
        ("refs/tags/release", Some("refs/tags/release"), '4'),
        ("v1", Some("refs/tags/v1"), '7'),
        ("same", Some("refs/tags/same"), '3'),
        ("topic", Some("refs/remotes/origin/topic"), '9'),
        ("HEAD", Some("refs/heads/main"), '1'),
        ("8888888888888888888888888888888888888888", None, '8'),
    ] {
        let resolved = by_name(&usual(), name).unwrap();
        assert_eq!((resolved.reference.as_deref(), resolved.commit), (full, oid(digit)), "{name}");
    }
    let default = usual().resolve(&Wanted::default()).unwrap();
    assert_eq!(default, Resolved { commit: oid('1'), reference: Some("refs/heads/main".into()) });
}

#[test]
fn a_name_that_is_tag_and_branch_is_an_error_that_names_both() {
    let error = by_name(&usual(), "release").unwrap_err();
    assert!(error.to_string().contains("both a tag and a branch"), "{error}");
    assert_eq!(error.hint_text(), Some("write refs/tags/release or refs/heads/release"));
}

#[test]
fn a_commit_wins_over_the_name_it_was_asked_for_by() {
    let wanted = |name: &str| Wanted { reference: Some(name.into()), commit: Some(oid('8')) };
    let known = usual().resolve(&wanted("main")).unwrap();
    assert_eq!(known, Resolved { commit: oid('8'), reference: Some("refs/heads/main".into()) });
    let gone = usual().resolve(&wanted("deleted")).unwrap();
    assert_eq!(gone, Resolved { commit: oid('8'), reference: None });
}

#[test]
fn what_is_not_there_is_said_with_the_nearest_name() {
    assert_eq!(by_name(&usual(), "mian").unwrap_err().hint_text(), Some("did you mean \"main\"?"));
    assert_eq!(by_name(&usual(), "refs/heads/mein").unwrap_err().hint_text(), Some("did you mean \"refs/heads/main\"?"));
    assert!(by_name(&usual(), "abc1234").unwrap_err().hint_text().unwrap().contains("full SHA"));
    assert!(by_name(&usual(), "quux").unwrap_err().hint_text().unwrap().contains("ls-remote"));
    let empty = Refs::default().resolve(&Wanted::default()).unwrap_err();
    assert!(empty.to_string().contains("empty"), "{empty}");
    let unborn = refs(&[("refs/heads/other", '2')]).resolve(&Wanted::default()).unwrap_err();
    assert!(unborn.to_string().contains("refs/heads/main"), "{unborn}");
}

fn advertisement(lines: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    lines.iter().for_each(|line| pktline::push(&mut bytes, line));
    pktline::flush(&mut bytes);
    bytes
}

#[test]
fn an_advertisement_is_read() {
    let (a, b, c) = ("a".repeat(40), "b".repeat(40), "c".repeat(40));
    let bytes = advertisement(&[
        &format!("{a} HEAD\0multi_ack side-band-64k symref=HEAD:refs/heads/main shallow\n"),
        &format!("{a} refs/heads/main\n"),
        &format!("{a} refs/heads/e\x1b[31mvil\n"),
        &format!("{b} refs/tags/v1\n"),
        &format!("{c} refs/tags/v1^{{}}\n"),
    ]);
    let refs = Refs::read(&mut Packets::new(bytes.as_slice())).unwrap();
    assert_eq!(refs.tips.keys().collect::<Vec<_>>(), ["refs/heads/main", "refs/tags/v1"]);
    assert_eq!(refs.tips["refs/tags/v1"].commit(), oid('c'));
    assert_eq!(refs.head_target.as_deref(), Some("refs/heads/main"));
    assert!(refs.can("shallow") && !refs.can("filter"));
}

#[test]
fn a_hostile_advertisement_is_an_error() {
    let zero = "0".repeat(40);
    for line in ["", "short", "x refs/heads/main", &format!("{zero}refs/heads/main"), "ERR \x1b[2Jgo away"] {
        let error = Refs::read(&mut Packets::new(advertisement(&[line]).as_slice())).unwrap_err();
        assert!(!error.to_string().contains('\x1b'), "{error}");
    }
    let other = advertisement(&[&format!("{zero} capabilities^{{}}\0object-format=sha256")]);
    assert!(Refs::read(&mut Packets::new(other.as_slice())).unwrap_err().to_string().contains("SHA-256"));
    let none = advertisement(&[&format!("{zero} capabilities^{{}}\0side-band-64k")]);
    assert!(Refs::read(&mut Packets::new(none.as_slice())).unwrap().tips.is_empty());
    let hostile = advertisement(&[&format!("{zero} refs/heads/a\u{9b}2J\0symref=HEAD:refs/heads/a\u{9b}2J")]);
    let refs = Refs::read(&mut Packets::new(hostile.as_slice())).unwrap();
    assert_eq!((refs.tips.len(), refs.head_target), (0, None));
}
