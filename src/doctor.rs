//! `doctor`: whether a bake, a rollout or pruning would work here, without doing it. Nothing is taken, and nothing of it stays.
//!
//! Every check has a name and an outcome; all are made, whatever others came to. What decides takes values and returns a
//! [`Check`]; what finds the values out is beside it.

use crate::bake::blocking;
use crate::config::{self, Ec2, Examined, Store};
use crate::error::{Error, Kind, Result};

mod caller;
mod ec2;
mod host;
mod instance;
mod local;
mod permissions;
mod prune;
mod rollout;
pub mod table;

pub use table::{VERSION, json, table};

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// It would work, but somebody should look at it.
    Warning,
    /// It would fail, with an error of this kind.
    Failure(Kind),
    /// It could not be made, or does not matter here.
    Skipped,
}

impl Outcome {
    /// Its stable name.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Warning => "warning",
            Outcome::Failure(_) => "failure",
            Outcome::Skipped => "skipped",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Its stable name (`docs/reference.md`).
    pub name: &'static str,
    /// What it came to.
    pub outcome: Outcome,
    /// What was found, in one line.
    pub detail: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Check {
    fn new(name: &'static str, outcome: Outcome, detail: impl Into<String>) -> Self {
        Check { name, outcome, detail: detail.into(), hint: None }
    }

    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self::new(name, Outcome::Ok, detail)
    }

    fn skipped(name: &'static str, why: impl Into<String>) -> Self {
        Self::new(name, Outcome::Skipped, why)
    }

    fn warning(name: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(name, Outcome::Warning, detail).hint(hint)
    }

    fn failure(name: &'static str, kind: Kind, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(name, Outcome::Failure(kind), detail).hint(hint)
    }

    /// A failure with the error's kind, message, causes and hint.
    fn of_error(name: &'static str, error: &Error) -> Self {
        let told: Vec<String> = std::iter::once(error.to_string()).chain(error.causes()).collect();
        // Some causes are lists of several lines.
        let detail = told.join(": ").split_whitespace().collect::<Vec<_>>().join(" ");
        Check { name, outcome: Outcome::Failure(error.kind()), detail, hint: error.hint_text().map(str::to_owned) }
    }

    fn of<T: Into<String>>(name: &'static str, result: Result<T>) -> Self {
        match result {
            Ok(detail) => Self::ok(name, detail),
            Err(error) => Self::of_error(name, &error),
        }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same, as something that does not keep a bake from working.
    fn no_worse_than_warning(mut self) -> Self {
        if matches!(self.outcome, Outcome::Failure(_)) {
            self.outcome = Outcome::Warning;
        }
        self
    }
}

fn skipped(names: &[&'static str], why: &str) -> Vec<Check> {
    names.iter().map(|name| Check::skipped(name, why)).collect()
}

/// Makes all checks for what is examined.
///
/// # Errors
/// Only if a thread panics: what is wrong is in the checks.
pub async fn examine(config: config::Doctor) -> Result<Vec<Check>> {
    match (&config.examined, &config.store) {
        (Examined::Rollout(fleet), Store::Ec2(settings)) => {
            let (settings, fleet): (Ec2, _) = (settings.as_ref().clone(), fleet.as_ref().clone());
            Ok(rollout::checks(settings, fleet, &config.volume_name).await)
        }
        (Examined::Prune { parameter, include_shared }, Store::Ec2(settings)) => {
            let wish = prune::Wish {
                volume_name: &config.volume_name,
                parameter: parameter.as_deref(),
                include_shared: *include_shared,
            };
            Ok(prune::checks(settings.as_ref().clone(), wish).await)
        }
        _ => of_a_bake(config).await,
    }
}

async fn of_a_bake(config: config::Doctor) -> Result<Vec<Check>> {
    let store = config.store.clone();
    let of_host = {
        let config = config.clone();
        blocking(move || Ok(host::checks(&config)))
    };
    let of_store = async {
        match store {
            Store::Local(directory) => blocking(move || Ok(local::checks(&directory))).await,
            Store::Ec2(settings) => Ok(ec2::checks(&config, *settings).await),
        }
    };
    let (of_host, of_store) = tokio::join!(of_host, of_store);
    let mut checks = of_host?;
    checks.extend(of_store?);
    Ok(checks)
}

/// The error of the whole: of the kind of the first failure. `None`: nothing failed.
pub fn verdict(checks: &[Check]) -> Option<Error> {
    let kinds = checks.iter().filter_map(|check| match check.outcome {
        Outcome::Failure(kind) => Some(kind),
        _ => None,
    });
    let (first, count) = (kinds.clone().next()?, kinds.count());
    Some(Error::new(first, format!("{count} of {} checks failed", checks.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_decides_the_exit_code() {
        let good = [Check::ok("a", ""), Check::warning("b", "", ""), Check::skipped("c", "")];
        assert!(verdict(&good).is_none());
        let failures = [Check::failure("d", Kind::Device, "", ""), Check::failure("e", Kind::Permission, "", "")];
        let error = verdict(&[&good[..], &failures[..]].concat()).unwrap();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Device, "2 of 5 checks failed"));
        let error = verdict(&failures[1..]).unwrap();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Permission, "1 of 1 checks failed"));
    }

    #[test]
    fn an_error_keeps_its_causes_and_its_hint() {
        let error = Error::new(Kind::Device, "cannot mount").because("not\n  permitted").hint("run as root");
        let check = Check::of::<String>("mount", Err(error));
        assert_eq!((check.outcome, check.detail.as_str()), (Outcome::Failure(Kind::Device), "cannot mount: not permitted"));
        assert_eq!(check.hint.as_deref(), Some("run as root"));
        assert_eq!(check.no_worse_than_warning().outcome, Outcome::Warning);
    }
}
