//! Secrets that a test plants, and the search for them in all that leaves a run.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::unistd::{Whence, lseek};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// A secret by the place that it was planted in; each place has another. With characters that encodings change.
pub fn planted(place: &str) -> String {
    format!("Zq9/{place}+W7~tok=en")
}

/// The secret as it is written in a URL.
pub fn in_url(place: &str) -> String {
    utf8_percent_encode(&planted(place), NON_ALPHANUMERIC).to_string()
}

/// What to look for: the text of every secret as it is, percent-encoded in whole or in part, and in Base64 at each of the three
/// offsets that it may have in what was encoded.
pub struct Search {
    needles: Vec<(String, Vec<u8>)>,
    bytes: u64,
    places: u64,
}

impl Search {
    pub fn of(places: &[&str]) -> Search {
        let mut search = Search { needles: Vec::new(), bytes: 0, places: 0 };
        for place in places {
            search.add(place, planted(place).as_bytes());
        }
        search
    }

    /// Any other secret.
    pub fn add(&mut self, name: &str, secret: &[u8]) {
        assert!(secret.len() > 15, "{name} would be found by chance");
        let mut forms = vec![secret.to_vec()];
        if let Ok(text) = std::str::from_utf8(secret) {
            let encoded = utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
            forms.push(encoded.to_lowercase().into_bytes());
            forms.push(text.replace('/', "%2F").into_bytes());
            forms.push(text.replace('/', "\\/").into_bytes());
            forms.push(encoded.into_bytes());
        }
        for offset in 0..3 {
            let encoded = STANDARD.encode([&vec![0; offset], secret].concat());
            // Without what the bytes before and after have a part in.
            forms.push(encoded.as_bytes()[4..encoded.len() - 4].to_vec());
        }
        self.needles.extend(forms.into_iter().map(|form| (name.to_owned(), form)));
    }

    /// That no secret is in these bytes.
    #[track_caller]
    pub fn absent(&mut self, from: &str, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.places += 1;
        for (name, needle) in &self.needles {
            if let Some(at) = find(bytes, needle) {
                let around = String::from_utf8_lossy(&bytes[at.saturating_sub(80)..(at + needle.len() + 20).min(bytes.len())]);
                panic!("the secret of {name} is in {from}: …{around}…");
            }
        }
    }

    /// The same for a file, or all files of a directory; `but` are those in which secrets are kept. Holes are passed over.
    #[track_caller]
    pub fn absent_below(&mut self, path: &Path, but: &[PathBuf]) {
        if but.iter().any(|file| file == path) {
            return;
        }
        self.absent("a file's name", path.as_os_str().as_encoded_bytes());
        let metadata = fs::symlink_metadata(path).unwrap();
        if metadata.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                self.absent_below(&entry.unwrap().path(), but);
            }
        } else if metadata.is_file() {
            let (file, mut position) = (File::open(path).unwrap(), 0);
            while let Ok(data) = lseek(&file, position, Whence::SeekData) {
                position = lseek(&file, data, Whence::SeekHole).unwrap();
                let mut bytes = vec![0; usize::try_from(position - data).unwrap()];
                file.read_exact_at(&mut bytes, data.cast_unsigned()).unwrap();
                self.absent(&path.display().to_string(), &bytes);
            }
        }
    }

    /// Whether the search finds anything at all: this secret is there.
    pub fn would_find(place: &str, below: &Path) -> bool {
        let search = || Search::of(&[place]).absent_below(below, &[]);
        std::panic::catch_unwind(search).is_err()
    }

    /// In how many places, and through how many bytes.
    pub fn extent(&self) -> (u64, u64) {
        (self.places, self.bytes)
    }
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let first = needle[0];
    let mut from = 0;
    while let Some(at) = bytes.get(from..)?.iter().position(|&byte| byte == first) {
        if bytes[from + at..].starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}
