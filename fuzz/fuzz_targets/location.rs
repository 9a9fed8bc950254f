//! What a user, a CI system or a submodule calls a repository.
#![no_main]

use ebs_bake::ci::{detect, same_repository};
use ebs_bake::config::layers::Environment;
use ebs_bake::source::Location;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok((Location::Remote(url), _)) = Location::parse(text) {
        assert!(matches!(url.scheme(), "http" | "https" | "ssh"));
        assert_eq!(url.password(), None);
        assert!(url.scheme() == "ssh" || url.username().is_empty(), "{url}");
        let user = percent_encoding::percent_decode_str(url.username()).decode_utf8_lossy();
        assert!(!user.starts_with('-') && !url.host_str().unwrap_or_default().starts_with('-'), "{url}");
        let canonical = Location::Remote(url).canonical().expect("a remote location has a form");
        let authority = canonical.split('/').nth(2).expect("a URL has a host");
        assert!(!canonical.chars().any(char::is_control) && !authority.contains('@'), "{canonical:?}");
        if let Ok((again, login)) = Location::parse(&canonical) {
            assert_eq!(login, None);
            // `user@host:path` and `ssh://host/path` are one repository to hosts that have no login directories.
            assert!(again.canonical().is_ok_and(|it| same_repository(&it, &canonical)), "{canonical}");
        }
    }
    variables(text);
});

/// Lines of the form `NAME=value`.
fn variables(text: &str) {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let ci = detect(&pairs.collect::<Environment>());
    for url in ci.repository.iter().chain(&ci.run_url) {
        assert!(!url.chars().any(char::is_control), "{url:?}");
        let parsed = url::Url::parse(url).ok();
        assert!(parsed.is_none_or(|url| url.password().is_none()), "{url}");
    }
    assert!(ci.reference.is_none_or(|name| !name.chars().any(char::is_control)));
}
