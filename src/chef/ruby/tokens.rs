//! Ruby's words, as far as files that mostly say `name "web"` need them. No Ruby is run, and what is not understood makes the file unread.

use super::quotes::{double_quoted, single_quoted, skip_delimited, skip_quoted};

/// A word and the line (from 1) that it begins on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token<'t> {
    /// What it is.
    pub kind: Kind<'t>,
    /// Where it begins.
    pub line: u32,
}

/// The kinds of words.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants say what their fields are")]
pub enum Kind<'t> {
    /// A name or a keyword; `called`: it follows a dot, so that it is no keyword.
    Word {
        text: &'t str,
        called: bool,
    },
    /// A string that says exactly this.
    Text(String),
    /// `%w(…)`: each with its line.
    Words(Vec<(String, u32)>),
    /// `key:`
    Label(String),
    /// Some other value: a number, a symbol, a string with something computed in it.
    Opaque,
    Comma,
    /// `=>`
    Arrow,
    /// `*` before a value.
    Splat,
    /// `(`, `[` or `{`
    Open(u8),
    Close(u8),
    Operator(char),
    /// The end of a statement, never inside of brackets.
    End,
}

/// After these a value follows, so that `/` begins a pattern and `if` is no modifier.
const BEFORE_VALUES: [&str; 21] = [
    "if", "unless", "while", "until", "case", "when", "in", "for", "and", "or", "not", "return", "then", "else", "elsif", "do",
    "begin", "ensure", "rescue", "class", "module",
];

/// The tokens of a text; `None` if it is not understood to its end.
pub fn tokens(text: &str) -> Option<Vec<Token<'_>>> {
    let mut lexer = Lexer { text, at: 0, line: 1, tokens: Vec::new(), open: Vec::new(), heredocs: Vec::new() };
    while lexer.at < text.len() {
        if lexer.is_at_line_start() && lexer.rest().lines().next() == Some("__END__") {
            break;
        }
        lexer.token()?;
    }
    lexer.end();
    (lexer.open.is_empty() && lexer.heredocs.is_empty()).then_some(lexer.tokens)
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
    line: u32,
    tokens: Vec<Token<'t>>,
    open: Vec<u8>,
    /// Those whose text begins on the next line: their end, and whether it may be indented.
    heredocs: Vec<(&'t str, bool)>,
}

impl<'t> Lexer<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn byte(&self, ahead: usize) -> u8 {
        self.text.as_bytes().get(self.at + ahead).copied().unwrap_or(0)
    }

    fn is_at_line_start(&self) -> bool {
        self.at == 0 || self.text.as_bytes()[self.at - 1] == b'\n'
    }

    fn push(&mut self, kind: Kind<'t>, length: usize) {
        let token = Token { kind, line: self.line };
        self.tokens.push(token);
        self.advance(length);
    }

    fn advance(&mut self, length: usize) {
        let passed = &self.text.as_bytes()[self.at..self.at + length];
        self.line += passed.iter().filter(|byte| **byte == b'\n').count() as u32;
        self.at += length;
    }

    /// Whether the last token is the end of a value.
    fn follows_value(&self) -> bool {
        match self.tokens.last().map(|token| &token.kind) {
            Some(Kind::Word { text, called }) => *called || !BEFORE_VALUES.contains(text),
            Some(Kind::Text(_) | Kind::Words(_) | Kind::Opaque | Kind::Close(_)) => true,
            _ => false,
        }
    }

    /// Whether what begins here can be the beginning of a value: nothing before it is one, or it stands as an argument does
    /// (`puts /x/`, `run_list %w(a)`): with a space before it and none behind its first `length` bytes.
    fn begins_value(&self, length: usize) -> bool {
        let is_argument = || {
            let after_word = matches!(self.tokens.last().map(|token| &token.kind), Some(Kind::Word { .. }));
            let before = self.at.checked_sub(1).map_or(b' ', |before| self.text.as_bytes()[before]);
            after_word && matches!(before, b' ' | b'\t') && !matches!(self.byte(length), b' ' | b'\t' | b'\n' | b'\r' | b'=' | 0)
        };
        !self.follows_value() || is_argument()
    }

    fn token(&mut self) -> Option<()> {
        match self.byte(0) {
            b' ' | b'\t' | b'\r' => self.at += 1,
            b'\\' if self.rest().starts_with("\\\n") => self.advance(2),
            b'\\' if self.rest().starts_with("\\\r\n") => self.advance(3),
            b'\n' => self.newline()?,
            b';' => {
                self.end();
                self.at += 1;
            }
            b'#' => self.at += self.rest().find('\n').unwrap_or(self.rest().len()),
            b'=' if self.is_at_line_start() && self.rest().starts_with("=begin") => self.long_comment()?,
            b'\'' | b'"' => self.string()?,
            b'`' => {
                let length = skip_quoted(self.rest(), 1, b'`', 0)?;
                self.push(Kind::Opaque, length);
            }
            b'%' if self.begins_value(1) => self.percent()?,
            b'/' if self.begins_value(1) => {
                let length = skip_quoted(self.rest(), 1, b'/', 0)?;
                let flags = self.rest()[length..].bytes().take_while(u8::is_ascii_alphabetic).count();
                self.push(Kind::Opaque, length + flags);
            }
            b'<' if self.heredoc() => {}
            b'?' if self.is_character() => {
                let count = if self.byte(1) == b'\\' { 3 } else { 2 };
                let length = self.rest().chars().take(count).map(char::len_utf8).sum();
                self.push(Kind::Opaque, length);
            }
            b':' => self.colon()?,
            b'@' | b'$' => self.variable(),
            b'0'..=b'9' => {
                let is_part = |(index, c): (usize, char)| {
                    c.is_alphanumeric() || c == '_' || c == '.' && self.byte(index + 1).is_ascii_digit()
                };
                let length = self.rest().char_indices().take_while(|part| is_part(*part)).map(|(_, c)| c.len_utf8()).sum();
                self.push(Kind::Opaque, length);
            }
            bracket @ (b'(' | b'[' | b'{') => {
                self.open.push(bracket);
                self.push(Kind::Open(bracket), 1);
            }
            bracket @ (b')' | b']' | b'}') => {
                let opened = self.open.pop()?;
                if !matches!((opened, bracket), (b'(', b')') | (b'[', b']') | (b'{', b'}')) {
                    return None;
                }
                self.push(Kind::Close(bracket), 1);
            }
            b',' => self.push(Kind::Comma, 1),
            b'=' if self.byte(1) == b'>' => self.push(Kind::Arrow, 2),
            b'*' if self.begins_value(1) => self.push(Kind::Splat, 1),
            b'_' | b'a'..=b'z' | b'A'..=b'Z' | 0x80.. => self.word(),
            0 => return None,
            _ => self.push(Kind::Operator(char::from(self.byte(0))), 1),
        }
        Some(())
    }

    /// Ends a statement, unless it goes on in the next line.
    fn newline(&mut self) -> Option<()> {
        self.advance(1);
        for (end, is_indented) in std::mem::take(&mut self.heredocs) {
            let is_end = |line: &str| end == if is_indented { line.trim() } else { line.trim_end_matches(['\r', '\n']) };
            let mut length = 0;
            let found = self.rest().split_inclusive('\n').any(|line| {
                length += line.len();
                is_end(line)
            });
            if !found {
                return None;
            }
            self.advance(length);
        }
        let goes_on = match self.tokens.last().map(|token| &token.kind) {
            // Behind the bars of `do |x|` too: the first statement of the block then stands beside its beginning.
            None | Some(Kind::End | Kind::Comma | Kind::Arrow | Kind::Splat | Kind::Label(_) | Kind::Operator(_)) => true,
            Some(Kind::Word { text: "and" | "or" | "not", called: false }) => true,
            Some(Kind::Word { text: "if" | "unless" | "while" | "until" | "rescue", called: false }) => {
                !self.is_statement_start()
            }
            Some(_) => !self.open.is_empty() || self.goes_on_with_dot(),
        };
        if !goes_on {
            self.end();
        }
        Some(())
    }

    /// Whether the last token is the first of its statement.
    fn is_statement_start(&self) -> bool {
        let before = self.tokens.len().checked_sub(2).map(|index| &self.tokens[index].kind);
        before.is_none_or(|kind| *kind == Kind::End)
    }

    /// Whether what follows the blank is a method of what is before it. The blank is then passed: once is enough.
    fn goes_on_with_dot(&mut self) -> bool {
        let next = self.rest().trim_start();
        let goes_on = next.starts_with("&.") || next.starts_with('.') && !next.starts_with("..");
        if goes_on {
            self.advance(self.rest().len() - next.len());
        }
        goes_on
    }

    fn end(&mut self) {
        if self.open.is_empty() && !matches!(self.tokens.last(), None | Some(Token { kind: Kind::End, .. })) {
            self.tokens.push(Token { kind: Kind::End, line: self.line });
        }
    }

    fn long_comment(&mut self) -> Option<()> {
        let end = self.rest().find("\n=end")?;
        self.advance(end + 1);
        self.advance(self.rest().find('\n').unwrap_or(self.rest().len()));
        Some(())
    }

    /// A string in quotes, or a key in quotes.
    fn string(&mut self) -> Option<()> {
        let quote = self.byte(0);
        let length = skip_quoted(self.rest(), 1, quote, 0)?;
        let inside = &self.rest()[1..length - 1];
        let text = if quote == b'"' { double_quoted(inside) } else { Some(single_quoted(inside, &['\''])) };
        let is_label = self.byte(length) == b':' && self.byte(length + 1) != b':' && !self.follows_operator('?');
        match text {
            Some(text) if is_label => self.push(Kind::Label(text), length + 1),
            Some(text) => self.push(Kind::Text(text), length),
            None if is_label => return None,
            None => self.push(Kind::Opaque, length),
        }
        Some(())
    }

    fn follows_operator(&self, operator: char) -> bool {
        self.tokens.last().is_some_and(|token| token.kind == Kind::Operator(operator))
    }

    /// `%w(…)`, `%q(…)` and their relatives.
    fn percent(&mut self) -> Option<()> {
        let letter = self.byte(1);
        let prefix = if letter.is_ascii_alphabetic() { 2 } else { 1 };
        let open = self.byte(prefix);
        let close = match open {
            b'(' => b')',
            b'[' => b']',
            b'{' => b'}',
            b'<' => b'>',
            other if other.is_ascii_punctuation() => other,
            _ => return None,
        };
        let length = skip_delimited(self.rest(), prefix + 1, open, close, !matches!(letter, b'w' | b'q' | b'i' | b's'))?;
        let inside = &self.rest()[prefix + 1..length - 1];
        let kind = match letter {
            b'w' | b'W' if !inside.contains('\\') && (letter == b'w' || !inside.contains("#{")) => {
                Kind::Words(self.words(inside))
            }
            b'q' => Kind::Text(single_quoted(inside, &[char::from(open), char::from(close)])),
            b'w' | b'W' | b'i' | b'I' | b'r' | b's' | b'x' => Kind::Opaque,
            b'Q' => double_quoted(inside).map_or(Kind::Opaque, Kind::Text),
            letter if letter.is_ascii_alphabetic() => return None,
            _ => double_quoted(inside).map_or(Kind::Opaque, Kind::Text),
        };
        let flags = if letter == b'r' { self.rest()[length..].bytes().take_while(u8::is_ascii_alphabetic).count() } else { 0 };
        self.push(kind, length + flags);
        Some(())
    }

    fn words(&self, inside: &str) -> Vec<(String, u32)> {
        let lines = inside.split('\n').zip(self.line..);
        lines.flat_map(|(words, line)| words.split_ascii_whitespace().map(move |word| (word.to_owned(), line))).collect()
    }

    /// `<<NAME`, `<<-NAME` or `<<~NAME`, also with quotes: if it is one, its text is skipped at the end of the line.
    fn heredoc(&mut self) -> bool {
        let Some(rest) = self.rest().strip_prefix("<<") else { return false };
        let unmarked = rest.trim_start_matches(['-', '~']);
        let marks = rest.len() - unmarked.len();
        let quote = unmarked.bytes().next().filter(|byte| b"'\"`".contains(byte));
        let name = match quote {
            Some(quote) => unmarked[1..].split_once(char::from(quote)).map_or("", |(name, _)| name),
            None => &unmarked[..unmarked.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count()],
        };
        // `list << item` and `class << self` are none.
        let is_name = name
            .bytes()
            .next()
            .is_some_and(|byte| byte == b'_' || byte.is_ascii_alphabetic() && (marks > 0 || byte.is_ascii_uppercase()));
        if marks > 1 || name.contains('\n') || !(is_name || quote.is_some() && !name.is_empty()) || !self.begins_value(2) {
            return false;
        }
        self.heredocs.push((name, marks == 1));
        self.push(Kind::Opaque, 2 + marks + name.len() + if quote.is_some() { 2 } else { 0 });
        true
    }

    /// `?x` is a character where a value is expected and only one character follows.
    fn is_character(&self) -> bool {
        let mut next = self.rest()[1..].chars();
        let (Some(first), second) = (next.next(), next.next()) else { return false };
        if first.is_whitespace() || self.follows_value() {
            return false;
        }
        first == '\\' || !second.is_some_and(|second| second.is_alphanumeric() || second == '_')
    }

    /// A symbol or an operator.
    fn colon(&mut self) -> Option<()> {
        let rest = &self.rest()[1..];
        match self.byte(1) {
            b':' => self.push(Kind::Operator(':'), 2),
            quote @ (b'"' | b'\'') => {
                let length = skip_quoted(self.rest(), 2, quote, 0)?;
                self.push(Kind::Opaque, length);
            }
            _ if rest.starts_with(is_word) => {
                let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                let mark = usize::from(matches!(self.byte(1 + length), b'?' | b'!') && self.byte(2 + length) != b'=');
                self.push(Kind::Opaque, 1 + length + mark);
            }
            _ if !self.follows_value() => {
                let length = rest.bytes().take_while(|byte| b"+-*/<=>!~%&|^[]".contains(byte)).count();
                self.push(Kind::Opaque, 1 + length);
            }
            _ => self.push(Kind::Operator(':'), 1),
        }
        Some(())
    }

    /// `@x`, `@@x`, `$x`, or one of the variables that are called by a sign.
    fn variable(&mut self) {
        let marks = self.rest().bytes().take(2).take_while(|byte| *byte == b'@').count().max(1);
        let name = &self.rest()[marks..];
        let is_part = |c: char| if self.byte(1).is_ascii_digit() { c.is_ascii_digit() } else { is_word(c) };
        let length = match name.find(|c| !is_part(c)).unwrap_or(name.len()) {
            0 if self.byte(0) == b'$' => usize::from(self.byte(1).is_ascii_punctuation()),
            length => length,
        };
        self.push(Kind::Opaque, marks + length);
    }

    fn word(&mut self) {
        let rest = self.rest();
        let mut length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        if matches!(self.byte(length), b'?' | b'!') && (self.byte(length + 1) != b'=' || self.byte(length + 2) == b'=') {
            length += 1;
        }
        let (text, called) = (&rest[..length], self.follows_operator('.'));
        if self.byte(length) == b':' && self.byte(length + 1) != b':' && !called && !self.follows_operator('?') {
            self.push(Kind::Label(text.to_owned()), length + 1);
        } else {
            self.push(Kind::Word { text, called }, length);
        }
    }
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_ascii_alphanumeric() || !c.is_ascii()
}
