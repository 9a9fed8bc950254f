//! Shell patterns as git matches them in attribute files (`gitignore(5)`): `*` and `?` stop at a slash, `**` does not.

/// Whether `text` as a whole matches `pattern`.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    // git compares what has no wildcard first, and takes what follows for a pattern of its own: `a**/b` matches `ab`.
    let literal = pattern.iter().take_while(|byte| !b"*?[\\".contains(byte)).count();
    let (literal, rest) = pattern.split_at(literal);
    text.strip_prefix(literal).is_some_and(|text| attempt(rest, text, true) == Outcome::Match)
}

/// What an attempt to match the rest says to the `*` before it.
#[derive(PartialEq)]
enum Outcome {
    Match,
    /// Try again with more characters under the star.
    Differs,
    /// More characters cannot help a `*`, but may help a `**`.
    NeedsSlash,
    /// The text ended: nothing before it can help.
    TooShort,
}

/// `at_start`: the pattern begins here, or follows a slash.
fn attempt(mut pattern: &[u8], mut text: &[u8], mut at_start: bool) -> Outcome {
    while let Some((&token, rest)) = pattern.split_first() {
        if token == b'*' {
            return match star(rest, text, at_start) {
                Star::Done(outcome) => outcome,
                Star::NextDirectory(after) => attempt(rest, after, false),
            };
        }
        let Some((&byte, after)) = text.split_first() else { return Outcome::TooShort };
        let matched = match token {
            b'?' => (byte != b'/').then_some(rest),
            b'[' => match class(rest, byte) {
                Some((is_in, rest)) => (is_in && byte != b'/').then_some(rest),
                None => return Outcome::TooShort,
            },
            b'\\' => rest.split_first().and_then(|(&literal, rest)| (literal == byte).then_some(rest)),
            literal => (literal == byte).then_some(rest),
        };
        let Some(rest) = matched else { return Outcome::Differs };
        at_start = token == b'/';
        (pattern, text) = (rest, after);
    }
    if text.is_empty() { Outcome::Match } else { Outcome::Differs }
}

enum Star<'a> {
    Done(Outcome),
    /// `*/`: go on at the text's next slash.
    NextDirectory(&'a [u8]),
}

/// `rest` is what follows the first star.
fn star<'a>(rest: &[u8], text: &'a [u8], at_start: bool) -> Star<'a> {
    let after = &rest[rest.iter().take_while(|&&byte| byte == b'*').count()..];
    let whole_component = matches!(after, [] | [b'/', ..] | [b'\\', b'/', ..]);
    let crosses_slashes = after.len() < rest.len() && at_start && whole_component;
    if crosses_slashes && after.first() == Some(&b'/') {
        // What ran out of text does so with less text too: without this, a row of `**/` would be tried in every combination.
        match attempt(&after[1..], text, true) {
            outcome @ (Outcome::Match | Outcome::TooShort) => return Star::Done(outcome),
            Outcome::Differs | Outcome::NeedsSlash => {}
        }
    }
    if after.is_empty() {
        let stopped = !crosses_slashes && text.contains(&b'/');
        return Star::Done(if stopped { Outcome::NeedsSlash } else { Outcome::Match });
    }
    if !crosses_slashes && after[0] == b'/' && after.len() == rest.len() {
        return match text.iter().position(|&byte| byte == b'/') {
            Some(slash) => Star::NextDirectory(&text[slash..]),
            None => Star::Done(Outcome::TooShort),
        };
    }
    for skipped in 0..text.len() {
        match attempt(after, &text[skipped..], false) {
            Outcome::Differs => {}
            Outcome::NeedsSlash if crosses_slashes => {}
            outcome => return Star::Done(outcome),
        }
        if !crosses_slashes && text[skipped] == b'/' {
            return Star::Done(Outcome::NeedsSlash);
        }
    }
    Star::Done(Outcome::TooShort)
}

/// `[…]` against a byte, and what follows it; `rest` is what follows the bracket. `None`: it has no end, or names a class
/// that does not exist; then the pattern matches nothing.
fn class(rest: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let negated = matches!(rest.first(), Some(b'!' | b'^'));
    let mut rest = if negated { &rest[1..] } else { rest };
    let mut is_in = false;
    let mut low = None;
    loop {
        let (&token, after) = rest.split_first()?;
        (low, rest) = match (token, after) {
            (b'\\', [literal, after @ ..]) => {
                is_in |= *literal == byte;
                (Some(*literal), after)
            }
            (b'\\', []) => return None,
            (b'-', [next, ..]) if low.is_some() && *next != b']' => {
                let (&high, after) = after.strip_prefix(b"\\").unwrap_or(after).split_first()?;
                is_in |= low <= Some(byte) && byte <= high;
                (None, after)
            }
            (b'[', [b':', after @ ..]) => {
                let end = after.iter().position(|&byte| byte == b']')?;
                match after[..end].strip_suffix(b":") {
                    Some(name) => {
                        is_in |= named_class(name, byte)?;
                        (None, &after[end + 1..])
                    }
                    None => {
                        is_in |= byte == b'[';
                        (Some(b'['), &rest[1..])
                    }
                }
            }
            (literal, after) => {
                is_in |= literal == byte;
                (Some(literal), after)
            }
        };
        if let Some(after) = rest.strip_prefix(b"]") {
            return Some((is_in != negated, after));
        }
    }
}

fn named_class(name: &[u8], byte: u8) -> Option<bool> {
    Some(match name {
        b"alnum" => byte.is_ascii_alphanumeric(),
        b"alpha" => byte.is_ascii_alphabetic(),
        b"blank" => byte == b' ' || byte == b'\t',
        b"cntrl" => byte.is_ascii_control(),
        b"digit" => byte.is_ascii_digit(),
        b"graph" => byte.is_ascii_graphic(),
        b"lower" => byte.is_ascii_lowercase(),
        b"print" => byte.is_ascii_graphic() || byte == b' ',
        b"punct" => byte.is_ascii_punctuation(),
        b"space" => byte.is_ascii_whitespace() || byte == 0x0b,
        b"upper" => byte.is_ascii_uppercase(),
        b"xdigit" => byte.is_ascii_hexdigit(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_the_manual_says() {
        for (pattern, text, expected) in [
            ("*.rb", "a.rb", true),
            ("*.rb", "dir/a.rb", false),
            ("a/*.rb", "a/b.rb", true),
            ("a/*/c", "a/b/c", true),
            ("a/*/c", "a/b/b/c", false),
            ("**/c", "c", true),
            ("**/c", "a/b/c", true),
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("a/**/c", "a/c", true),
            ("a/**/c", "a/b/b/c", true),
            ("a**c", "a/c", false),
            ("a**c", "abc", true),
            ("a**/c", "ac", true),
            ("?**/c", "ac", false),
            ("?", "/", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[]]", "]", true),
            ("[[:digit:]]", "7", true),
            ("[[:nonsense:]]", "7", false),
            ("[a", "a", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("", "", true),
            ("a*b*c", "a1b2c3c", true),
            ("*a*a*a*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} on {text}");
        }
    }
}
