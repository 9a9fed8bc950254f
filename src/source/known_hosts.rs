//! Which host keys are trusted: files in OpenSSH's `known_hosts` format (sshd(8)), marked and hashed lines included.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// The lines of all files that count.
#[derive(Debug, Default)]
pub(super) struct KnownHosts {
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    revoked: bool,
    hosts: String,
    kind: String,
    key: Vec<u8>,
}

/// What the files say about a host's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the host's.
    Trusted,
    /// No file names the host.
    Unknown,
    /// The host has another key.
    Changed,
    /// The key is marked as revoked.
    Revoked,
}

impl KnownHosts {
    /// Adds a file's lines. What cannot be understood is passed over, as OpenSSH does; so are certificate authorities.
    pub fn add(&mut self, text: &str) {
        self.lines.extend(text.lines().filter_map(parse_line));
    }

    /// Judges the key that a host has shown.
    pub fn check(&self, host: &str, port: u16, key: &[u8]) -> Verdict {
        let names = names(host, port);
        let about = |line: &&Line| names.iter().any(|name| line.is_about(name));
        if self.lines.iter().filter(about).any(|line| line.revoked && line.key == key) {
            return Verdict::Revoked;
        }
        if self.lines.iter().filter(about).any(|line| !line.revoked && line.key == key) {
            return Verdict::Trusted;
        }
        // Only the name with the port says that the key has changed: another port may be another machine.
        let changed = self.lines.iter().any(|line| !line.revoked && line.is_about(&names[0]));
        if changed { Verdict::Changed } else { Verdict::Unknown }
    }

    /// The types of the keys known for a host: those it shall be asked for.
    pub fn key_types(&self, host: &str, port: u16) -> Vec<&str> {
        let names = names(host, port);
        let mut types: Vec<&str> = Vec::new();
        for line in self.lines.iter().filter(|line| !line.revoked && names.iter().any(|name| line.is_about(name))) {
            if !types.contains(&line.kind.as_str()) {
                types.push(&line.kind);
            }
        }
        types
    }
}

/// How a host is written in the files, the most specific way first.
fn names(host: &str, port: u16) -> Vec<String> {
    let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    if port == 22 { vec![host] } else { vec![format!("[{host}]:{port}"), host] }
}

fn parse_line(line: &str) -> Option<Line> {
    let mut words = line.split_whitespace();
    let mut first = words.next().filter(|word| !word.starts_with('#'))?;
    let revoked = first == "@revoked";
    if first.starts_with('@') {
        if !revoked {
            return None;
        }
        first = words.next()?;
    }
    let (kind, key) = (words.next()?, words.next()?);
    Some(Line { revoked, hosts: first.to_owned(), kind: kind.to_owned(), key: STANDARD.decode(key).ok()? })
}

impl Line {
    fn is_about(&self, name: &str) -> bool {
        if let Some(hashed) = self.hosts.strip_prefix("|1|") {
            return is_hash_of(hashed, name).unwrap_or(false);
        }
        let mut matched = false;
        for pattern in self.hosts.to_ascii_lowercase().split(',') {
            match pattern.strip_prefix('!') {
                Some(not) if matches(not.as_bytes(), name.as_bytes()) => return false,
                Some(_) => {}
                None => matched |= matches(pattern.as_bytes(), name.as_bytes()),
            }
        }
        matched
    }
}

/// `*` stands for any text, `?` for one character. A star that was passed takes no more text once another one is reached: so each pair of
/// pattern and text is done in the product of their lengths.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut seen, mut star) = (0, 0, None);
    while seen < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(&token) if token == b'?' || token == text[seen] => {
                at += 1;
                seen += 1;
            }
            _ => {
                let Some((star_at, taken)) = star else { return false };
                star = Some((star_at, taken + 1));
                (at, seen) = (star_at + 1, taken + 1);
            }
        }
    }
    pattern[at..].iter().all(|&token| token == b'*')
}

/// `salt|hash`, the hash being HMAC-SHA1 of the name with the salt as its key.
fn is_hash_of(hashed: &str, name: &str) -> Option<bool> {
    let (salt, hash) = hashed.split_once('|')?;
    let (salt, hash) = (STANDARD.decode(salt).ok()?, STANDARD.decode(hash).ok()?);
    Some(hmac_sha1(&salt, name.as_bytes()) == hash.as_slice())
}

/// RFC 2104. Keys here are never longer than a block.
fn hmac_sha1(key: &[u8], message: &[u8]) -> [u8; 20] {
    let padded = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner = Sha1::new().chain_update(padded(0x36)).chain_update(message).finalize();
    Sha1::new().chain_update(padded(0x5c)).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(text: &str) -> KnownHosts {
        let mut known = KnownHosts::default();
        known.add(text);
        known
    }

    const A: &[u8] = b"key a";
    const B: &[u8] = b"key b";

    fn line(hosts: &str, key: &[u8]) -> String {
        format!("{hosts} ssh-ed25519 {} comment\n", STANDARD.encode(key))
    }

    #[test]
    fn keys_are_judged_per_host_and_port() {
        let known = known(&(line("example.com,10.0.0.1", A) + &line("[example.com]:2222", B) + &line("*.corp,!bad.corp", A)));
        for (host, port, key, verdict) in [
            ("example.com", 22, A, Verdict::Trusted),
            ("Example.COM", 22, A, Verdict::Trusted),
            ("10.0.0.1", 22, A, Verdict::Trusted),
            ("example.com", 22, B, Verdict::Changed),
            ("example.com", 2222, B, Verdict::Trusted),
            ("example.com", 2222, b"other", Verdict::Changed),
            ("example.com", 4444, A, Verdict::Trusted),
            ("example.com", 4444, B, Verdict::Unknown),
            ("example.org", 22, A, Verdict::Unknown),
            ("git.corp", 22, A, Verdict::Trusted),
            ("bad.corp", 22, A, Verdict::Unknown),
        ] {
            assert_eq!(known.check(host, port, key), verdict, "{host}:{port} {key:?}");
        }
    }

    #[test]
    fn hashed_lines_are_understood() {
        // Written by `ssh-keygen -H`: the host is "localhost".
        let hosts = "|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg=";
        let salt = STANDARD.decode("F1E1KeoE/eEWhi10WpGv4OdiO6Y=").unwrap();
        let expected = format!("|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|{}", STANDARD.encode(hmac_sha1(&salt, b"192.168.1.61")));
        assert_eq!(hosts, expected);
        assert_eq!(known(&line(hosts, A)).check("192.168.1.61", 22, A), Verdict::Trusted);
        assert_eq!(known(&line(hosts, A)).check("192.168.1.62", 22, A), Verdict::Unknown);
    }

    #[test]
    fn revoked_keys_and_odd_lines() {
        let revoked = known(&(line("h", A) + &line("@revoked *", A)));
        assert_eq!(revoked.check("h", 22, A), Verdict::Revoked);
        let odd = known(&format!("# h\n\nh\nh ssh-rsa\nh ssh-rsa !!!\n@cert-authority {}", line("h", A)));
        assert_eq!(odd.check("h", 22, A), Verdict::Unknown);
        assert!(odd.key_types("h", 22).is_empty());
        assert_eq!(known(&line("h", A)).key_types("h", 2222), ["ssh-ed25519"]);
    }
}
