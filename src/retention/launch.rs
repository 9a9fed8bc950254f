//! What launches instances, and from which snapshots: templates, launch configurations, groups. Values in, values out.

use std::collections::{BTreeMap, BTreeSet};

use super::usage::{TemplateVersion, Usage};
use crate::config::rollout::VersionChoice;
use crate::storage::SnapshotId;

/// A version of a launch template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// `lt-0123456789abcdef0`
    pub template_id: String,
    /// The template's name.
    pub template: String,
    /// Its number.
    pub number: i64,
    /// Whether it is the template's default.
    pub default: bool,
    /// The snapshots of its mappings.
    pub snapshots: Vec<SnapshotId>,
}

/// A launch configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// Its name.
    pub name: String,
    /// The snapshots of its mappings.
    pub snapshots: Vec<SnapshotId>,
}

/// An Auto Scaling group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// What it launches: several with a mixed instances policy, or while it is refreshed.
    pub launches: Vec<Launch>,
}

/// What a group launches.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants say what their fields are")]
pub enum Launch {
    /// The launch configuration with this name.
    Configuration(String),
    /// A version of a launch template.
    Template { template: Template, version: VersionChoice },
}

/// A launch template, as a group refers to it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Template {
    /// By its ID.
    Id(String),
    /// By its name.
    Name(String),
}

impl Version {
    fn is_of(&self, template: &Template) -> bool {
        match template {
            Template::Id(id) => self.template_id == *id,
            Template::Name(name) => self.template == *name,
        }
    }

    fn has_any_of(&self, snapshots: &BTreeSet<SnapshotId>) -> bool {
        self.snapshots.iter().any(|id| snapshots.contains(id))
    }
}

/// Versions of a template that have to be asked for beside its default and its latest one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Which template.
    pub template: Template,
    /// From here to there; `None`: all.
    pub range: Option<(i64, i64)>,
}

/// What is left to ask once the default and the latest version of each template are known: all versions of those templates that
/// have one of these snapshots there, and of others what groups launch by number.
pub fn left_to_ask(current: &[Version], groups: &[Group], ours: &BTreeSet<SnapshotId>) -> Vec<Ask> {
    let having = current.iter().filter(|version| version.has_any_of(ours));
    let whole: BTreeSet<&str> = having.map(|version| version.template_id.as_str()).collect();
    let mut ranges: BTreeMap<Template, (i64, i64)> = BTreeMap::new();
    for launch in groups.iter().flat_map(|group| &group.launches) {
        let Launch::Template { template, version: VersionChoice::Number(number) } = launch else { continue };
        let is_known = |version: &Version| version.number == *number || whole.contains(version.template_id.as_str());
        if !current.iter().any(|version| version.is_of(template) && is_known(version)) {
            let (least, most) = ranges.entry(template.clone()).or_insert((*number, *number));
            (*least, *most) = (*number.min(least), *number.max(most));
        }
    }
    let whole = whole.into_iter().map(|id| Ask { template: Template::Id(id.to_owned()), range: None });
    whole.chain(ranges.into_iter().map(|(template, range)| Ask { template, range: Some(range) })).collect()
}

/// The groups that launch from a template which has one of these snapshots: those where an instance refresh may be about one.
pub fn worth_a_look<'a>(current: &[Version], groups: &'a mut [Group], ours: &BTreeSet<SnapshotId>) -> Vec<&'a mut Group> {
    let having: Vec<&Version> = current.iter().filter(|version| version.has_any_of(ours)).collect();
    let is_of_one = |launch: &Launch| match launch {
        Launch::Template { template, .. } => having.iter().any(|version| version.is_of(template)),
        Launch::Configuration(_) => false,
    };
    groups.iter_mut().filter(|group| group.launches.iter().any(is_of_one)).collect()
}

/// Notes which of these snapshots templates, launch configurations and groups refer to. Of each template, the latest of the
/// `versions` is taken for the latest of all.
pub fn note(
    usage: &mut Usage,
    ours: &BTreeSet<SnapshotId>,
    versions: &[Version],
    configurations: &[Configuration],
    groups: &[Group],
) {
    let mut latest: BTreeMap<&str, i64> = BTreeMap::new();
    for version in versions {
        let most = latest.entry(&version.template_id).or_insert(version.number);
        *most = version.number.max(*most);
    }
    let is_latest = |version: &Version| latest.get(version.template_id.as_str()) == Some(&version.number);
    let launches = |version: &Version, launch: &Launch| match launch {
        Launch::Template { template, version: choice } if version.is_of(template) => match choice {
            VersionChoice::Default => version.default,
            VersionChoice::Latest => is_latest(version),
            VersionChoice::Number(number) => version.number == *number,
        },
        _ => false,
    };
    let names_of = |uses: &dyn Fn(&Launch) -> bool| {
        let users = groups.iter().filter(|group| group.launches.iter().any(uses));
        users.map(|group| group.name.clone()).collect::<BTreeSet<String>>()
    };
    for version in versions {
        let is_number = |launch: &Launch| matches!(launch, Launch::Template { version: VersionChoice::Number(_), .. });
        let found = TemplateVersion {
            template_id: version.template_id.clone(),
            template: version.template.clone(),
            number: version.number,
            default: version.default,
            latest: is_latest(version),
            pinned: !names_of(&|launch| is_number(launch) && launches(version, launch)).is_empty(),
        };
        for id in version.snapshots.iter().filter(|id| ours.contains(id)) {
            let users = usage.entry(id);
            users.templates.insert(found.clone());
            users.groups.extend(names_of(&|launch| launches(version, launch)));
        }
    }
    for configuration in configurations {
        for id in configuration.snapshots.iter().filter(|id| ours.contains(id)) {
            let users = usage.entry(id);
            users.configurations.insert(configuration.name.clone());
            users.groups.extend(names_of(&|launch| *launch == Launch::Configuration(configuration.name.clone())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> SnapshotId {
        format!("snap-{number:08x}").parse().unwrap()
    }

    fn ours() -> BTreeSet<SnapshotId> {
        (1..9).map(id).collect()
    }

    /// Version 1 has snapshot 1, and so on; version 2 is the default.
    fn version(template: u32, number: i64) -> Version {
        Version {
            template_id: format!("lt-{template}"),
            template: format!("template-{template}"),
            number,
            default: number == 2,
            snapshots: vec![id(number as u32)],
        }
    }

    fn group(name: &str, launches: &[(Template, &str)]) -> Group {
        let launch = |(template, version): &(Template, &str)| Launch::Template {
            template: template.clone(),
            version: version.parse().unwrap(),
        };
        Group { name: name.into(), launches: launches.iter().map(launch).collect() }
    }

    fn by_id(number: u32) -> Template {
        Template::Id(format!("lt-{number}"))
    }

    fn by_name(number: u32) -> Template {
        Template::Name(format!("template-{number}"))
    }

    #[test]
    fn groups_launch_the_default_the_latest_or_a_number() {
        let versions: Vec<Version> = (1..=4).map(|number| version(1, number)).collect();
        let groups = [
            group("default", &[(by_id(1), "$Default")]),
            group("latest", &[(by_name(1), "$Latest")]),
            group("pinned", &[(by_id(7), "$Latest"), (by_name(1), "3")]),
            group("other", &[(by_id(2), "1")]),
        ];
        let mut usage = Usage::default();
        note(&mut usage, &ours(), &versions, &[], &groups);
        for (number, needs) in [
            (1, vec![]),
            (2, vec!["template template-1 v2 (default)", "group default"]),
            (3, vec!["template template-1 v3 (pinned)", "group pinned"]),
            (4, vec!["template template-1 v4 (latest)", "group latest"]),
        ] {
            assert_eq!(usage.of(&id(number)).needs(), needs, "{number}");
        }
        assert_eq!(usage.of(&id(1)).refers(), ["template template-1 v1 (old)"]);
    }

    #[test]
    fn launch_configurations_are_in_use_with_and_without_a_group() {
        let configuration = |name: &str, number| Configuration { name: name.into(), snapshots: vec![id(number), id(99)] };
        let groups = [Group { name: "web".into(), launches: vec![Launch::Configuration("b".into())] }];
        let mut usage = Usage::default();
        note(&mut usage, &ours(), &[], &[configuration("a", 1), configuration("b", 2)], &groups);
        assert_eq!(usage.of(&id(1)).needs(), ["launch configuration a"]);
        assert_eq!(usage.of(&id(2)).needs(), ["launch configuration b", "group web"]);
        assert_eq!(usage.of(&id(99)).needs(), [""; 0], "not asked for");
    }

    #[test]
    fn only_what_is_not_known_is_asked() {
        let ours = BTreeSet::from([id(1)]);
        // Template 1 has ours, and is asked for all versions; of the others 2 is the default and 5 the latest.
        let current = [version(1, 1), version(2, 2), version(2, 5), version(3, 5)];
        let groups = [
            group("a", &[(by_id(1), "3"), (by_id(2), "5"), (by_id(3), "$Latest")]),
            group("b", &[(by_id(2), "4"), (by_name(3), "1"), (by_id(2), "3")]),
            group("c", &[(by_id(9), "1")]),
        ];
        let expected = [(by_id(1), None), (by_id(2), Some((3, 4))), (by_id(9), Some((1, 1))), (by_name(3), Some((1, 1)))];
        let asked: Vec<_> = left_to_ask(&current, &groups, &ours).into_iter().map(|ask| (ask.template, ask.range)).collect();
        assert_eq!(asked, expected);
        let mut groups = groups;
        let names: Vec<&str> = worth_a_look(&current, &mut groups, &ours).into_iter().map(|group| group.name.as_str()).collect();
        assert_eq!(names, ["a"]);
    }
}
