//! What is checked before the snapshot: the options, and what they come to.

use clap::Args;

use super::values::chef::{self, Lines};
use crate::chef::read::Place;

/// A check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Check {
    /// Nothing is checked
    #[default]
    None,
    /// The rules of `docs/chef-checks.md`
    Chef,
}

/// What an error that a check finds means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum OnFindings {
    /// There is no snapshot
    #[default]
    Fail,
    /// It is told, and that is all
    Warn,
}

/// What is checked before the snapshot.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Checks before the snapshot")]
pub struct Settings {
    /// Check what is baked: chef (roles, run lists, dependencies), or none [default: none]
    #[arg(long, value_enum, value_name = "WHICH", hide_possible_values = true)]
    pub checks: Option<Check>,
    /// If a check finds an error: fail, or warn and bake all the same [default: fail]
    #[arg(long, value_enum, value_name = "ACTION", hide_possible_values = true)]
    pub on_findings: Option<OnFindings>,
    /// Refuse a commit without this Chef role; may be repeated, or have several lines [default: none]
    #[arg(long, value_name = "NAME", value_parser = chef::names)]
    pub require_role: Option<Vec<Lines>>,
    /// Where the chef-repo is in the repository [default: its root]
    #[arg(long, value_name = "DIR", value_parser = chef::inside)]
    pub chef_path: Option<String>,
    /// A directory of cookbooks in it; may be repeated, or have several lines [default: those with a usual name]
    #[arg(long, value_name = "DIR", value_parser = chef::directories)]
    pub cookbook_path: Option<Vec<Lines>>,
}

/// What is checked, validated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checks {
    /// Whether the rules for Chef are checked.
    pub chef: bool,
    /// What an error means.
    pub on_findings: OnFindings,
    /// Roles without which there is no snapshot.
    pub required_roles: Vec<String>,
    /// Where the chef-repo is.
    pub place: Place,
}

impl Checks {
    /// What a snapshot that passed is marked with: `chef`, `role:web`.
    pub fn marks(&self) -> Vec<String> {
        let roles = self.required_roles.iter().map(|role| format!("role:{role}"));
        self.chef.then(|| "chef".to_owned()).into_iter().chain(roles).collect()
    }
}

impl From<Settings> for Checks {
    fn from(settings: Settings) -> Self {
        let Settings { checks, on_findings, require_role, chef_path, cookbook_path } = settings;
        let flat = |lists: Vec<Lines>| lists.into_iter().flatten().collect::<Vec<_>>();
        let mut required_roles = flat(require_role.unwrap_or_default());
        required_roles.sort();
        required_roles.dedup();
        Checks {
            chef: checks == Some(Check::Chef),
            on_findings: on_findings.unwrap_or_default(),
            required_roles,
            place: Place { path: chef_path.unwrap_or_default(), cookbook_paths: cookbook_path.map(flat) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passed_is_marked_once_and_in_one_order() {
        let require_role = Some(vec![vec!["web".into(), "db".into()], vec!["web".into()]]);
        let checks = Checks::from(Settings { checks: Some(Check::Chef), require_role, ..Settings::default() });
        assert_eq!(checks.marks(), ["chef", "role:db", "role:web"]);
        assert_eq!(Checks::from(Settings::default()).marks(), [""; 0]);
    }
}
