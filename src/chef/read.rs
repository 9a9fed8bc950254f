//! Reads a chef-repo: what is where, and what is wrong with each file by itself.

use std::collections::BTreeSet;

use super::objects::{self, Metadata, Source};
use super::repository::{ARTIFACTS, Cookbook, Environment, Findings, Lists, Repository, RunLists};
use super::ruby::Script;
use super::tree::{Content, Entry, Kind, Listing, Tree, join};
use crate::error::Result;

/// Larger files are not read. Of JSON, items of data bags with archives in them are the largest.
const LARGEST_JSON: u64 = 16 << 20;
/// Larger than any Ruby that says a few words.
const LARGEST_RUBY: u64 = 1 << 20;
/// Directories beside those with cookbooks.
const DIRECTORIES: [&str; 5] = ["roles", "environments", "data_bags", "nodes", "policies"];
/// Where cookbooks are if nobody says it: where Librarian and others put what they download, `berks vendor`'s place, Chef's own,
/// knife-solo's, and that of `chef export`.
pub const COOKBOOK_PATHS: [&str; 5] = ["vendor/cookbooks", "berks-cookbooks", "cookbooks", "site-cookbooks", ARTIFACTS];
/// Nodes that are not in `nodes`: the usual names of what `chef-solo -j` is given.
const SOLO_FILES: [&str; 3] = ["dna.json", "node.json", "solo.json"];

/// Where a chef-repo is in a work tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Its directory; empty for the root.
    pub path: String,
    /// Where its cookbooks are, from there; `None`: in those of [`COOKBOOK_PATHS`] that are there.
    pub cookbook_paths: Option<Vec<String>>,
}

/// Reads everything.
///
/// # Errors
/// `Device` when the work tree cannot be read, `Interrupted`.
pub fn repository(tree: &Tree<'_>, place: &Place, findings: &mut Findings) -> Result<Repository> {
    let mut reader = Reader { tree, place, findings, repository: Repository::default() };
    let top = match tree.list(&place.path)? {
        Listing::Entries(entries) => entries,
        Listing::Missing => Vec::new(),
        Listing::Elsewhere => {
            (reader.repository.has_other_roles, reader.repository.has_other_cookbooks) = (true, true);
            Vec::new()
        }
    };
    reader.roles()?;
    reader.environments()?;
    reader.data_bags()?;
    reader.nodes(&top)?;
    match &place.cookbook_paths {
        Some(paths) => paths.iter().try_for_each(|path| reader.cookbooks(path, true))?,
        None => COOKBOOK_PATHS.iter().try_for_each(|path| reader.cookbooks(path, false))?,
    }
    reader.other_cookbooks(&top)?;
    reader.repository.is_there |= top.iter().any(|entry| DIRECTORIES.contains(&entry.name.as_str()));
    Ok(reader.repository)
}

/// The names of the roles alone; `None`: they are somewhere that we cannot look at.
///
/// # Errors
/// As for [`repository`].
pub fn role_names(tree: &Tree<'_>, place: &Place) -> Result<Option<BTreeSet<String>>> {
    let files = tree.files_below(&join(&place.path, "roles"))?;
    let name = |(path, _): &(String, Kind)| ending(path).map(|(name, _)| name.to_owned());
    Ok(files.map(|files| files.iter().filter_map(name).collect()))
}

/// What a file is written in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Language {
    Json,
    Ruby,
}

/// The name of a file without its directory and ending, and what it is written in.
fn ending(path: &str) -> Option<(&str, Language)> {
    let name = path.rsplit('/').next()?;
    let (name, language) = match name.strip_suffix(".json") {
        Some(name) => (name, Language::Json),
        None => (name.strip_suffix(".rb")?, Language::Ruby),
    };
    (!name.is_empty()).then_some((name, language))
}

struct Reader<'a> {
    tree: &'a Tree<'a>,
    place: &'a Place,
    findings: &'a mut Findings,
    repository: Repository,
}

impl Reader<'_> {
    fn at(&self, path: &str) -> String {
        join(&self.place.path, path)
    }

    /// Reads a file and hands its text on; `T::default()` for one that is not judged.
    fn file<T: Default>(
        &mut self,
        file: &str,
        language: Language,
        understand: impl FnOnce(Source<'_>, &mut Findings) -> T,
    ) -> Result<T> {
        let largest = if language == Language::Json { LARGEST_JSON } else { LARGEST_RUBY };
        let bytes = match self.tree.read(file, largest)? {
            Content::Bytes(bytes) => bytes,
            Content::Elsewhere => return Ok(T::default()),
            Content::TooLarge => {
                self.findings.warning(file, None, || format!("it is larger than {} MiB and was not read", largest >> 20));
                return Ok(T::default());
            }
        };
        if language == Language::Json {
            return Ok(understand(Source::Json(&bytes), self.findings));
        }
        match Script::read(&String::from_utf8_lossy(&bytes)) {
            Some(script) => Ok(understand(Source::Ruby(&script), self.findings)),
            None => {
                self.repository.unread += 1;
                Ok(T::default())
            }
        }
    }

    /// The files of a directory, without those of its directories.
    fn files(&self, path: &str) -> Result<Vec<(String, Entry)>> {
        let Listing::Entries(entries) = self.tree.list(path)? else { return Ok(Vec::new()) };
        let files = entries.into_iter().filter(|entry| entry.kind == Kind::File);
        Ok(files.map(|entry| (join(path, &entry.name), entry)).collect())
    }

    fn roles(&mut self) -> Result<()> {
        let path = self.at("roles");
        let Some(files) = self.tree.files_below(&path)? else {
            self.repository.has_other_roles = true;
            return Ok(());
        };
        for (place, kind) in files {
            let Some((name, language)) = ending(&place) else { continue };
            let file = join(&path, &place);
            let lists = match kind {
                Kind::File => self.file(&file, language, |source, findings| objects::role(&file, source, findings))?,
                _ => RunLists::new(),
            };
            self.repository.roles.entry(name.to_owned()).or_default().push(Lists { file, lists });
        }
        Ok(())
    }

    fn environments(&mut self) -> Result<()> {
        for (file, entry) in self.files(&self.at("environments"))? {
            let Some((_, language)) = ending(&entry.name) else { continue };
            let pins = self.file(&file, language, |source, findings| objects::environment(&file, source, findings))?;
            self.repository.environments.push(Environment { file, pins });
        }
        Ok(())
    }

    fn data_bags(&mut self) -> Result<()> {
        let path = self.at("data_bags");
        let Listing::Entries(bags) = self.tree.list(&path)? else { return Ok(()) };
        for bag in bags.iter().filter(|bag| bag.kind == Kind::Directory) {
            for (file, entry) in self.files(&join(&path, &bag.name))? {
                let Some((name, Language::Json)) = ending(&entry.name) else { continue };
                self.json(&file, |json, findings| objects::data_bag_item(&file, name, json, findings))?;
                self.repository.items += 1;
            }
        }
        Ok(())
    }

    fn nodes(&mut self, top: &[Entry]) -> Result<()> {
        let solo = top.iter().filter(|entry| entry.kind == Kind::File && SOLO_FILES.contains(&entry.name.as_str()));
        let solo = solo.map(|entry| (self.at(&entry.name), entry.clone()));
        let nodes = self.files(&self.at("nodes"))?.into_iter().chain(solo).collect();
        self.lists(nodes, objects::node)?;
        let policies = self.files(&self.at("policies"))?;
        self.lists(policies, objects::policy)
    }

    fn lists(&mut self, files: Vec<(String, Entry)>, read: fn(&str, &[u8], &mut Findings) -> RunLists) -> Result<()> {
        for (file, entry) in files {
            if let Some((_, Language::Json)) = ending(&entry.name) {
                let lists = self.json(&file, |json, findings| read(&file, json, findings))?;
                self.repository.nodes.push(Lists { file, lists });
            }
        }
        Ok(())
    }

    fn json<T: Default>(&mut self, file: &str, understand: impl FnOnce(&[u8], &mut Findings) -> T) -> Result<T> {
        self.file(file, Language::Json, |source, findings| match source {
            Source::Json(json) => understand(json, findings),
            Source::Ruby(_) => T::default(),
        })
    }

    fn cookbooks(&mut self, path: &str, must_be: bool) -> Result<()> {
        let path = self.at(path);
        let entries = match self.tree.list(&path)? {
            Listing::Entries(entries) => entries,
            Listing::Missing => {
                if must_be {
                    self.findings.error(&path, None, || "there is no such directory: see --cookbook-path".to_owned());
                }
                return Ok(());
            }
            Listing::Elsewhere => {
                self.repository.has_other_cookbooks = true;
                return Ok(());
            }
        };
        self.repository.is_there = true;
        for entry in entries {
            let directory = join(&path, &entry.name);
            let unknown = Cookbook { directory, path: path.clone(), ..Cookbook::default() };
            match entry.kind {
                Kind::File => {}
                Kind::Elsewhere => self.repository.cookbooks.push(unknown),
                Kind::Directory => self.cookbook(unknown)?,
            }
        }
        Ok(())
    }

    /// Cookbooks in places that Chef is not told of: only their names, for a hint.
    fn other_cookbooks(&mut self, top: &[Entry]) -> Result<()> {
        let known = |name: &str| match &self.place.cookbook_paths {
            Some(paths) => paths.iter().any(|path| path == name),
            None => COOKBOOK_PATHS.contains(&name),
        };
        let others = top.iter().filter(|entry| entry.name.contains("cookbooks") && !known(&entry.name));
        for path in others.map(|entry| &entry.name) {
            let Listing::Entries(entries) = self.tree.list(&self.at(path))? else { continue };
            self.repository.is_there = true;
            let directories = entries.into_iter().filter(|entry| entry.kind == Kind::Directory);
            self.repository.other_cookbooks.extend(directories.map(|entry| (entry.name, path.clone())));
        }
        Ok(())
    }

    fn cookbook(&mut self, mut cookbook: Cookbook) -> Result<()> {
        let Listing::Entries(entries) = self.tree.list(&cookbook.directory)? else { return Ok(()) };
        if entries.is_empty() {
            self.repository.empty_directories.insert(cookbook.directory);
            return Ok(());
        }
        let entry = |name: &str| entries.iter().find(|entry| entry.name == name);
        // If both are there, Chef reads the first one.
        for (name, language) in [("metadata.json", Language::Json), ("metadata.rb", Language::Ruby)] {
            let Some(entry) = entry(name) else { continue };
            let file = join(&cookbook.directory, name);
            if entry.kind == Kind::File {
                let Metadata { name, version, needs } =
                    self.file(&file, language, |source, findings| objects::metadata(&file, source, findings))?;
                (cookbook.name, cookbook.version, cookbook.needs) = (name, version, needs);
            }
            cookbook.file = Some(file);
            break;
        }
        let is_elsewhere = entry("recipes").is_some_and(|recipes| recipes.kind == Kind::Elsewhere);
        if !is_elsewhere && let Some(files) = self.tree.files_below(&join(&cookbook.directory, "recipes"))? {
            let mut recipes: BTreeSet<String> = files.iter().filter_map(|(path, _)| recipe(path)).collect();
            // `recipe.rb` beside the metadata is another way to write `recipes/default.rb`.
            recipes.extend(
                entries.iter().filter_map(|entry| recipe(&entry.name)).filter(|name| name == "recipe").map(|_| "default".into()),
            );
            cookbook.recipes = Some(recipes);
        }
        self.repository.cookbooks.push(cookbook);
        Ok(())
    }
}

/// The recipe in a file. YAML recipes came with Chef 16, those in JSON later.
fn recipe(path: &str) -> Option<String> {
    let name = path.rsplit('/').next()?;
    let endings = [".rb", ".yml", ".yaml", ".json"];
    endings.iter().find_map(|ending| name.strip_suffix(ending)).map(str::to_owned)
}
