//! What the small Ruby files of a chef-repo say literally (`roles/*.rb`, `environments/*.rb`, `metadata.rb`): the calls of their top
//! level whose arguments are strings, lists and hashes. No Ruby is run: what is computed, conditional or not understood is not judged.

use tokens::{Kind, Token, tokens};

mod quotes;
mod tokens;

/// What a file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Script {
    /// The calls of its top level, in their order.
    pub calls: Vec<Call>,
    /// Whether these calls and assignments are all that it has, so that what is not among them is not said.
    pub is_plain: bool,
}

/// `name "web"`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The method.
    pub name: String,
    /// From 1.
    pub line: u32,
    /// `None`: something in them is not literal, or the call depends on a condition.
    pub arguments: Option<Vec<Value>>,
}

/// An argument.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants say what their fields are")]
pub enum Value {
    /// A string and its line.
    Text(String, u32),
    List(Vec<Value>),
    Hash(Vec<(Value, Value)>),
    /// A value that is there and is not known.
    Opaque,
}

/// How deep lists may be inside of each other.
const DEEPEST: usize = 32;
/// These begin something that an `end` ends. `if` and its kind only where a statement or a value begins.
const OPENERS: [&str; 11] = ["if", "unless", "while", "until", "case", "for", "begin", "def", "class", "module", "do"];
const LOOPS: [&str; 3] = ["while", "until", "for"];
/// Words in a block that is looked into: a name, brackets, two arguments, and line ends.
const LONGEST_BODY: usize = 12;
/// The calls that a chef-repo is judged by.
const MEANT: [&str; 9] =
    ["name", "version", "depends", "run_list", "recipes", "env_run_lists", "env_run_list", "cookbook", "cookbook_versions"];
/// Calls that could do anything.
const EVALUATORS: [&str; 6] = ["eval", "instance_eval", "load", "require", "require_relative", "from_file"];

impl Script {
    /// Reads a file's text; `None` if it is not understood to its end.
    pub fn read(text: &str) -> Option<Script> {
        let tokens = tokens(text.strip_prefix('\u{feff}').unwrap_or(text))?;
        let mut script = Script { calls: Vec::new(), is_plain: true };
        let (mut depth, mut rest) = (0, tokens.as_slice());
        while !rest.is_empty() {
            if depth == 0
                && let Some((calls, after)) = for_each(rest)
            {
                script.calls.extend(calls);
                rest = after;
                continue;
            }
            let end = rest.iter().position(|token| token.kind == Kind::End).unwrap_or(rest.len());
            let statement = &rest[..end];
            rest = rest.get(end + 1..).unwrap_or_default();
            let (is_top, blocks) = (depth == 0, count_blocks(statement));
            for step in &blocks {
                depth += step;
                if depth < 0 {
                    return None;
                }
            }
            match call(statement).filter(|_| is_top && blocks.is_empty()) {
                Some(call) => {
                    script.is_plain &= !EVALUATORS.contains(&call.name.as_str());
                    let is_literal = call.arguments.is_some();
                    script.calls.push(call);
                    if !is_literal {
                        script.mention(&statement[1..]);
                    }
                }
                None => {
                    script.is_plain &= is_top && blocks.is_empty() && is_assignment(statement);
                    script.mention(statement);
                }
            }
        }
        Some(script)
    }

    /// Notes that something may be said where nobody can tell what: in a block, a condition or a computed value.
    fn mention(&mut self, statement: &[Token<'_>]) {
        for token in statement {
            if let Kind::Word { text, called: false } = token.kind
                && MEANT.contains(&text)
            {
                self.calls.push(Call { name: text.to_owned(), line: token.line, arguments: None });
            }
        }
    }

    /// The calls of a method.
    pub fn calls_of<'s>(&'s self, name: &'s str) -> impl DoubleEndedIterator<Item = &'s Call> {
        self.calls.iter().filter(move |call| call.name == name)
    }
}

/// `1` for each word that begins a block, `-1` for each `end`.
fn count_blocks(statement: &[Token<'_>]) -> Vec<i32> {
    let mut blocks = Vec::new();
    let mut is_loop = false;
    for (index, token) in statement.iter().enumerate() {
        let Kind::Word { text, called: false } = token.kind else { continue };
        let before = index.checked_sub(1).map(|before| &statement[before].kind);
        if text == "end" {
            blocks.push(-1);
        } else if text == "do" {
            // `while x do` is one block, not two.
            if !std::mem::take(&mut is_loop) {
                blocks.push(1);
            }
        } else if OPENERS.contains(&text) && (text == "begin" || text == "def" || !ends_value(before)) {
            is_loop = LOOPS.contains(&text);
            blocks.push(1);
        }
    }
    blocks
}

fn ends_value(kind: Option<&Kind<'_>>) -> bool {
    match kind {
        Some(Kind::Word { text, called }) => *called || !["then", "else", "do", "and", "or", "not"].contains(text),
        Some(Kind::Text(_) | Kind::Words(_) | Kind::Opaque | Kind::Close(_)) => true,
        _ => false,
    }
}

fn call(statement: &[Token<'_>]) -> Option<Call> {
    let (first, rest) = statement.split_first()?;
    let Kind::Word { text, .. } = first.kind else { return None };
    if rest
        .first()
        .is_some_and(|next| matches!(next.kind, Kind::Operator('=' | '.' | '|' | ':' | '+' | '-' | '&') | Kind::Open(b'{')))
    {
        return None;
    }
    Some(Call { name: text.to_owned(), line: first.line, arguments: arguments(rest) })
}

/// `%w(a b).each do |x| depends x end`, which many cookbooks have: the calls that it comes to, and what follows it.
fn for_each<'p, 't>(tokens: &'p [Token<'t>]) -> Option<(Vec<Call>, &'p [Token<'t>])> {
    if !matches!(tokens.first()?.kind, Kind::Words(_) | Kind::Open(b'[')) {
        return None;
    }
    let mut parser = Parser { rest: tokens, depth: 0 };
    let Value::List(items) = parser.value()? else { return None };
    let mut next = || parser.next().map(|token| &token.kind);
    let (Kind::Operator('.'), Kind::Word { text: "each", .. }) = (next()?, next()?) else { return None };
    let begin = next()?;
    let (Kind::Operator('|'), Kind::Word { text: variable, .. }, Kind::Operator('|')) = (next()?, next()?, next()?) else {
        return None;
    };
    let is_end = |token: &Token<'_>| match (begin, &token.kind) {
        (Kind::Word { text: "do", .. }, Kind::Word { text: "end", called: false }) => true,
        (Kind::Open(b'{'), kind) => *kind == Kind::Close(b'}'),
        _ => false,
    };
    let length = parser.rest.iter().take(LONGEST_BODY).position(is_end)?;
    let (body, after) = (&parser.rest[..length], &parser.rest[length + 1..]);
    let after = match after.split_first() {
        Some((end, after)) if end.kind == Kind::End => after,
        Some(_) => return None,
        None => after,
    };
    let body: Vec<&Token<'_>> = body.iter().filter(|token| token.kind != Kind::End).collect();
    let calls = items.iter().map(|item| {
        let Value::Text(text, line) = item else { return None };
        let insert = |token: &&Token<'t>| match token.kind {
            Kind::Word { text: word, called: false } if word == *variable => {
                Token { kind: Kind::Text(text.clone()), line: *line }
            }
            _ => (*token).clone(),
        };
        call(&body.iter().map(insert).collect::<Vec<_>>()).filter(|call| call.arguments.is_some())
    });
    Some((calls.collect::<Option<_>>()?, after))
}

/// `x = …`, whatever is on its right.
fn is_assignment(statement: &[Token<'_>]) -> bool {
    matches!(statement, [Token { kind: Kind::Word { .. } | Kind::Opaque, .. }, Token { kind: Kind::Operator('='), .. }, ..])
}

fn arguments(tokens: &[Token<'_>]) -> Option<Vec<Value>> {
    let mut parser = Parser { rest: tokens, depth: 0 };
    let list = match tokens.first() {
        Some(Token { kind: Kind::Open(b'('), .. }) => {
            parser.next();
            parser.list(Some(b')'))?
        }
        _ => parser.list(None)?,
    };
    parser.rest.is_empty().then_some(list)
}

struct Parser<'p, 't> {
    rest: &'p [Token<'t>],
    depth: usize,
}

impl<'p, 't> Parser<'p, 't> {
    fn next(&mut self) -> Option<&'p Token<'t>> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    fn peek(&self) -> Option<&'p Kind<'t>> {
        self.rest.first().map(|token| &token.kind)
    }

    /// Values up to the bracket, or to the end of the statement; pairs among them are one hash at the end.
    fn list(&mut self, close: Option<u8>) -> Option<Vec<Value>> {
        let (mut values, mut pairs) = (Vec::new(), Vec::new());
        loop {
            match (self.peek(), close) {
                (Some(Kind::Close(bracket)), Some(close)) if *bracket == close => {
                    self.next();
                    break;
                }
                (None, None) => break,
                (Some(Kind::Splat), _) => {
                    self.next();
                    let Value::List(items) = self.value()? else { return None };
                    values.extend(items);
                }
                (Some(Kind::Label(key)), _) => {
                    let line = self.next()?.line;
                    pairs.push((Value::Text(key.clone(), line), self.value()?));
                }
                _ => {
                    let value = self.value()?;
                    if self.peek() == Some(&Kind::Arrow) {
                        self.next();
                        pairs.push((value, self.value()?));
                    } else {
                        values.push(value);
                    }
                }
            }
            match (self.peek(), close) {
                (Some(Kind::Comma), _) => drop(self.next()),
                (Some(Kind::Close(bracket)), Some(close)) if *bracket == close => {}
                (None, None) => {}
                _ => return None,
            }
        }
        if !pairs.is_empty() {
            values.push(Value::Hash(pairs));
        }
        Some(values)
    }

    fn value(&mut self) -> Option<Value> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return None;
        }
        let token = self.next()?;
        let value = match &token.kind {
            Kind::Text(text) => {
                let mut text = text.clone();
                // "a" "b" is "ab"
                while let Some(Kind::Text(more)) = self.peek() {
                    text += more;
                    self.next();
                }
                Value::Text(text, token.line)
            }
            Kind::Words(words) => Value::List(words.iter().map(|(word, line)| Value::Text(word.clone(), *line)).collect()),
            Kind::Opaque | Kind::Word { text: "nil" | "true" | "false" | "__FILE__", called: false } => Value::Opaque,
            Kind::Open(b'[') => Value::List(self.list(Some(b']'))?),
            Kind::Open(b'{') => match self.list(Some(b'}'))?.as_mut_slice() {
                [] => Value::Hash(Vec::new()),
                [Value::Hash(pairs)] => Value::Hash(std::mem::take(pairs)),
                _ => return None,
            },
            Kind::Open(b'(') => match self.list(Some(b')'))?.as_mut_slice() {
                [value] => std::mem::replace(value, Value::Opaque),
                _ => return None,
            },
            _ => return None,
        };
        self.depth -= 1;
        Some(value)
    }
}
