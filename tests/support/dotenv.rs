//! How others read the file of `--output-env`.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::collections::BTreeMap;

/// What a self-managed GitLab takes by default; GitLab.com takes more.
pub const GITLAB_VARIABLES: usize = 20;

/// What GitLab makes of a dotenv report, or why it refuses it: the rules of `Ci::ParseDotenvArtifactService` and of the model
/// that its variables are stored in (gitlab-org/gitlab).
pub fn gitlab(text: &[u8]) -> Result<BTreeMap<String, String>, String> {
    if text.len() >= 5 * 1024 {
        return Err("Dotenv Artifact Too Big".into());
    }
    let text = String::from_utf8_lossy(text);
    let mut variables = BTreeMap::new();
    for line in text.trim_start_matches('\u{feff}').split_inclusive('\n') {
        let (key, value) = line.split_once('=').ok_or("Invalid Format")?;
        let key = key.trim();
        if key.is_empty() || key.len() > 255 || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(format!("Key {key:?} can contain only letters, digits and '_'"));
        }
        variables.insert(key.to_owned(), value.trim().to_owned());
    }
    if variables.len() > GITLAB_VARIABLES {
        return Err("Dotenv files cannot have more variables".into());
    }
    Ok(variables)
}

/// The same for a file that no reader could understand otherwise: GitLab keeps quotes and expands `$`, other readers take quotes,
/// spaces, comments and backslashes for their own.
#[track_caller]
pub fn strict(text: &[u8]) -> BTreeMap<String, String> {
    let variables = gitlab(text).unwrap_or_else(|refusal| panic!("{refusal}: {}", String::from_utf8_lossy(text)));
    let assignment = |(name, value): (&String, &String)| format!("{name}={value}\n");
    let mut lines: Vec<String> = variables.iter().map(assignment).collect();
    let mut written: Vec<&str> = std::str::from_utf8(text).unwrap().split_inclusive('\n').collect();
    lines.sort_unstable();
    written.sort_unstable();
    assert_eq!(written, lines, "each variable is written once, and as it is read");
    for (name, value) in &variables {
        let inert = value.bytes().all(|b| b.is_ascii_alphanumeric() || b"_./:@+=,-%".contains(&b));
        assert!(inert, "{name}={value}");
    }
    variables
}

/// A value with its `%XX` undone.
pub fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8().expect("values are UTF-8").into_owned()
}
