//! Settings from the file and the environment, laid under the flags: each is parsed as if it were a flag typed earlier, so
//! that every option means the same in all three.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

use clap::ArgMatches;

use crate::cli::problem::Problem;
use crate::error::{Error, Kind, Result};
use crate::host::device::SYSFS_VARIABLE;
use crate::report::trace;
use crate::step;

/// What every variable of ours begins with.
pub const PREFIX: &str = "EBS_BAKE_";
/// The token for HTTPS: the one setting that is not an option, so that it is in no process list and no file.
pub const TOKEN_VARIABLE: &str = "EBS_BAKE_GIT_TOKEN";
/// The token that a job of GitHub Actions has for its own repository, where the workflow hands it on.
pub const JOB_TOKEN_VARIABLE: &str = "GITHUB_TOKEN";
/// What the user's own command does not see.
pub const SECRETS: [&str; 2] = [TOKEN_VARIABLE, JOB_TOKEN_VARIABLE];
/// Variables of ours that are no options.
const NO_OPTIONS: [&str; 3] = [TOKEN_VARIABLE, SYSFS_VARIABLE, trace::VARIABLE];
/// How alike two names must be for one to be suggested for the other (Jaro-Winkler, 1 is equal).
const ALIKE: f64 = 0.8;

/// The environment variables of the process, or a test's.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    /// Names of ours whose values are not UTF-8.
    unreadable: Vec<String>,
}

impl Environment {
    /// What this process has.
    pub fn of_process() -> Self {
        std::env::vars_os().collect()
    }

    /// The variable's value; `None` if it is not set or empty, which CI systems do not tell apart.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        let mut environment = Environment::default();
        for (name, value) in variables {
            let Ok(name) = name.into().into_string() else { continue };
            match value.into().into_string() {
                Ok(value) => drop(environment.variables.insert(name, value)),
                Err(_) if name.starts_with(PREFIX) => environment.unreadable.push(name),
                Err(_) => {}
            }
        }
        environment
    }
}

/// Where a setting was made, as messages say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file, and the line if it is known.
    #[allow(missing_docs)]
    File { file: String, line: Option<usize> },
    /// A variable's name.
    Variable(String),
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it was made.
    pub origin: Origin,
    /// The option's long name.
    pub key: String,
    /// Empty: not set.
    pub value: String,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::File { file, line: Some(line) } => write!(f, "{file}:{line}: {}", self.key),
            Origin::File { file, line: None } => write!(f, "{file}: {}", self.key),
            Origin::Variable(name) => f.write_str(name),
        }
    }
}

/// Settings of one origin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layer {
    /// In the order of the file, or of the variables' names.
    pub entries: Vec<Entry>,
}

impl Layer {
    /// The variables `EBS_BAKE_<NAME>`.
    pub fn of_environment(environment: &Environment) -> Result<Layer> {
        if let Some(name) = environment.unreadable.first() {
            return Err(Error::new(Kind::Usage, format!("{name} is not UTF-8")));
        }
        let is_option = |name: &str| name.starts_with(PREFIX) && ![&NO_OPTIONS, step::VARIABLES].concat().contains(&name);
        let ours = environment.variables.iter().filter(|(name, _)| is_option(name));
        let entries = ours.map(|(name, value)| {
            let key = name[PREFIX.len()..].to_ascii_lowercase().replace('_', "-");
            Entry { origin: Origin::Variable(name.clone()), key, value: value.clone() }
        });
        Ok(Layer { entries: entries.collect() })
    }

    /// Refuses what is no option of any command, secrets above all.
    pub fn check_keys(&self, known: &[String]) -> Result<()> {
        for entry in &self.entries {
            let from_file = matches!(entry.origin, Origin::File { .. });
            if from_file && is_secret(entry) {
                return Err(Error::new(Kind::Usage, format!("{entry}: a secret does not belong in this file"))
                    .hint(format!("set {TOKEN_VARIABLE} from the CI system's secrets, or use git-token-file")));
            }
            if from_file && entry.key == "config" {
                return Err(Error::new(Kind::Usage, format!("{entry}: a file cannot name the file to read")));
            }
            if !known.contains(&entry.key) {
                return Err(unknown(entry, known));
            }
        }
        Ok(())
    }
}

/// Whether only a secret can have this name.
pub fn is_secret_name(name: &str) -> bool {
    ["token", "password", "secret"].iter().any(|word| name.ends_with(word))
}

/// Keys that only a secret can have, and repository URLs with a password in them.
fn is_secret(entry: &Entry) -> bool {
    let user = || entry.value.split_once("://").and_then(|(_, rest)| rest.split('/').next()?.rsplit_once('@'));
    is_secret_name(&entry.key) || entry.key == "repository" && user().is_some_and(|(user, _)| user.contains(':'))
}

fn unknown(entry: &Entry, known: &[String]) -> Error {
    let spelled = |key: &str| match entry.origin {
        Origin::File { .. } => key.to_owned(),
        Origin::Variable(_) => variable(key),
    };
    let message = match &entry.origin {
        Origin::File { .. } => format!("{entry}: there is no such option"),
        Origin::Variable(name) => format!("{name}: there is no such option (variables that begin with {PREFIX} are ours)"),
    };
    let likeness = |key: &&String| strsim::jaro_winkler(key, &entry.key.replace('_', "-"));
    let token = "git-token".to_owned();
    let also = matches!(entry.origin, Origin::Variable(_)).then_some(&token);
    let nearest = known.iter().chain(also).max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    let hint = match nearest.filter(|key| likeness(key) >= ALIKE) {
        Some(key) => format!("did you mean {}?", spelled(key)),
        None => "all options are in docs/configuration.md".to_owned(),
    };
    Error::new(Kind::Usage, message).hint(hint)
}

/// The variable that sets an option.
pub fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase().replace('-', "_"))
}

/// The settings of one command: each layer over those before it, the flags on top. Options of other commands are skipped.
pub fn resolve<A: clap::Args>(layers: &[&Layer], flags: &ArgMatches) -> Result<A> {
    let schema = A::augment_args(clap::Command::new("settings").no_binary_name(true).disable_help_flag(true));
    let parse = |arguments: Option<String>| schema.clone().try_get_matches_from(arguments);
    let internal = |cause: clap::Error| Error::new(Kind::Usage, "the options cannot be read").because(cause);

    let mut settings = A::from_arg_matches(&parse(None).map_err(internal)?).map_err(internal)?;
    let applies = |entry: &&Entry| {
        !entry.value.is_empty() && schema.get_arguments().any(|argument| argument.get_long() == Some(&entry.key))
    };
    for entry in layers.iter().flat_map(|layer| &layer.entries).filter(applies) {
        let matches = parse(Some(format!("--{}={}", entry.key, entry.value)))
            .map_err(|error| Problem::of(&error).into_error(&entry.to_string()))?;
        settings.update_from_arg_matches(&matches).map_err(internal)?;
    }
    settings.update_from_arg_matches(flags).map_err(internal)?;
    Ok(settings)
}
