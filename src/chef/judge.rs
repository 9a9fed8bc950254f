//! What is wrong in a chef-repo as a whole: run lists, dependencies and constraints against what is there.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};

use super::cycles;
use super::repository::{Cookbook, Findings, Lists, Named, Need, Repository};
use super::run_list::{self, Item};
use super::version::Version;

/// How alike two names must be for one to be suggested for the other (Jaro-Winkler, 1 is equal).
const ALIKE: f64 = 0.9;
/// Findings for which a likely name is looked for: more are not shown, and each costs a look at every name.
const SUGGESTIONS: usize = 100;
/// Cookbooks of one name that are looked at. Where there are more, nothing is said of what is in them.
const MOST_OF_ONE_NAME: usize = 16;
/// Files that a message names.
const MOST_FILES: usize = 4;

/// Adds what is found to `findings`.
pub fn judge(repository: &Repository, findings: &mut Findings) {
    let judge = Judge { repository, cookbooks: by_name(&repository.cookbooks), suggestions: Cell::new(SUGGESTIONS) };
    for lists in repository.roles.values().flatten().chain(&repository.nodes) {
        judge.run_lists(lists, findings);
    }
    for (name, files) in repository.roles.iter().filter(|(_, files)| files.len() > 1) {
        let some: Vec<&str> = files.iter().take(MOST_FILES).map(|lists| lists.file.as_str()).collect();
        let more = if files.len() > MOST_FILES { ", …" } else { "" };
        findings.warning(some[0], None, || format!("role {name:?} is there more than once: {}{more}", some.join(", ")));
    }
    for cookbook in &repository.cookbooks {
        judge.dependencies(cookbook, findings);
    }
    judge.names(findings);
    for environment in &repository.environments {
        for pin in &environment.pins {
            judge.version(&environment.file, pin, findings);
        }
    }
    cycles::find(&repository.roles, findings);
}

/// A cookbook is found by what its metadata calls it, and by its directory: which one counts depends on Chef's mode.
fn by_name(cookbooks: &[Cookbook]) -> HashMap<&str, Vec<&Cookbook>> {
    let mut names: HashMap<&str, Vec<&Cookbook>> = HashMap::new();
    for cookbook in cookbooks {
        for name in HashSet::from([cookbook.name(), cookbook.folder()]) {
            names.entry(name).or_default().push(cookbook);
        }
    }
    names
}

struct Judge<'r> {
    repository: &'r Repository,
    cookbooks: HashMap<&'r str, Vec<&'r Cookbook>>,
    /// How many are left to give.
    suggestions: Cell<usize>,
}

impl<'r> Judge<'r> {
    fn run_lists(&self, Lists { file, lists }: &Lists, findings: &mut Findings) {
        for entry in lists.values().flatten() {
            let line = Some(entry.line);
            match run_list::parse(&entry.name) {
                // Chef's patterns look at each of several lines: nothing that anybody writes.
                _ if entry.name.contains('\n') => {}
                None => {
                    let message =
                        || format!("{:?} is no entry of a run list, such as \"recipe[x::y]\" or \"role[x]\"", entry.name);
                    findings.error(file, line, message);
                }
                Some(Item::Role(role)) if self.repository.has_other_roles || self.repository.roles.contains_key(role) => {}
                Some(Item::Role(role)) => {
                    let roles = self.repository.roles.keys().map(String::as_str);
                    findings.error(file, line, || format!("there is no role {role:?}{}", self.suggestion(role, roles)));
                }
                Some(Item::Recipe { cookbook, recipe, version }) => {
                    self.recipe(file, entry, (cookbook, recipe, version), findings)
                }
            }
        }
    }

    fn recipe(&self, file: &str, entry: &Named, wanted: (&str, &str, Option<&str>), findings: &mut Findings) {
        let (name, recipe, version) = wanted;
        let line = Some(entry.line);
        let Some(cookbooks) = self.cookbooks.get(name) else {
            if !self.repository.has_other_cookbooks {
                findings.error(file, line, || format!("there is no cookbook {name:?}{}", self.advice(name)));
            }
            return;
        };
        let recipes = || cookbooks.iter().map(|cookbook| cookbook.recipes.as_ref());
        let are_few = cookbooks.len() <= MOST_OF_ONE_NAME;
        if are_few && recipes().all(|recipes| recipes.is_some_and(|recipes| !recipes.contains(recipe))) {
            let known = || recipes().flatten().flatten().map(String::as_str);
            findings
                .error(file, line, || format!("cookbook {name:?} has no recipe {recipe:?}{}", self.suggestion(recipe, known())));
        }
        if let Some(version) = version.and_then(Version::parse)
            && let Some(others) = versions_if_none(cookbooks, |other| other == version)
        {
            findings.error(file, line, || format!("cookbook {name:?} is asked for in version {version}, it is {others}"));
        }
    }

    fn dependencies(&self, cookbook: &Cookbook, findings: &mut Findings) {
        let Some(file) = &cookbook.file else { return };
        for need in &cookbook.needs {
            let name = &need.cookbook.name;
            if self.cookbooks.contains_key(name.as_str()) {
                self.version(file, need, findings);
            } else if !self.repository.has_other_cookbooks {
                let message = || {
                    format!(
                        "cookbook {:?} depends on {name:?}, which is not in the repository{}",
                        cookbook.name(),
                        self.advice(name)
                    )
                };
                findings.error(file, Some(need.cookbook.line), message);
            }
        }
    }

    /// A version that is asked for, if the cookbook is there.
    fn version(&self, file: &str, need: &Need, findings: &mut Findings) {
        let (Some(cookbooks), Some((text, constraint))) = (self.cookbooks.get(need.cookbook.name.as_str()), &need.constraint)
        else {
            return;
        };
        if let Some(others) = versions_if_none(cookbooks, |version| constraint.allows(version)) {
            let message = || format!("cookbook {:?} is asked for in version {text:?}, it is {others}", need.cookbook.name);
            findings.error(file, Some(need.cookbook.line), message);
        }
    }

    /// Two cookbooks of one path with one name: Chef's legacy mode refuses them, its local mode goes by their directories.
    fn names(&self, findings: &mut Findings) {
        let mut seen: HashMap<(&str, &str), &Cookbook> = HashMap::new();
        for cookbook in self.repository.cookbooks.iter().filter(|cookbook| !cookbook.is_artifact()) {
            if let Some(first) = seen.insert((&cookbook.path, cookbook.name()), cookbook) {
                let (file, name) = (cookbook.file.as_ref().unwrap_or(&cookbook.directory), cookbook.name());
                findings.warning(file, None, || format!("{} is called {name:?} too", first.directory));
            }
        }
    }

    fn suggestion<'n>(&self, name: &str, known: impl Iterator<Item = &'n str>) -> String {
        match self.suggestions.get() {
            0 => String::new(),
            left => {
                self.suggestions.set(left - 1);
                suggestion(name, known)
            }
        }
    }

    /// What to do about a cookbook that is not there.
    fn advice(&self, name: &str) -> String {
        let mut directories = self.repository.empty_directories.iter();
        if let Some(directory) = directories.find(|directory| directory.rsplit('/').next() == Some(name)) {
            return format!(" ({directory} is empty: see --submodules)");
        }
        match self.repository.other_cookbooks.get(name) {
            Some(path) => format!(" (there is one in {path}: see --cookbook-path)"),
            None => self.suggestion(name, self.cookbooks.keys().copied()),
        }
    }
}

/// The versions that are there if all are known and none of them will do.
fn versions_if_none(cookbooks: &[&Cookbook], will_do: impl Fn(Version) -> bool) -> Option<String> {
    if cookbooks.len() > MOST_OF_ONE_NAME {
        return None;
    }
    let versions: Option<Vec<Version>> = cookbooks.iter().map(|cookbook| cookbook.version).collect();
    let versions = versions.filter(|versions| !versions.iter().any(|version| will_do(*version)))?;
    Some(versions.iter().map(Version::to_string).collect::<Vec<_>>().join(", "))
}

/// ` (did you mean "web"?)`, if there is something like it.
pub fn suggestion<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> String {
    let likeness = |other: &str| strsim::jaro_winkler(name, other);
    // What costs little comes first: of twice the length, or with another first letter, they are hardly ever alike enough.
    let is_possible = |other: &&str| {
        let lengths = (name.len(), other.len());
        lengths.0.max(lengths.1) <= 2 * lengths.0.min(lengths.1) && name.chars().next() == other.chars().next()
    };
    // The first of several in alphabetical order, so that messages are always the same.
    let nearest = known.filter(is_possible).map(|other| (likeness(other), other)).filter(|(likeness, _)| *likeness >= ALIKE);
    let nearest = nearest.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(a.1)));
    nearest.map_or(String::new(), |(_, other)| format!(" (did you mean {other:?}?)"))
}
