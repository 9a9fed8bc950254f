//! Roles that include themselves through others. Chef includes each role once and goes on, so that the order is another one than it seems.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::repository::{DEFAULT, Findings, Lists, Named};
use super::run_list::{self, Item};

/// Entries that are looked at before giving up: a repository with many environments whose roles are all different.
const PATIENCE: usize = 2_000_000;
/// Roles of a cycle that are named.
const SHOWN: usize = 10;

type Roles = BTreeMap<String, Vec<Lists>>;

/// Finds cycles in each environment, for each has its own run lists, and tells each cycle once.
pub fn find(roles: &Roles, findings: &mut Findings) {
    let all = roles.values().flatten();
    let mut environments: BTreeSet<&str> = all.flat_map(|lists| lists.lists.keys().map(String::as_str)).collect();
    environments.remove(DEFAULT);
    let mut search = Search { roles, closed: BTreeSet::new(), patience: PATIENCE };
    for environment in std::iter::once(DEFAULT).chain(environments) {
        search.environment(environment, findings);
    }
}

struct Search<'r> {
    roles: &'r Roles,
    /// The roles that close a cycle: from, to.
    closed: BTreeSet<(&'r str, &'r str)>,
    patience: usize,
}

/// A role on the way down, and what of its run list is still to come.
struct Step<'r> {
    role: &'r str,
    file: &'r str,
    entries: std::slice::Iter<'r, Named>,
}

impl<'r> Search<'r> {
    /// Depth first with a stack of our own: a chain of roles may be longer than a thread's stack.
    fn environment(&mut self, environment: &str, findings: &mut Findings) {
        // `true`: on the way down. `false`: done.
        let mut seen: HashMap<&str, bool> = HashMap::new();
        for start in self.roles.keys() {
            let mut way: Vec<Step<'r>> = Vec::new();
            way.extend(self.enter(start, environment, &mut seen));
            while let Some(step) = way.last_mut() {
                if self.patience == 0 {
                    return;
                }
                self.patience -= 1;
                let Some(entry) = step.entries.next() else {
                    seen.insert(step.role, false);
                    way.pop();
                    continue;
                };
                let Some(Item::Role(role)) = run_list::parse(&entry.name) else { continue };
                match seen.get(role) {
                    Some(true) => self.close(&way, role, entry.line, environment, findings),
                    Some(false) => {}
                    None => way.extend(self.enter(role, environment, &mut seen)),
                }
            }
        }
    }

    fn enter(&self, role: &str, environment: &str, seen: &mut HashMap<&'r str, bool>) -> Option<Step<'r>> {
        let (role, files) = self.roles.get_key_value(role)?;
        if seen.contains_key(role.as_str()) {
            return None;
        }
        seen.insert(role, true);
        let entries = |lists: &'r Lists| lists.lists.get(environment).or(lists.lists.get(DEFAULT));
        // Of several files for one role the first will do: that there are several is told elsewhere.
        let (file, entries) = files.iter().find_map(|lists| Some((lists.file.as_str(), entries(lists)?)))?;
        Some(Step { role, file, entries: entries.iter() })
    }

    fn close(&mut self, way: &[Step<'r>], to: &str, line: u32, environment: &str, findings: &mut Findings) {
        let (Some(last), Some(first)) = (way.last(), way.iter().position(|step| step.role == to)) else { return };
        if !self.closed.insert((last.role, way[first].role)) {
            return;
        }
        let names = way[first..].iter().map(|step| step.role).chain([to]);
        let mut shown: Vec<&str> = names.clone().take(SHOWN).collect();
        if names.count() > SHOWN {
            shown.extend(["…", to]);
        }
        let place = if environment == DEFAULT { String::new() } else { format!(" in environment {environment:?}") };
        findings.warning(last.file, Some(line), || format!("role {to:?} includes itself{place}: {}", shown.join(" → ")));
    }
}
