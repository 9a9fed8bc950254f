//! From a file's text to what it says: roles, environments, nodes, items of data bags, metadata.

use super::json::{self, Event, Step};
use super::repository::{DEFAULT, Findings, Named, Need, RunLists, shortened};
use super::ruby::{Call, Script, Value};
use super::version::{Constraint, Version};

/// The text of a file.
#[derive(Clone, Copy)]
pub enum Source<'s> {
    /// Of one that ends in `.json`.
    Json(&'s [u8]),
    /// Of one that ends in `.rb`.
    Ruby(&'s Script),
}

type Visit<'v, 's> = dyn FnMut(&[Step], Event<'s>, u32, &mut Findings) + 'v;

/// Reads a JSON object, or tells what is wrong with it. Returns whether it is one.
fn object<'s>(file: &str, text: &'s [u8], findings: &mut Findings, visit: &mut Visit<'_, 's>) -> bool {
    let mut is_object = false;
    let read = json::read(text, &mut |path, event, line| {
        is_object |= path.is_empty() && event == Event::Object;
        visit(path, event, line, findings);
    });
    match read {
        Ok(()) if is_object => return true,
        Ok(()) => findings.error(file, Some(1), || "a JSON object is expected".to_owned()),
        Err(problem) => {
            findings.error(file, Some(problem.line), || format!("no valid JSON: column {}: {}", problem.column, problem.what));
        }
    }
    false
}

/// Run lists while they are read.
struct Lists<'f> {
    file: &'f str,
    lists: RunLists,
    environment: Option<String>,
}

impl<'f> Lists<'f> {
    fn new(file: &'f str) -> Self {
        Lists { file, lists: RunLists::new(), environment: None }
    }

    /// The run list of an environment begins: what was said of it before does not count any more.
    fn start(&mut self, environment: &str, findings: &mut Findings) {
        self.environment = findings.named(environment, 0).map(|named| named.name);
        if let Some(environment) = &self.environment {
            self.lists.insert(environment.clone(), Vec::new());
        }
    }

    fn add(&mut self, name: &str, line: u32, findings: &mut Findings) {
        if let Some(list) = self.environment.as_ref().and_then(|environment| self.lists.get_mut(environment)) {
            list.extend(findings.named(name, line));
        }
    }

    /// A JSON value where the list of an environment is expected.
    fn json(&mut self, environment: &str, event: &Event<'_>, line: u32, findings: &mut Findings) {
        match event {
            Event::Array => self.start(environment, findings),
            Event::Null => {}
            Event::Text(text) => {
                self.start(environment, findings);
                self.add(text, line, findings);
            }
            _ => findings.error(self.file, Some(line), || "a run list must be an array".to_owned()),
        }
    }

    /// A JSON value where an entry of the list is expected.
    fn json_entry(&mut self, event: &Event<'_>, line: u32, findings: &mut Findings) {
        match event {
            Event::Text(text) => self.add(text, line, findings),
            // Chef takes {"type": "recipe", "name": "x"} too.
            Event::Object => {}
            _ => findings.error(self.file, Some(line), || "an entry of a run list must be a string".to_owned()),
        }
    }

    /// A value of Ruby: lists in lists are one list, and what is not literal is left out.
    fn ruby(&mut self, value: &Value, findings: &mut Findings) {
        match value {
            Value::Text(text, line) => self.add(text, *line, findings),
            Value::List(values) => values.iter().for_each(|value| self.ruby(value, findings)),
            Value::Hash(_) | Value::Opaque => {}
        }
    }
}

/// A role's run lists.
pub fn role(file: &str, source: Source<'_>, findings: &mut Findings) -> RunLists {
    match source {
        Source::Json(text) => json_lists(file, text, &["run_list", "recipes"], "env_run_lists", findings),
        Source::Ruby(script) => ruby_role(file, script, findings),
    }
}

/// A node's run list.
pub fn node(file: &str, text: &[u8], findings: &mut Findings) -> RunLists {
    json_lists(file, text, &["run_list"], "", findings)
}

/// The run lists of a policy that was exported (`chef export`).
pub fn policy(file: &str, text: &[u8], findings: &mut Findings) -> RunLists {
    json_lists(file, text, &["run_list"], "named_run_lists", findings)
}

fn json_lists(file: &str, text: &[u8], plain: &[&str], by_name: &str, findings: &mut Findings) -> RunLists {
    let mut lists = Lists::new(file);
    let is_plain = |key: &String| plain.contains(&key.as_str());
    let good = object(file, text, findings, &mut |path, event, line, findings| match path {
        [Step::Key(key)] if is_plain(key) => lists.json(DEFAULT, &event, line, findings),
        [Step::Key(key), Step::Element] if is_plain(key) => lists.json_entry(&event, line, findings),
        [Step::Key(key), Step::Key(name)] if key == by_name => lists.json(name, &event, line, findings),
        [Step::Key(key), Step::Key(_), Step::Element] if key == by_name => lists.json_entry(&event, line, findings),
        _ => {}
    });
    if good { lists.lists } else { RunLists::new() }
}

fn ruby_role(file: &str, script: &Script, findings: &mut Findings) -> RunLists {
    let mut lists = Lists::new(file);
    for Call { name, line, arguments } in &script.calls {
        match (name.as_str(), arguments.as_deref()) {
            // Without an argument it only tells.
            ("run_list" | "recipes" | "env_run_lists" | "env_run_list", Some([])) => {}
            ("run_list" | "recipes", Some(values)) => {
                lists.start(DEFAULT, findings);
                values.iter().for_each(|value| lists.ruby(value, findings));
            }
            ("run_list" | "recipes", None) => drop(lists.lists.remove(DEFAULT)),
            ("env_run_lists" | "env_run_list", values) => {
                lists.lists.clear();
                let pairs = hash(values);
                let has_default =
                    |pairs: &[(Value, Value)]| pairs.iter().any(|(key, _)| text(key).is_none_or(|key| key == DEFAULT));
                if pairs.is_some_and(|pairs| !has_default(pairs)) {
                    findings.error(file, Some(*line), || format!("env_run_lists must have a list for {DEFAULT:?}"));
                }
                by_environment(&mut lists, pairs.unwrap_or_default(), findings);
            }
            ("env_run_lists_add" | "env_run_list_add", values) => {
                by_environment(&mut lists, hash(values).unwrap_or_default(), findings);
            }
            _ => {}
        }
    }
    lists.lists
}

fn by_environment(lists: &mut Lists<'_>, pairs: &[(Value, Value)], findings: &mut Findings) {
    for (environment, entries) in pairs {
        if let Some(environment) = text(environment) {
            lists.start(environment, findings);
            lists.ruby(entries, findings);
        }
    }
}

fn text(value: &Value) -> Option<&str> {
    if let Value::Text(text, _) = value { Some(text) } else { None }
}

fn hash(values: Option<&[Value]>) -> Option<&[(Value, Value)]> {
    if let Some([Value::Hash(pairs)]) = values { Some(pairs) } else { None }
}

/// What an environment asks of versions.
pub fn environment(file: &str, source: Source<'_>, findings: &mut Findings) -> Vec<Need> {
    let mut pins = Vec::new();
    match source {
        Source::Json(json) => {
            let good = object(file, json, findings, &mut |path, event, line, findings| {
                if let ([Step::Key(key), Step::Key(cookbook)], Event::Text(wanted)) = (path, event)
                    && key == "cookbook_versions"
                {
                    pins.extend(pin(file, cookbook, &wanted, line, findings));
                }
            });
            if !good {
                pins.clear();
            }
        }
        Source::Ruby(script) => {
            for call in &script.calls {
                match (call.name.as_str(), call.arguments.as_deref()) {
                    ("cookbook", Some([Value::Text(cookbook, _), Value::Text(wanted, line)])) => {
                        pins.extend(pin(file, cookbook, wanted, *line, findings));
                    }
                    ("cookbook_versions", values) => {
                        pins.clear();
                        for pair in hash(values).unwrap_or_default() {
                            if let (Value::Text(cookbook, _), Value::Text(wanted, line)) = pair {
                                pins.extend(pin(file, cookbook, wanted, *line, findings));
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
    }
    pins
}

fn pin(file: &str, cookbook: &str, wanted: &str, line: u32, findings: &mut Findings) -> Option<Need> {
    let constraint = Constraint::parse(wanted).filter(Constraint::fits_environment);
    if constraint.is_none() {
        findings.error(file, Some(line), || no_constraint(wanted));
    }
    Some(Need { cookbook: findings.named(cookbook, line)?, constraint: Some((shortened(wanted), constraint?)) })
}

fn no_constraint(text: &str) -> String {
    format!("{:?} is no version constraint, such as \"~> 1.2\" or \"= 1.2.3\"", shortened(text))
}

/// Checks an item of a data bag; `name` is the file's, without its ending.
pub fn data_bag_item(file: &str, name: &str, json: &[u8], findings: &mut Findings) {
    let (mut plain, mut wrapped): (Option<(Option<String>, u32)>, _) = (None, None);
    let good = object(file, json, findings, &mut |path, event, line, _| {
        let id = match path {
            [Step::Key(key)] if key == "id" => &mut plain,
            // As a server hands items out.
            [Step::Key(key), Step::Key(inner)] if key == "raw_data" && inner == "id" => &mut wrapped,
            _ => return,
        };
        let value = if let Event::Text(text) = event { Some(text.into_owned()) } else { None };
        *id = Some((value, line));
    });
    let is_allowed = |id: &str| !id.is_empty() && id.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'));
    match wrapped.or(plain) {
        _ if !good => {}
        None => findings.error(file, Some(1), || "the item of a data bag has no \"id\"".to_owned()),
        Some((None, line)) => findings.error(file, Some(line), || "the \"id\" must be a string".to_owned()),
        Some((Some(id), line)) if !is_allowed(&id) => {
            let message =
                || format!("the \"id\" {:?} has other characters than letters, digits, '.', '-' and '_'", shortened(&id));
            findings.error(file, Some(line), message);
        }
        Some((Some(id), line)) if id != name => {
            let message = || {
                format!(
                    "the \"id\" is {:?}: Chef's local mode finds the item by the file's name, its legacy mode by this",
                    shortened(&id)
                )
            };
            findings.warning(file, Some(line), message);
        }
        Some(_) => {}
    }
}

/// What a cookbook says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Its name; `None`: not said, or not literally.
    pub name: Option<String>,
    /// Its version; `None`: not known.
    pub version: Option<Version>,
    /// What it depends on.
    pub needs: Vec<Need>,
}

/// A cookbook's metadata.
pub fn metadata(file: &str, source: Source<'_>, findings: &mut Findings) -> Metadata {
    match source {
        Source::Json(json) => json_metadata(file, json, findings),
        Source::Ruby(script) => ruby_metadata(file, script, findings),
    }
}

fn json_metadata(file: &str, json: &[u8], findings: &mut Findings) -> Metadata {
    let mut metadata = Metadata::default();
    let mut has_version = false;
    // Of several constraints for one cookbook Chef takes none. What it cannot read it lets pass here.
    let mut dependencies: Vec<(Named, Vec<String>)> = Vec::new();
    let good = object(file, json, findings, &mut |path, event, line, findings| match (path, event) {
        ([Step::Key(key)], Event::Text(name)) if key == "name" => metadata.name = Some(shortened(&name)),
        ([Step::Key(key)], event) if key == "version" => {
            has_version = true;
            metadata.version = if let Event::Text(version) = event { Version::parse(&version) } else { None };
        }
        ([Step::Key(key), Step::Key(cookbook)], event) if key == "dependencies" => {
            let constraint = if let Event::Text(text) = event { vec![shortened(&text)] } else { Vec::new() };
            dependencies.extend(findings.named(cookbook, line).map(|named| (named, constraint)));
        }
        ([Step::Key(key), Step::Key(_), Step::Element], Event::Text(text)) if key == "dependencies" => {
            if let Some((_, constraints)) = dependencies.last_mut().filter(|(_, constraints)| constraints.len() < 2) {
                constraints.push(shortened(&text));
            }
        }
        _ => {}
    });
    if !good {
        return Metadata::default();
    }
    if !has_version {
        metadata.version = Some(Version::default());
    }
    metadata.needs.extend(dependencies.into_iter().map(|(cookbook, constraints)| {
        let single = if let [single] = constraints.as_slice() { Some(single) } else { None };
        let constraint = single.and_then(|text| Some((text.clone(), Constraint::parse(text)?)));
        Need { cookbook, constraint }
    }));
    metadata
}

fn ruby_metadata(file: &str, script: &Script, findings: &mut Findings) -> Metadata {
    let mut metadata = Metadata::default();
    // One that is literal is a name of it, whatever else may be said.
    let mut names = script
        .calls_of("name")
        .filter_map(|call| if let [Value::Text(name, _)] = call.arguments.as_deref()? { Some(name) } else { None });
    metadata.name = names.next_back().map(|name| shortened(name));
    metadata.version = match script.calls_of("version").next_back() {
        None => script.is_plain.then(Version::default),
        Some(Call { arguments: Some(arguments), .. }) => match arguments.as_slice() {
            [Value::Text(version, line)] => {
                let parsed = Version::parse(version);
                if parsed.is_none() {
                    findings
                        .error(file, Some(*line), || format!("{:?} is no version of two or three numbers", shortened(version)));
                }
                parsed
            }
            _ => None,
        },
        Some(_) => None,
    };
    for call in script.calls_of("depends") {
        let Some([Value::Text(cookbook, line), constraints @ ..]) = call.arguments.as_deref() else { continue };
        let Some(cookbook) = findings.named(cookbook, *line) else { continue };
        let constraint = dependency_constraint(file, call.line, constraints, findings);
        metadata.needs.push(Need { cookbook, constraint });
    }
    metadata
}

fn dependency_constraint(file: &str, line: u32, constraints: &[Value], findings: &mut Findings) -> Option<(String, Constraint)> {
    match constraints {
        [Value::Text(text, line)] => {
            if !Constraint::has_form(text) {
                findings.error(file, Some(*line), || no_constraint(text));
            }
            Some((shortened(text), Constraint::parse(text)?))
        }
        [Value::List(list)] if list.len() < 2 => dependency_constraint(file, line, list, findings),
        [_, _, ..] | [Value::List(_)] => {
            findings.error(file, Some(line), || "depends takes one version constraint".to_owned());
            None
        }
        _ => None,
    }
}
