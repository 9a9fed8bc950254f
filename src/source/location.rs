//! What the user may write as a repository, and when two ways of writing mean the same repository.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use url::Url;

use super::Login;
use crate::error::{Error, Kind, OrFail, Result};

/// Where a repository is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// `https://`, `http://` or `ssh://` (also written `user@host:path`), without credentials. A path below the login
    /// directory (`user@host:path`) is kept as `/~/path`.
    Remote(Url),
    /// A directory on this machine (a path or a `file://` URL): a work tree, a git directory or a bare repository.
    Local(PathBuf),
}

/// Marks a path that begins at the login directory of an SSH user.
const HOME: &str = "/~/";

/// What no host, user or path of an SSH URL needs, and what a shell on the other side might act upon.
const SHELL_CHARACTERS: &[char] = &['\'', '"', '`', '$', ';', '|', '&', '<', '>', '(', ')', '\\', '!', '*', '?', '{', '}'];

impl Location {
    /// Reads what the user wrote: a URL, `user@host:path` or a path. Never logs it: it may carry a password, which comes
    /// back beside the location. Looks at nothing but the text.
    pub fn parse(text: &str) -> Result<(Location, Option<Login>)> {
        if text.is_empty() {
            return Err(Error::new(Kind::Usage, "the repository is empty").hint("give a URL or a path"));
        }
        if text.chars().any(char::is_control) {
            return Err(Error::new(Kind::Usage, "the repository contains control characters"));
        }
        match text.split_once("://") {
            Some((scheme, _)) if is_scheme(scheme) => parse_url(&scheme.to_ascii_lowercase(), text),
            _ => match split_scp(text) {
                Some((host, path)) => Ok((parse_scp(host, path)?, None)),
                None => Ok((Location::Local(PathBuf::from(text)), None)),
            },
        }
    }

    /// The identity of this repository, equal for equal ones: scheme and host in lower case; no credentials, default port,
    /// trailing slashes or `.git`. A local path is made absolute.
    pub fn canonical(&self) -> Result<String> {
        match self {
            Location::Remote(url) => Ok(canonical_url(url)),
            Location::Local(path) => {
                let path = path.canonicalize().or_fail(Kind::Git, || format!("cannot find {}", path.display()))?;
                let url = Url::from_file_path(&path).expect("a canonical path is absolute");
                Ok(canonical_url(&url))
            }
        }
    }

    /// The host and port, for messages and for deciding who may see credentials.
    pub(super) fn authority(&self) -> Option<(String, Option<u16>)> {
        match self {
            Location::Remote(url) => Some((url.host_str()?.to_ascii_lowercase(), port(url))),
            Location::Local(_) => None,
        }
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

/// `host:path` without a slash before the colon, as git reads it; the host may be `[2001:db8::1]`.
fn split_scp(text: &str) -> Option<(&str, &str)> {
    let after_bracket = match text.find('[') {
        Some(open) if !text[..open].contains([':', '/']) => open + text[open..].find(']')?,
        _ => 0,
    };
    let colon = after_bracket + text[after_bracket..].find(':')?;
    // `helper::address` would be a remote helper to git; here it is neither a host nor a path worth guessing at.
    let colon = if text[colon..].starts_with("::") { return Some(("", text)) } else { colon };
    (!text[..colon].contains('/')).then(|| (&text[..colon], &text[colon + 1..]))
}

fn parse_url(scheme: &str, text: &str) -> Result<(Location, Option<Login>)> {
    match scheme {
        "http" | "https" | "ssh" | "file" => {}
        "git" => {
            return Err(Error::new(Kind::Usage, "git:// proves nothing about who answers and is not supported")
                .hint("use https:// or ssh://"));
        }
        "ssh+git" | "git+ssh" => {
            return Err(Error::new(Kind::Usage, format!("{scheme}:// is not supported")).hint("write ssh://"));
        }
        _ => {
            return Err(Error::new(Kind::Usage, format!("{scheme}:// is not supported"))
                .hint("use https://, http://, ssh://, file:// or a path"));
        }
    }
    // Not with the parser's own message as a cause: nothing of the text may get into a log.
    let mut url = Url::parse(text).map_err(|_| Error::new(Kind::Usage, "the repository is not a valid URL"))?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(
            Error::new(Kind::Usage, "the repository's URL has a query or a fragment").hint("leave out what follows ? or #")
        );
    }
    match scheme {
        "file" => {
            let path = url.to_file_path().map_err(|()| {
                Error::new(Kind::Usage, "a file:// URL must name a path on this machine").hint("write file:///path")
            })?;
            Ok((Location::Local(path), None))
        }
        "ssh" => {
            if url.password().is_some() {
                return Err(Error::new(Kind::Usage, "the SSH URL contains a password").hint("use a key file or an agent"));
            }
            check_ssh(&url)?;
            Ok((Location::Remote(url), None))
        }
        _ => {
            let login = take_login(&mut url)?;
            if url.host_str().is_none_or(|host| host.starts_with('-')) {
                return Err(Error::new(Kind::Usage, "the host of the repository's URL is not acceptable"));
            }
            Ok((Location::Remote(url), login))
        }
    }
}

fn parse_scp(host: &str, path: &str) -> Result<Location> {
    let path = match path.strip_prefix('/') {
        Some(absolute) => format!("/{absolute}"),
        None => format!("{HOME}{}", path.strip_prefix("~/").unwrap_or(path)),
    };
    let invalid = || Error::new(Kind::Usage, "the repository is neither a URL, nor user@host:path, nor a path");
    if host.is_empty() || host.contains([' ', '?', '#']) || path.contains(['?', '#']) || path.len() == HOME.len() {
        return Err(invalid());
    }
    let url = Url::parse(&format!("ssh://{host}{path}")).map_err(|_| invalid())?;
    if url.password().is_some() || url.port().is_some() {
        return Err(invalid());
    }
    check_ssh(&url)?;
    Ok(Location::Remote(url))
}

/// Splits the credentials off: a lone user name is a token, as the git hosts have it.
fn take_login(url: &mut Url) -> Result<Option<Login>> {
    let decode = |text: &str| {
        percent_decode_str(text)
            .decode_utf8()
            .map(|text| text.into_owned())
            .map_err(|_| Error::new(Kind::Usage, "the credentials in the repository's URL are not UTF-8"))
    };
    let login = Login { user: decode(url.username())?, password: decode(url.password().unwrap_or_default())? };
    url.set_username("").and_then(|()| url.set_password(None)).expect("an http URL has a host");
    Ok((!login.user.is_empty() || !login.password.is_empty()).then_some(login))
}

/// Refuses what could be taken for an option or a command by a program on either side.
fn check_ssh(url: &Url) -> Result<()> {
    let refuse = |what: &str| Err(Error::new(Kind::Usage, format!("the {what} of the SSH URL is not acceptable")));
    let host = url.host_str().unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    if host.is_empty() || host.starts_with('-') || !host.chars().all(plain) {
        return refuse("host");
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+' | '@');
    let user = decoded(url.username());
    if user.starts_with('-') || !user.chars().all(plain) {
        return refuse("user");
    }
    let path = ssh_path(url);
    if path.is_empty()
        || path == "/"
        || path.starts_with('-')
        || path.contains(SHELL_CHARACTERS)
        || path.contains(char::is_control)
    {
        return refuse("path");
    }
    Ok(())
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// The path to ask an SSH server for; relative to the login directory when it was written so.
pub(super) fn ssh_path(url: &Url) -> String {
    decoded(url.path().strip_prefix(HOME).unwrap_or(url.path()))
}

/// The port, if it is not the scheme's default.
fn port(url: &Url) -> Option<u16> {
    url.port().filter(|port| !(url.scheme() == "ssh" && *port == 22))
}

/// The canonical form of a canonical form is the same.
fn canonical_url(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
    let port = port(url).map(|port| format!(":{port}")).unwrap_or_default();
    let path = url.path();
    let mut path = path.trim_matches('/');
    while let Some(below) = path.strip_prefix(HOME.trim_start_matches('/')) {
        path = below.trim_start_matches('/');
    }
    let path = path.strip_suffix(".git").unwrap_or(path).trim_end_matches('/');
    format!("{}://{host}{port}/{path}", url.scheme())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        Location::parse(text).unwrap().0.canonical().unwrap()
    }

    #[test]
    fn equal_repositories_have_one_identity() {
        for text in [
            "https://example.com/team/repo",
            "https://example.com/team/repo.git",
            "HTTPS://Example.COM:443/team/repo/",
            "https://user:secret@example.com/team/repo.git/",
        ] {
            assert_eq!(canonical(text), "https://example.com/team/repo", "{text}");
        }
        for text in [
            "git@example.com:team/repo.git",
            "ssh://git@example.com/team/repo",
            "ssh://Example.com:22/team/repo.git",
            "example.com:/team/repo",
            "git@example.com:~/team/repo",
        ] {
            assert_eq!(canonical(text), "ssh://example.com/team/repo", "{text}");
        }
        assert_eq!(canonical("https://example.com:8443/r"), "https://example.com:8443/r");
        assert_eq!(canonical("ssh://git@[2001:DB8::1]:2222/r.git"), "ssh://[2001:db8::1]:2222/r");
        assert_ne!(canonical("https://example.com/Team/repo"), canonical("https://example.com/team/repo"));
    }

    #[test]
    fn credentials_are_split_off_and_decoded() {
        let (location, login) = Location::parse("https://user:p%40ss@example.com/r").unwrap();
        assert_eq!(location, Location::Remote(Url::parse("https://example.com/r").unwrap()));
        let login = login.unwrap();
        assert_eq!((login.user.as_str(), login.password.as_str()), ("user", "p@ss"));
        let (_, token) = Location::parse("https://token@example.com/r").unwrap();
        assert_eq!(token.unwrap().user, "token");
        assert!(Location::parse("https://example.com/r").unwrap().1.is_none());
    }

    #[test]
    fn messages_never_repeat_a_secret() {
        for text in ["https://user:hunter2@exa mple.com/r", "ssh://user:hunter2@example.com/r", "https://u:hunter2@h/r?q"] {
            let error = Location::parse(text).unwrap_err();
            let all = format!("{error} {:?} {:?} {error:?}", error.hint_text(), error.causes());
            assert!(!all.contains("hunter2"), "{all}");
        }
    }

    #[test]
    fn paths_and_file_urls_are_local() {
        for (text, path) in [
            ("/srv/repo", "/srv/repo"),
            ("repo", "repo"),
            ("./a:b", "./a:b"),
            ("../x/y:z", "../x/y:z"),
            ("file:///srv/my%20repo", "/srv/my repo"),
            ("file://localhost/srv/r", "/srv/r"),
        ] {
            assert_eq!(Location::parse(text).unwrap().0, Location::Local(path.into()), "{text}");
        }
    }

    #[test]
    fn scp_form_keeps_relative_paths_relative() {
        let path = |text: &str| match Location::parse(text).unwrap().0 {
            Location::Remote(url) => ssh_path(&url),
            Location::Local(_) => panic!("local"),
        };
        assert_eq!(path("git@h:team/repo.git"), "team/repo.git");
        assert_eq!(path("git@h:/srv/repo.git"), "/srv/repo.git");
        assert_eq!(path("ssh://git@h/srv/repo.git"), "/srv/repo.git");
        assert_eq!(path("git@[::1]:repo"), "repo");
    }

    #[test]
    fn dangerous_or_unsupported_text_is_refused() {
        for text in [
            "",
            "git://example.com/r",
            "ext::sh -c id",
            "ftp://example.com/r",
            "ssh://-oProxyCommand=id/r",
            "-oProxyCommand=id:r",
            "ssh://-u@host/r",
            "ssh://host/a'b",
            "ssh://host/a;id",
            "ssh://host/a%0ab",
            "ssh://host/$(id)",
            "host:-r",
            "host:a`id`",
            "host:",
            "ssh://host",
            "https://example.com/a\nb",
            "https://example.com/r?x=1",
            "file://elsewhere/srv/r",
            "https:///r#x",
            "http://-h/r",
        ] {
            assert!(Location::parse(text).is_err(), "{text:?} was accepted");
        }
    }
}
