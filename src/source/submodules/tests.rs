use super::*;
use crate::source::Login;

fn location(text: &str) -> Location {
    Location::parse(text).unwrap().0
}

#[test]
fn relative_urls_start_at_the_parent() {
    for (parent, url, expected) in [
        ("https://h/team/repo.git", "../other.git", "https://h/team/other.git"),
        ("https://h/team/repo.git/", "../../x/y", "https://h/x/y"),
        ("https://h:8443/team/repo", "./sub", "https://h:8443/team/repo/sub"),
        ("git@h:team/repo.git", "../other.git", "git@h:team/other.git"),
        ("ssh://git@h/srv/repo", "../other", "ssh://git@h/srv/other"),
        ("/srv/git/repo", "../other", "/srv/git/other"),
        ("https://h/r", "https://elsewhere/r", "https://elsewhere/r"),
        ("https://h/r", "git@elsewhere:r", "git@elsewhere:r"),
    ] {
        assert_eq!(locate(&location(parent), url).unwrap(), location(expected), "{parent} + {url}");
    }
}

#[test]
fn urls_that_escape_or_reach_this_machine_are_refused() {
    for (parent, url) in [
        ("https://h/repo", "../.."),
        ("https://h/repo", "../../other"),
        ("https://h/team/repo", "../../../other/repo"),
        ("git@h:team/repo", "../../../etc"),
        ("git@h:repo", "../../x/y"),
        ("https://h/r", "/etc"),
        ("https://h/r", "file:///etc"),
        ("/srv/r", "file:///etc"),
        ("/srv/r", "/etc"),
        ("/srv/r", "../../../etc"),
        ("https://h/r", "ext::sh -c id"),
        ("https://h/r", "git://h/r"),
        ("https://h/r", "-u"),
        ("https://h/r", "../x\ny"),
        ("https://h/r", "ssh://-oProxyCommand=id/x"),
        ("git@h:team/r", "../a';id'"),
    ] {
        assert!(locate(&location(parent), url).is_err(), "{parent} + {url:?}");
    }
}

#[test]
fn names_and_paths_stay_inside() {
    for text in ["vendor/a", "a.b", ".github", "a b", "git", "x.git", "...a"] {
        check_path("path", text).unwrap();
    }
    for text in [
        "",
        "/a",
        "-a",
        "..",
        "a/..",
        "a/../b",
        ".",
        "a//b",
        "a/",
        ".git",
        "a/.GIT/b",
        ".git.",
        ".git ",
        "git~1",
        ".g\u{200c}it",
        ".git::$INDEX_ALLOCATION",
        "a\\b",
        "a\nb",
    ] {
        assert!(check_path("path", text).is_err(), "{text:?}");
    }
}

#[test]
fn credentials_stay_on_the_host() {
    let login = Login { user: "u".into(), password: "p".into() };
    let access =
        Access { login: Some(login), ssh_key: Some("/key".into()), known_hosts: Some("/known".into()), ..Access::default() };
    let seen = |parent: &str, child: &str| {
        let child = access_for(&access, &location(parent), &location(child));
        assert_eq!(child.known_hosts, access.known_hosts);
        (child.login.is_some(), child.ssh_key.is_some())
    };
    assert_eq!(seen("https://h/r", "https://H:443/x"), (true, true));
    assert_eq!(seen("https://h/r", "https://evil/x"), (false, false));
    assert_eq!(seen("https://h/r", "https://h:8443/x"), (false, false));
    assert_eq!(seen("https://h/r", "http://h/x"), (false, false));
    assert_eq!(seen("git@h:r", "ssh://git@h:22/x"), (true, true));
    assert_eq!(seen("/srv/r", "/srv/x"), (false, false));
}

struct Fixture {
    _directory: tempfile::TempDir,
    repository: Repository,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let repository = Repository::init_bare(directory.path()).unwrap();
        Fixture { _directory: directory, repository }
    }

    /// A commit with `.gitmodules` (of the given mode) and a submodule at `vendor/a`.
    fn commit(&self, list: Option<(&str, i32)>) -> Oid {
        let link = Oid::from_str(&"a".repeat(40)).unwrap();
        let mut inner = self.repository.treebuilder(None).unwrap();
        inner.insert("a", link, 0o160_000).unwrap();
        let mut root = self.repository.treebuilder(None).unwrap();
        root.insert("vendor", inner.write().unwrap(), 0o040_000).unwrap();
        if let Some((text, mode)) = list {
            root.insert(".gitmodules", self.repository.blob(text.as_bytes()).unwrap(), mode).unwrap();
        }
        let tree = self.repository.find_tree(root.write().unwrap()).unwrap();
        let who = git2::Signature::new("a", "a@example.com", &git2::Time::new(0, 0)).unwrap();
        self.repository.commit(None, &who, &who, "m", &tree, &[]).unwrap()
    }

    fn list(&self, list: Option<(&str, i32)>) -> Result<Vec<Submodule>> {
        submodules(&self.repository, self.commit(list), &location("https://h/team/repo"))
    }
}

#[test]
fn the_commit_decides_what_there_is() {
    let fixture = Fixture::new();
    let entry = "[submodule \"one\"]\npath = vendor/a\nurl = ../one\n[submodule \"gone\"]\npath = gone\nurl = file:///etc\n";
    let expected = Submodule {
        name: "one".into(),
        path: "vendor/a".into(),
        location: location("https://h/team/one"),
        commit: Oid::from_str(&"a".repeat(40)).unwrap(),
    };
    assert_eq!(fixture.list(Some((entry, 0o100_644))).unwrap(), [expected]);
    let none = format!("{entry}[submodule \"one\"]\nupdate = none\n");
    assert_eq!(fixture.list(Some((&none, 0o100_644))).unwrap(), []);
    for (list, says) in [
        (None, "not in .gitmodules"),
        (Some((entry, 0o120_000)), "regular file"),
        (Some(("[submodule", 0o100_644)), "understood"),
        (Some(("[submodule \"../x\"]\npath = vendor/a\nurl = ../one\n", 0o100_644)), "name"),
        (Some(("[submodule \"x\"]\npath = vendor/a\n", 0o100_644)), "no URL"),
        (Some(("[submodule \"x\"]\npath = vendor/a\nurl = /etc\n", 0o100_644)), "URL"),
    ] {
        let error = fixture.list(list).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
}
