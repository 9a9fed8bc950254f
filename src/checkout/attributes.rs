//! `.gitattributes`, as far as it decides which bytes a checkout writes (`gitattributes(5)`).
//!
//! They are read from the tree that is checked out; attributes of the user or of the machine do not count, so that equal
//! commits give equal bytes everywhere.

use std::collections::HashMap;

use git2::Odb;

use super::index::Entry;
use super::wildmatch;
use crate::error::{Error, Kind, OrFail, Result};

const FILE_NAME: &[u8] = b".gitattributes";
/// git passes over longer lines, and over larger files.
const LONGEST_LINE: usize = 2048;
const LARGEST_FILE: usize = 100 << 20;
/// More bytes and assignments than all attribute files of a commit have. A few objects can be a file in each of many directories.
const MOST_BYTES: usize = LARGEST_FILE;
const MOST_ASSIGNMENTS: usize = 100_000;

/// How a file's line ends are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crlf {
    /// As CRLF.
    Always,
    /// As CRLF, if it is a text file without a single CR.
    IfText,
}

/// What has to be done to a blob to get the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    pub crlf: Option<Crlf>,
    /// `$Id$` becomes `$Id: <blob> $`.
    pub ident: bool,
    /// The file's encoding; the blob's is UTF-8.
    pub encoding: Option<String>,
}

impl Filter {
    /// Whether file and blob are the same.
    pub fn is_identity(&self) -> bool {
        *self == Filter::default()
    }
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Set,
    Unset,
    /// Written `!name`: as if nothing were said, whatever other lines say.
    Unspecified,
    Value(String),
}

type Assignments = Vec<(String, State)>;

/// One line: what it matches, and what it says of that.
#[derive(Debug, PartialEq, Eq)]
struct Rule {
    pattern: Vec<u8>,
    /// A pattern without a slash is matched with the last component alone.
    is_name: bool,
    assignments: Assignments,
}

/// All the attribute files of a tree.
#[derive(Debug, Default)]
pub struct Attributes {
    /// By directory (`""`, `a/`, `a/b/`).
    rules: HashMap<Vec<u8>, Vec<Rule>>,
    macros: HashMap<String, Assignments>,
    /// Whether any line says something that matters here; most trees have none.
    matters: bool,
    /// What was read, against those who want it to have no end.
    bytes: usize,
    assignments: usize,
}

impl Attributes {
    /// Reads the attribute files among `entries`.
    pub fn read(odb: &Odb<'_>, entries: &[Entry]) -> Result<Attributes> {
        let mut attributes = Attributes::default();
        for entry in entries.iter().filter(|entry| is_attribute_file(entry)) {
            let directory = &entry.path[..entry.path.len() - FILE_NAME.len()];
            let shown = || format!("cannot read {}", String::from_utf8_lossy(&entry.path));
            let (size, _) = odb.read_header(entry.id).or_fail(Kind::Git, shown)?;
            if size <= LARGEST_FILE {
                attributes.add(directory, odb.read(entry.id).or_fail(Kind::Git, shown)?.data())?;
            }
        }
        Ok(attributes)
    }

    /// Whether no file of the tree needs a filter.
    pub fn are_irrelevant(&self) -> bool {
        !self.matters
    }

    /// The filter of a regular file.
    pub fn filter(&self, path: &[u8]) -> Filter {
        if !self.matters {
            return Filter::default();
        }
        let found = self.look_up(path);
        let get = |name| found.get(name).copied();
        let value = |name| match get(name) {
            Some(State::Value(value)) => Some(value.as_str()),
            _ => None,
        };
        Filter {
            crlf: crlf(get("text"), get("crlf"), value("eol")),
            ident: get("ident") == Some(&State::Set),
            encoding: match get("working-tree-encoding") {
                Some(State::Value(name)) => (!name.is_empty() && !is_utf8(name)).then(|| name.clone()),
                // git refuses these; the conversion does too, as it knows no encoding of that name.
                Some(State::Set) => Some("true".to_owned()),
                Some(State::Unset) => Some("false".to_owned()),
                Some(State::Unspecified) | None => None,
            },
        }
    }

    /// Whether the path belongs to git LFS.
    pub fn is_lfs(&self, path: &[u8]) -> bool {
        self.matters && self.look_up(path).get("filter") == Some(&&State::Value("lfs".to_owned()))
    }

    pub(super) fn add(&mut self, directory: &[u8], content: &[u8]) -> Result<()> {
        self.bytes += content.len();
        let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
        let content = content.split(|&byte| byte == 0).next().unwrap_or_default();
        let mut rules = Vec::new();
        for line in content.split(|&byte| byte == b'\n') {
            let parsed = parse_line(line);
            self.assignments += parsed.as_ref().map_or(0, |(_, assignments)| 1 + assignments.len());
            if self.bytes > MOST_BYTES || self.assignments > MOST_ASSIGNMENTS {
                let message = "the commit cannot be checked out: its .gitattributes say more than those of any repository";
                return Err(Error::new(Kind::Git, message).hint(format!(
                    "all together may have {MOST_ASSIGNMENTS} lines and attributes, and {} MiB",
                    MOST_BYTES >> 20
                )));
            }
            match parsed {
                Some((Subject::Macro(name), assignments)) if directory.is_empty() => {
                    self.matters |= assignments.iter().any(matters);
                    self.macros.insert(name, assignments);
                }
                Some((Subject::Pattern { pattern, is_name }, assignments)) => {
                    self.matters |= assignments.iter().any(matters);
                    rules.push(Rule { pattern, is_name, assignments });
                }
                _ => {}
            }
        }
        self.rules.insert(directory.to_vec(), rules);
        Ok(())
    }

    /// All that is said of a path: nearer files first, and in a file later lines first; what is said first counts.
    fn look_up(&self, path: &[u8]) -> HashMap<&str, &State> {
        let mut found = HashMap::new();
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        let mut directory = &path[..path.len() - name.len()];
        loop {
            let relative = &path[directory.len()..];
            for rule in self.rules.get(directory).into_iter().flatten().rev() {
                if wildmatch::matches(&rule.pattern, if rule.is_name { name } else { relative }) {
                    self.assign(&rule.assignments, &mut found);
                }
            }
            let Some(parent) = directory.strip_suffix(b"/") else { return found };
            directory = &parent[..parent.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1)];
        }
    }

    /// Not recursive: how many macros stand for each other is in the hands of whoever pushed the commit.
    fn assign<'a>(&'a self, assignments: &'a Assignments, found: &mut HashMap<&'a str, &'a State>) {
        let mut open = vec![assignments.iter().rev()];
        while let Some(assignments) = open.last_mut() {
            let Some((name, state)) = assignments.next() else {
                open.pop();
                continue;
            };
            if found.contains_key(name.as_str()) {
                continue;
            }
            found.insert(name, state);
            if *state != State::Set {
                continue;
            }
            match self.macros.get(name) {
                Some(assignments) => open.push(assignments.iter().rev()),
                None if name == "binary" => ["text", "merge", "diff"].into_iter().for_each(|implied| {
                    found.entry(implied).or_insert(&State::Unset);
                }),
                None => {}
            }
        }
    }
}

/// Whether an entry is a file that attributes are read from.
pub fn is_attribute_file(entry: &Entry) -> bool {
    entry.mode.is_file() && entry.path.strip_suffix(FILE_NAME).is_some_and(|directory| matches!(directory, [] | [.., b'/']))
}

/// Whether an assignment can make a file differ from its blob, or a blob an LFS pointer.
fn matters((name, state): &(String, State)) -> bool {
    match (name.as_str(), state) {
        ("eol", State::Value(value)) => value == "crlf",
        ("filter", State::Value(value)) => value == "lfs",
        ("ident", State::Set) => true,
        ("working-tree-encoding", state) => *state != State::Unspecified,
        _ => false,
    }
}

fn crlf(text: Option<&State>, old_name: Option<&State>, eol: Option<&str>) -> Option<Crlf> {
    let known = |state: &&State| match state {
        State::Set | State::Unset => true,
        State::Value(value) => value == "auto" || value == "input",
        State::Unspecified => false,
    };
    let text = text.filter(known).or(old_name.filter(known));
    match (text, eol) {
        (Some(State::Unset), _) => None,
        (Some(State::Value(value)), Some("crlf")) if value == "auto" => Some(Crlf::IfText),
        (_, Some("crlf")) => Some(Crlf::Always),
        _ => None,
    }
}

fn is_utf8(encoding: &str) -> bool {
    let encoding = encoding.to_ascii_lowercase();
    encoding == "utf-8" || encoding == "utf8"
}

enum Subject {
    Macro(String),
    Pattern { pattern: Vec<u8>, is_name: bool },
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

/// `None`: a comment, or a line that git passes over.
fn parse_line(line: &[u8]) -> Option<(Subject, Assignments)> {
    if line.len() >= LONGEST_LINE {
        return None;
    }
    let line = skip_blanks(line);
    if line.first().is_none_or(|&first| first == b'#') {
        return None;
    }
    let (subject, rest) = unquote(line).unwrap_or_else(|| {
        let (word, rest) = split_word(line);
        (word.to_vec(), rest)
    });
    if let Some(rest_of_word) = subject.strip_prefix(b"[attr]").filter(|name| !name.is_empty()) {
        let name = attribute_name(rest_of_word)?;
        return Some((Subject::Macro(name), parse_assignments(rest)?));
    }
    let assignments = parse_assignments(rest)?;
    // What matches directories alone matches no file, and attributes cannot be negative.
    if subject.starts_with(b"!") || subject.ends_with(b"/") {
        return None;
    }
    let is_name = !subject.contains(&b'/');
    let pattern = subject.strip_prefix(b"/").unwrap_or(&subject).to_vec();
    Some((Subject::Pattern { pattern, is_name }, assignments))
}

fn parse_assignments(mut rest: &[u8]) -> Option<Assignments> {
    let mut assignments = Vec::new();
    loop {
        rest = skip_blanks(rest);
        if rest.is_empty() {
            return Some(assignments);
        }
        let (word, after) = split_word(rest);
        rest = after;
        let (name, value) = match word.iter().position(|&byte| byte == b'=') {
            Some(equals) => (&word[..equals], Some(&word[equals + 1..])),
            None => (word, None),
        };
        let (name, state) = match (name, value) {
            ([b'-', name @ ..], _) => (name, State::Unset),
            ([b'!', name @ ..], _) => (name, State::Unspecified),
            (name, None) => (name, State::Set),
            (name, Some(value)) => (name, State::Value(String::from_utf8_lossy(value).into_owned())),
        };
        assignments.push((attribute_name(name)?, state));
    }
}

fn attribute_name(name: &[u8]) -> Option<String> {
    let is_valid = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let valid = !name.is_empty() && name[0] != b'-' && name.iter().all(is_valid) && !name.starts_with(b"builtin_");
    valid.then(|| String::from_utf8_lossy(name).into_owned())
}

fn skip_blanks(line: &[u8]) -> &[u8] {
    &line[line.iter().take_while(|&&byte| is_blank(byte)).count()..]
}

fn split_word(line: &[u8]) -> (&[u8], &[u8]) {
    line.split_at(line.iter().take_while(|&&byte| !is_blank(byte)).count())
}

/// A pattern in double quotes, as C writes strings, and what follows it.
fn unquote(line: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut rest = line.strip_prefix(b"\"")?;
    let mut pattern = Vec::new();
    loop {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        if byte == b'"' {
            return Some((pattern, rest));
        }
        if byte != b'\\' {
            pattern.push(byte);
            continue;
        }
        let (&escape, after) = rest.split_first()?;
        rest = after;
        pattern.push(match escape {
            b'a' => 0x07,
            b'b' => 0x08,
            b't' => b'\t',
            b'n' => b'\n',
            b'v' => 0x0b,
            b'f' => 0x0c,
            b'r' => b'\r',
            b'\\' | b'"' => escape,
            b'0'..=b'3' => {
                let (digits, after) = rest.split_at_checked(2)?;
                rest = after;
                let octal = |digit: u8| (b'0'..=b'7').contains(&digit).then(|| digit - b'0');
                (octal(escape)? << 6) | (octal(digits[0])? << 3) | octal(digits[1])?
            }
            _ => return None,
        });
    }
}

#[cfg(test)]
mod tests;
