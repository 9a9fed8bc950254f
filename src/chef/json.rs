//! JSON as Chef takes it, as a stream of events: no file is ever a tree in memory, however large or deep it is.
//!
//! Chef reads with yajl (`Chef::JSONCompat`, `FFI_Yajl::Parser`): comments are allowed, vertical tabs and form feeds are spaces, strings
//! are checked to be UTF-8, keys may be there twice (the last one counts), and a byte order mark is an error. So it is here.

use std::borrow::Cow;

/// One step on the way from the top to a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The value of a key.
    Key(String),
    /// An element of an array.
    Element,
}

/// A value, or the beginning of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// `{`: what is in it follows.
    Object,
    /// `[`: what is in it follows.
    Array,
    /// A string, without its quotes and escapes.
    Text(Cow<'a, str>),
    /// A number.
    Number,
    /// `true` or `false`.
    Bool,
    /// `null`
    Null,
}

/// Why a text is not JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// In a few words.
    pub what: String,
}

/// How deep values are told of; what is deeper is only checked.
const TOLD: usize = 3;

/// Reads a text and calls `visit` with the way to each value, the value, and its line.
///
/// # Errors
/// The first place that Chef's parser would stop at. What was told up to there is void.
pub fn read<'t>(text: &'t [u8], visit: &mut dyn FnMut(&[Step], Event<'t>, u32)) -> Result<(), Problem> {
    Reader { text, at: 0, line: 1, line_start: 0, open: Vec::new(), path: Vec::new() }.read(visit)
}

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    Value,
    FirstElement,
    FirstKey,
    Key,
    Colon,
    CommaOrEnd,
    Nothing,
}

struct Reader<'t> {
    text: &'t [u8],
    at: usize,
    line: u32,
    line_start: usize,
    /// The brackets that are open.
    open: Vec<u8>,
    /// The way to where we are, as far as it is told of.
    path: Vec<Step>,
}

impl<'t> Reader<'t> {
    fn read(mut self, visit: &mut dyn FnMut(&[Step], Event<'t>, u32)) -> Result<(), Problem> {
        if self.text.starts_with(b"\xef\xbb\xbf") {
            return self.refuse("the file begins with a byte order mark, which Chef does not take");
        }
        let mut expect = Expect::Value;
        while let Some(byte) = self.significant()? {
            expect = match (expect, byte) {
                (Expect::FirstElement, b']') | (Expect::FirstKey, b'}') => self.close(),
                (Expect::Value | Expect::FirstElement, _) => self.value(byte, visit)?,
                (Expect::FirstKey | Expect::Key, b'"') => self.key()?,
                (Expect::FirstKey, _) => return self.refuse("a key in double quotes or '}' is expected"),
                (Expect::Key, _) => return self.refuse("a key in double quotes is expected"),
                (Expect::Colon, b':') => self.step(Expect::Value),
                (Expect::Colon, _) => return self.refuse("':' is expected after a key"),
                (Expect::CommaOrEnd, b',') if self.open.last() == Some(&b'{') => self.step(Expect::Key),
                (Expect::CommaOrEnd, b',') => self.step(Expect::Value),
                (Expect::CommaOrEnd, b'}') if self.open.last() == Some(&b'{') => self.close(),
                (Expect::CommaOrEnd, b']') if self.open.last() == Some(&b'[') => self.close(),
                (Expect::CommaOrEnd, _) if self.open.last() == Some(&b'{') => return self.refuse("',' or '}' is expected"),
                (Expect::CommaOrEnd, _) => return self.refuse("',' or ']' is expected"),
                (Expect::Nothing, _) => return self.refuse("something follows the end of the value"),
            };
        }
        match expect {
            Expect::Nothing => Ok(()),
            Expect::Value if self.open.is_empty() => self.refuse("the file is empty"),
            _ => self.refuse("the file ends in the middle of a value"),
        }
    }

    fn refuse<T>(&self, what: &str) -> Result<T, Problem> {
        let before = String::from_utf8_lossy(&self.text[self.line_start..self.at]);
        let column = u32::try_from(before.chars().count() + 1).unwrap_or(u32::MAX);
        Err(Problem { line: self.line, column, what: what.to_owned() })
    }

    fn step(&mut self, expect: Expect) -> Expect {
        self.at += 1;
        expect
    }

    /// The next byte that is neither space nor comment; `None` at the end.
    fn significant(&mut self) -> Result<Option<u8>, Problem> {
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                b' ' | b'\t' | b'\r' | 0x0b | 0x0c => self.at += 1,
                b'\n' => self.newline(),
                b'/' => self.comment()?,
                byte => return Ok(Some(byte)),
            }
        }
        Ok(None)
    }

    fn newline(&mut self) {
        self.at += 1;
        self.line = self.line.saturating_add(1);
        self.line_start = self.at;
    }

    /// One that does not end goes to the end of the file.
    fn comment(&mut self) -> Result<(), Problem> {
        let is_long = match self.text.get(self.at + 1) {
            Some(b'/') => false,
            Some(b'*') => true,
            _ => return self.refuse("a value is expected"),
        };
        self.at += 2;
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                b'\n' if !is_long => return Ok(()),
                b'\n' => self.newline(),
                b'*' if is_long && self.text.get(self.at + 1) == Some(&b'/') => {
                    self.at += 2;
                    return Ok(());
                }
                _ => self.at += 1,
            }
        }
        Ok(())
    }

    fn value(&mut self, first: u8, visit: &mut dyn FnMut(&[Step], Event<'t>, u32)) -> Result<Expect, Problem> {
        let is_told = self.open.len() <= TOLD;
        let line = self.line;
        let event = match first {
            b'{' => Event::Object,
            b'[' => Event::Array,
            b'"' if is_told => Event::Text(self.text()?),
            b'"' => {
                self.string()?;
                Event::Null
            }
            b'-' | b'0'..=b'9' => self.number()?,
            b't' => self.literal(b"true", Event::Bool)?,
            b'f' => self.literal(b"false", Event::Bool)?,
            b'n' => self.literal(b"null", Event::Null)?,
            _ => return self.refuse("a value is expected"),
        };
        if is_told {
            visit(&self.path, event, line);
        }
        match first {
            b'{' => Ok(self.enter(first, Expect::FirstKey)),
            b'[' => Ok(self.enter(first, Expect::FirstElement)),
            _ => Ok(self.after_value()),
        }
    }

    fn enter(&mut self, bracket: u8, expect: Expect) -> Expect {
        self.open.push(bracket);
        if bracket == b'[' && self.open.len() <= TOLD {
            self.path.push(Step::Element);
        }
        self.step(expect)
    }

    fn close(&mut self) -> Expect {
        self.at += 1;
        let bracket = self.open.pop();
        if bracket == Some(b'[') && self.open.len() < TOLD {
            self.path.pop();
        }
        self.after_value()
    }

    /// The value of a key ends that key's step; the element of an array does not end the array's.
    fn after_value(&mut self) -> Expect {
        match self.open.last() {
            None => return Expect::Nothing,
            Some(b'{') if self.open.len() <= TOLD => drop(self.path.pop()),
            Some(_) => {}
        }
        Expect::CommaOrEnd
    }

    fn key(&mut self) -> Result<Expect, Problem> {
        if self.open.len() <= TOLD {
            let key = self.text()?.into_owned();
            self.path.push(Step::Key(key));
        } else {
            self.string()?;
        }
        Ok(Expect::Colon)
    }

    fn literal(&mut self, word: &[u8], event: Event<'t>) -> Result<Event<'t>, Problem> {
        if !self.text[self.at..].starts_with(word) {
            return self.refuse("a value is expected");
        }
        self.at += word.len();
        Ok(event)
    }

    fn number(&mut self) -> Result<Event<'t>, Problem> {
        self.at += usize::from(self.text[self.at] == b'-');
        match self.text.get(self.at) {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.text.get(self.at) {
            self.at += 1;
            self.at += usize::from(matches!(self.text.get(self.at), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(Event::Number)
    }

    fn digits(&mut self) -> Result<(), Problem> {
        let count = self.text[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        if count == 0 { self.refuse("a digit is expected") } else { Ok(()) }
    }

    /// Goes past a string; returns what is between its quotes, and whether there are escapes in it.
    fn string(&mut self) -> Result<(&'t [u8], bool), Problem> {
        self.at += 1;
        let start = self.at;
        let mut has_escapes = false;
        loop {
            let Some(&byte) = self.text.get(self.at) else { return self.refuse("the file ends in the middle of a string") };
            match byte {
                b'"' => {
                    self.at += 1;
                    return Ok((&self.text[start..self.at - 1], has_escapes));
                }
                b'\\' => {
                    has_escapes = true;
                    self.escape()?;
                }
                0x00..=0x1f => return self.refuse("a line end or another control character is in a string"),
                0x20..=0x7f => self.at += 1,
                _ => self.wide(byte)?,
            }
        }
    }

    fn escape(&mut self) -> Result<(), Problem> {
        match self.text.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let digits = self.text[self.at + 2..].iter().take(4).take_while(|byte| byte.is_ascii_hexdigit()).count();
                if digits < 4 {
                    return self.refuse("\\u has less than four hexadecimal digits");
                }
                self.at += 6;
            }
            _ => return self.refuse("there is no such escape"),
        }
        Ok(())
    }

    /// A character of several bytes, checked as loosely as yajl does it.
    fn wide(&mut self, first: u8) -> Result<(), Problem> {
        let more = match first {
            0xc0..=0xdf => 1,
            0xe0..=0xef => 2,
            0xf0..=0xf7 => 3,
            _ => return self.refuse("a string is not UTF-8"),
        };
        let follows = self.text[self.at + 1..].iter().take(more);
        if follows.filter(|byte| *byte & 0xc0 == 0x80).count() < more {
            return self.refuse("a string is not UTF-8");
        }
        self.at += 1 + more;
        Ok(())
    }

    fn text(&mut self) -> Result<Cow<'t, str>, Problem> {
        let (raw, has_escapes) = self.string()?;
        Ok(if has_escapes { unescape(raw).into() } else { String::from_utf8_lossy(raw) })
    }
}

/// The text of a string that was found to be good.
fn unescape(raw: &[u8]) -> String {
    let mut text = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            text.push(byte);
            continue;
        }
        let (escape, after) = rest.split_first().unwrap_or((&b'\\', &[]));
        rest = after;
        match escape {
            b'b' => text.push(8),
            b'f' => text.push(12),
            b'n' => text.push(b'\n'),
            b'r' => text.push(b'\r'),
            b't' => text.push(b'\t'),
            b'u' => {
                let (c, after) = unicode(rest);
                rest = after;
                text.extend(c.encode_utf8(&mut [0; 4]).bytes());
            }
            other => text.push(*other),
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The character of four hexadecimal digits, or of two times four with `\u` between; `?` for half of one, as yajl does it.
fn unicode(digits: &[u8]) -> (char, &[u8]) {
    let unit = |digits: &[u8]| {
        let digits = std::str::from_utf8(digits.get(..4)?).ok()?;
        u32::from_str_radix(digits, 16).ok()
    };
    let first = unit(digits).unwrap_or(0xdc00);
    let rest = digits.get(4..).unwrap_or_default();
    if let Some(c) = char::from_u32(first) {
        return (c, rest);
    }
    let second = rest.strip_prefix(b"\\u").and_then(|rest| Some((unit(rest)?, rest.get(4..)?)));
    match second {
        Some((second @ 0xdc00..=0xdfff, rest)) if first < 0xdc00 => {
            let c = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
            (char::from_u32(c).unwrap_or('?'), rest)
        }
        _ => ('?', rest),
    }
}
