//! Ruby's strings: where they end, and what they say.

/// How deep strings may be inside of each other.
const DEEPEST: usize = 16;

/// The length up to and with the closing quote; `from` is behind the opening one.
pub fn skip_quoted(text: &str, from: usize, quote: u8, depth: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = from;
    loop {
        match *bytes.get(at)? {
            b'\\' => at += 2,
            byte if byte == quote => return Some(at + 1),
            b'#' if quote != b'\'' && bytes.get(at + 1) == Some(&b'{') => at = skip_computed(text, at + 2, depth)?,
            _ => at += 1,
        }
    }
}

/// The same for quotes that may be inside of themselves: `%w(a (b) c)`.
pub fn skip_delimited(text: &str, from: usize, open: u8, close: u8, is_computed: bool) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (from, 0_usize);
    loop {
        match *bytes.get(at)? {
            b'\\' => at += 2,
            byte if byte == close && depth == 0 => return Some(at + 1),
            byte if byte == close => {
                depth -= 1;
                at += 1;
            }
            byte if byte == open => {
                depth += 1;
                at += 1;
            }
            b'#' if is_computed && bytes.get(at + 1) == Some(&b'{') => at = skip_computed(text, at + 2, 0)?,
            _ => at += 1,
        }
    }
}

/// The end of `#{…}`; `from` is behind its opening bracket.
fn skip_computed(text: &str, from: usize, depth: usize) -> Option<usize> {
    if depth == DEEPEST {
        return None;
    }
    let bytes = text.as_bytes();
    let (mut at, mut open) = (from, 1_usize);
    loop {
        match *bytes.get(at)? {
            b'{' => open += 1,
            b'}' if open == 1 => return Some(at + 1),
            b'}' => open -= 1,
            quote @ (b'"' | b'\'' | b'`') => at = skip_quoted(text, at + 1, quote, depth + 1)? - 1,
            _ => {}
        }
        at += 1;
    }
}

/// A backslash stands for itself, unless a quote or another backslash follows.
pub fn single_quoted(inside: &str, quotes: &[char]) -> String {
    let mut text = String::with_capacity(inside.len());
    let mut rest = inside.chars().peekable();
    while let Some(c) = rest.next() {
        let escaped = rest.next_if(|next| c == '\\' && (*next == '\\' || quotes.contains(next)));
        text.push(escaped.unwrap_or(c));
    }
    text
}

/// `None` if something in it is computed, or is an escape that no name needs.
pub fn double_quoted(inside: &str) -> Option<String> {
    let mut text = String::with_capacity(inside.len());
    let mut rest = inside.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '#' if matches!(rest.peek(), Some('{' | '@' | '$')) => return None,
            '\\' => match rest.next()? {
                'n' => text.push('\n'),
                't' => text.push('\t'),
                'r' => text.push('\r'),
                's' => text.push(' '),
                escaped if escaped.is_ascii_punctuation() => text.push(escaped),
                _ => return None,
            },
            c => text.push(c),
        }
    }
    Some(text)
}
