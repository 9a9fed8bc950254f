//! Ways for the fuzz targets (`fuzz/`) to what is private here; compiled with `--cfg fuzzing` alone.

use std::path::Path;

use super::known_hosts::{KnownHosts, Verdict};
use super::pktline::{Packet, Packets};
use super::refs::{Refs, skip_service_line};
use super::sideband::Lines;
use super::{Location, Wanted, gitmodules, pack_index, submodules, trees};

/// What a git host advertises, and what it says beside a pack.
pub fn git_answer(answer: &[u8], wanted: &str) {
    let mut packets = Packets::new(answer);
    if skip_service_line(&mut packets).is_err() {
        packets = Packets::new(answer);
    }
    if let Ok(refs) = Refs::read(&mut packets) {
        for name in refs.tips.keys().chain(&refs.head_target) {
            assert!(name.starts_with("refs/") && !name.chars().any(char::is_control) && !name.contains(".."), "{name:?}");
        }
        if let Ok(resolved) = refs.resolve(&Wanted { reference: Some(wanted.to_owned()), commit: None }) {
            let of_server = |name: &String| refs.tips.contains_key(name) || refs.head_target.as_ref() == Some(name);
            assert!(resolved.reference.iter().all(of_server));
        }
    }
    let mut lines = Lines::new(|line: &str| {
        assert!(!line.chars().any(char::is_control) && line.len() <= 3 * 1000 + 3, "{line:?}");
    });
    while let Ok(packet) = packets.next() {
        if let Packet::Data([2, text @ ..]) = packet {
            lines.push(text);
        }
    }
}

/// `.gitmodules` of a repository at `parent`.
pub fn submodules(text: &str, parent: &Location) {
    let Some(sections) = gitmodules::parse(text) else { return };
    for (name, section) in &sections {
        for path in section.get("path").into_iter().chain([name]) {
            if submodules::check_path("path", path).is_ok() {
                assert!(Path::new(path).components().all(|part| matches!(part, std::path::Component::Normal(_))), "{path:?}");
                assert!(!path.to_ascii_lowercase().split('/').any(|part| part == ".git"), "{path:?}");
            }
        }
        let Some(Ok(location)) = section.get("url").map(|url| submodules::locate(parent, url)) else { continue };
        match (location, parent) {
            (Location::Local(path), Location::Local(_)) => assert!(path.is_absolute()),
            (Location::Local(path), Location::Remote(_)) => panic!("a host names {}", path.display()),
            (Location::Remote(url), _) => {
                assert!(url.scheme() == "ssh" || url.username().is_empty(), "{url}");
                assert_eq!(url.password(), None);
            }
        }
    }
}

/// A file of known hosts, and what somebody shows.
pub fn known_hosts(text: &str, host: &str, port: u16, key: &[u8]) {
    let mut hosts = KnownHosts::default();
    hosts.add(text);
    let verdict = hosts.check(host, port, key);
    if verdict == Verdict::Trusted {
        use base64::Engine;
        let shown = base64::engine::general_purpose::STANDARD.encode(key);
        assert!(text.contains(shown.trim_end_matches('=')), "a key that is not in the file is trusted");
    }
    hosts.add(&text.lines().map(|line| format!("@revoked {line}\n")).collect::<String>());
    assert_ne!(hosts.check(host, port, key), Verdict::Trusted, "a key that is revoked is trusted");
    hosts.key_types(host, port);
}

/// The index of a pack, and a tree object.
pub fn objects(bytes: &[u8]) {
    if let Some(items) = pack_index::parse(bytes, bytes.len() as u64) {
        assert!(items.len() * 28 <= bytes.len());
        for (id, _) in items.iter().take(100) {
            pack_index::find(bytes, *id);
        }
    }
    let mut entries = trees::entries(bytes);
    let read: usize = entries.by_ref().map_while(Result::ok).map(|entry| entry.name.len() + 22).sum();
    assert!(read <= bytes.len());
    assert!(entries.next().is_none(), "there is nothing after what is malformed");
}
