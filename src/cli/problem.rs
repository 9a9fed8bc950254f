//! What the argument parser objects to, in our words: the same for a flag, a variable and a line of the file.

use std::error::Error as _;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::config::layers::{TOKEN_VARIABLE, is_secret_name};
use crate::error::{Error, Kind};

/// An objection, without the place that it concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The flag it concerns (`--after`), where there is one.
    pub flag: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Problem {
    /// Reads the parser's error.
    pub fn of(error: &clap::Error) -> Problem {
        let single = |kind| match error.get(kind) {
            Some(ContextValue::String(text)) => Some(text.as_str()),
            _ => None,
        };
        let flag = single(ContextKind::InvalidArg).map(|usage| usage.split([' ', '=', '[']).next().unwrap_or(usage).to_owned());
        let value = single(ContextKind::InvalidValue).unwrap_or_default();
        let hint = |kind| single(kind).map(|text| format!("did you mean {text}?"));
        match error.kind() {
            ErrorKind::InvalidValue if value.is_empty() => {
                Problem { flag, what: "a value is needed".into(), hint: choices(error) }
            }
            ErrorKind::InvalidValue => {
                let what = match choices(error) {
                    Some(choices) => format!("{value:?} is not {choices}"),
                    None => format!("{value:?} is not possible"),
                };
                Problem { flag, what, hint: hint(ContextKind::SuggestedValue) }
            }
            ErrorKind::ValueValidation => {
                let what = error.source().map_or_else(|| format!("{value:?} is not possible"), ToString::to_string);
                let what = if what.contains("boolean") { format!("{value:?} is not true or false") } else { what };
                Problem { flag, what, hint: None }
            }
            ErrorKind::UnknownArgument => unknown(&flag.unwrap_or_default(), hint(ContextKind::SuggestedArg)),
            ErrorKind::InvalidSubcommand => {
                let name = single(ContextKind::InvalidSubcommand).unwrap_or_default();
                let hint = match error.get(ContextKind::SuggestedSubcommand) {
                    Some(ContextValue::Strings(names)) => names.first().map(|name| format!("did you mean {name}?")),
                    _ => None,
                };
                Problem { flag: None, what: format!("there is no command {name:?}"), hint }
            }
            _ => Problem { flag: None, what: first_line(error), hint: None },
        }
    }

    /// The error, for a setting made at `place`.
    pub fn into_error(self, place: &str) -> Error {
        let error = Error::new(Kind::Usage, format!("{place}: {}", self.what));
        match self.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    /// The error, for something typed on the command line; `help` is the command that explains it.
    pub fn into_flag_error(self, help: &str) -> Error {
        let message = match &self.flag {
            Some(flag) => format!("{flag}: {}", self.what),
            None => self.what,
        };
        Error::new(Kind::Usage, message).hint(self.hint.unwrap_or_else(|| format!("see {help}")))
    }
}

/// Something that was typed and is not expected; secrets above all.
fn unknown(argument: &str, hint: Option<String>) -> Problem {
    if !argument.starts_with('-') {
        return Problem { flag: None, what: format!("{argument:?} is not expected here"), hint: None };
    }
    let what = format!("there is no option {argument}");
    if is_secret_name(argument) {
        let hint = format!("every process on the host can read flags: set {TOKEN_VARIABLE}, or use --git-token-file");
        return Problem { flag: None, what, hint: Some(hint) };
    }
    Problem { flag: None, what, hint }
}

fn choices(error: &clap::Error) -> Option<String> {
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) if !values.is_empty() => Some(format!("one of {}", values.join(", "))),
        _ => None,
    }
}

/// The parser's own words, for the objections that need no other.
fn first_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let paragraph: Vec<&str> = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect();
    paragraph.join(" ").trim_start_matches("error: ").to_owned()
}
