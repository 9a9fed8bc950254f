//! What a rollout does, decided from what is there and the snapshot. Values in, values out: a dry run makes the very same
//! decisions.

use std::collections::BTreeMap;

use super::Survey;
use super::group::{Group, Target};
use super::launch_template::{self, Template, Version};
use super::{launch_configuration, mapping};
use crate::config::rollout::{Fleet, VersionChoice};
use crate::error::{Error, Kind, Result};
use crate::storage::Snapshot;

/// What is done for a snapshot.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// What machines are launched with before.
    pub before: Vec<Option<String>>,
    /// The launch template, and what becomes of it.
    pub template: Option<(Template, launch_template::Plan)>,
    /// Group → what becomes of its launch configuration.
    pub configurations: BTreeMap<String, launch_configuration::Plan>,
    /// The groups, in the order in which they were named.
    pub groups: Vec<Group>,
    /// What the user should look at.
    pub warnings: Vec<String>,
}

fn refuse<T>(message: String, hint: impl Into<String>) -> Result<T> {
    Err(Error::new(Kind::Usage, message).hint(hint))
}

/// The version that all but the mapping is taken from.
fn source<'a>(template: &'a Template, config: &Fleet) -> Result<&'a Version> {
    let choice = config.template.as_ref().and_then(|wanted| wanted.source);
    template.require(choice.unwrap_or(VersionChoice::Default))
}

/// Refuses what no snapshot could be rolled out to.
///
/// # Errors
/// `Usage`, `Fleet`.
pub(super) fn refuse_what_cannot_be(survey: &Survey, config: &Fleet) -> Result<()> {
    if let Some(template) = &survey.template {
        source(template, config)?;
    }
    survey.groups.iter().try_for_each(|group| match (group.configuration(), &survey.template) {
        (Some(configuration), _) => fits_configuration(group, configuration, survey, config),
        (None, Some(template)) => fits_template(group, template, config),
        (None, None) => {
            let message = format!("group {} is launched from a template, not from a launch configuration", group.name);
            refuse(message, "give --launch-template")
        }
    })
}

fn fits_configuration(group: &Group, configuration: &str, survey: &Survey, config: &Fleet) -> Result<()> {
    if config.configurations.is_none() {
        let message = format!("group {} is launched from launch configuration {configuration}", group.name);
        return refuse(message, "give --launch-configuration-prefix, or move the group to a launch template");
    }
    if !survey.configurations.contains_key(configuration) {
        let message = format!("group {} has launch configuration {configuration}, which is not there", group.name);
        return Err(Error::new(Kind::Fleet, message).hint("run again; if that does not help, give the group another one"));
    }
    if config.refresh.as_ref().is_some_and(|refresh| refresh.auto_rollback) {
        let message = format!("--refresh-auto-rollback: group {} is launched from a launch configuration", group.name);
        return refuse(message, "Auto Scaling rolls back to numbered versions of launch templates only");
    }
    Ok(())
}

fn fits_template(group: &Group, template: &Template, config: &Fleet) -> Result<()> {
    let versions = group.versions_of(template);
    let (name, title) = (&group.name, template.title());
    if versions.is_empty() {
        let others = group.others_than(template).join(", ");
        return refuse(format!("group {name} is launched from launch template {others}, not {title}"), "see --launch-template");
    }
    let follows = versions.iter().find(|version| !matches!(version, VersionChoice::Number(_)));
    let rolls_back = config.refresh.as_ref().is_some_and(|refresh| refresh.auto_rollback);
    if let Some(version) = follows.filter(|_| rolls_back) {
        let message = format!("--refresh-auto-rollback: group {name} follows {version} of {title}");
        return refuse(message, "Auto Scaling rolls back to numbered versions only: pin the group to one");
    }
    let wanted = config.template.as_ref();
    let source = source(template, config)?;
    let is_chosen = wanted.is_some_and(|wanted| wanted.source.is_some());
    for version in versions {
        // What it launches from now may have more than an older version has: an AMI that somebody else rolled out.
        let Some(present) = template.version(version).filter(|_| !is_chosen) else { continue };
        if present.number > source.number && !present.is_alike(source, &config.mapping.device) {
            let (now, from) = (present.number, source.number);
            let message = format!(
                "group {name} is launched from version {now} of {title}, which differs from version {from} in more than {}",
                config.mapping.device
            );
            let hint = format!("--source-version {now} keeps what the group has, --source-version {from} gives it up");
            return refuse(message, hint);
        }
    }
    Ok(())
}

impl Survey {
    /// The snapshots that the groups' machines have that run: others than the groups launch with, if a refresh did not end well.
    pub fn snapshots_of_machines(&self, config: &Fleet) -> Vec<String> {
        let template = self.template.iter();
        let versions = template.flat_map(|template| {
            let numbers = self.groups.iter().flat_map(|group| group.launched_versions(template));
            numbers.filter_map(|number| template.version(VersionChoice::Number(number))).collect::<Vec<_>>()
        });
        versions.filter_map(|version| version.snapshot(&config.mapping.device)).collect()
    }

    /// The snapshots that machines are launched with now: of the groups, or without any, of the template's source version.
    pub fn snapshots(&self, config: &Fleet) -> Vec<Option<String>> {
        let device = &config.mapping.device;
        let mut snapshots = Vec::new();
        for group in &self.groups {
            if let Some(configuration) = group.configuration().and_then(|name| self.configurations.get(name)) {
                snapshots.push(mapping::snapshot(configuration.block_device_mappings(), device));
            }
            if let Some(template) = &self.template {
                let versions = group.versions_of(template);
                snapshots.extend(versions.into_iter().filter_map(|it| template.version(it)).map(|it| it.snapshot(device)));
            }
        }
        if self.groups.is_empty()
            && let Some(source) = self.template.as_ref().and_then(|template| source(template, config).ok())
        {
            snapshots.push(source.snapshot(device));
        }
        snapshots
    }
}

/// Decides what is done for this snapshot.
///
/// # Errors
/// `Usage` for what cannot be.
pub fn plan(survey: &Survey, config: &Fleet, snapshot: Snapshot) -> Result<Plan> {
    let template = survey.template.as_ref().map(|template| plan_template(survey, template, config, &snapshot)).transpose()?;
    let mut configurations = BTreeMap::new();
    for group in &survey.groups {
        let present = group.configuration().and_then(|name| survey.configurations.get(name));
        if let (Some(present), Some(wanted)) = (present, &config.configurations) {
            let plan = launch_configuration::plan(present, &wanted.prefix, &config.mapping, &snapshot)?;
            configurations.insert(group.name.clone(), plan);
        }
    }
    let before = survey.snapshots(config);
    let warnings = warnings(survey, config, template.as_ref());
    Ok(Plan { snapshot, before, template, configurations, groups: survey.groups.clone(), warnings })
}

fn plan_template(
    survey: &Survey,
    template: &Template,
    config: &Fleet,
    snapshot: &Snapshot,
) -> Result<(Template, launch_template::Plan)> {
    let followers = survey.groups.iter().map(|group| (group, group.versions_of(template)));
    let followers: Vec<(&Group, VersionChoice)> =
        followers.flat_map(|(group, versions)| versions.into_iter().map(move |version| (group, version))).collect();
    let in_use: Vec<i64> = followers.iter().filter_map(|(_, it)| template.version(*it)).map(|it| it.number).collect();
    let follows_latest = followers.iter().any(|(_, version)| *version == VersionChoice::Latest);
    let source = source(template, config)?;
    let plan = launch_template::plan(template, source, &config.mapping, snapshot, &in_use, follows_latest)?;
    let sets_default = config.template.as_ref().is_some_and(|wanted| wanted.set_default);
    let stays = plan.present != Some(template.default().number) && !sets_default;
    if let Some((group, _)) = followers.iter().find(|(_, version)| *version == VersionChoice::Default && stays) {
        let default = template.default().number;
        let message = format!("group {} follows the default version of {}, which stays {default}", group.name, template.title());
        return refuse(message, "give --set-default, or pin the group to a version");
    }
    Ok((template.clone(), plan))
}

fn warnings(survey: &Survey, config: &Fleet, planned: Option<&(Template, launch_template::Plan)>) -> Vec<String> {
    let Some((template, plan)) = planned else { return Vec::new() };
    let mut warnings = Vec::new();
    let (latest, source) = (template.latest(), template.version(VersionChoice::Number(plan.source)));
    let device = &config.mapping.device;
    if plan.present.is_none() && source.is_some_and(|source| !latest.is_alike(source, device)) {
        warnings.push(format!(
            "version {} of {}, the latest, differs from version {} in more than {device}: what follows $Latest gets the new version, \
             which is made from version {}",
            latest.number,
            template.title(),
            plan.source,
            plan.source
        ));
    }
    if let Some(present) = plan.present.filter(|present| *present != latest.number) {
        warnings.push(format!(
            "version {present} of {} has the snapshot already; what follows $Latest is launched from version {}",
            template.title(),
            latest.number
        ));
    }
    for group in &survey.groups {
        let present = group.versions_of(template).into_iter().filter_map(|version| template.version(version));
        let older = present.filter(|present| present.number < plan.source);
        for present in older.filter(|present| source.is_some_and(|source| !present.is_alike(source, device))) {
            warnings.push(format!(
                "group {} also gets what else version {} has beside its present version {}",
                group.name, plan.source, present.number
            ));
        }
        for other in group.others_than(template).iter().filter(|_| group.configuration().is_none()) {
            warnings.push(format!("group {} is also launched from launch template {other}: roll out to that too", group.name));
        }
    }
    warnings
}

impl Plan {
    /// What [`super::apply`] would do, in the order in which it would.
    pub fn steps(&self, config: &Fleet) -> Vec<String> {
        let mut steps = Vec::new();
        // For the groups, a version that has no number yet.
        let mut number = 0;
        if let Some((template, plan)) = &self.template {
            let (title, from) = (template.title(), plan.source);
            number = plan.present.unwrap_or(template.latest().number + 1);
            match plan.present {
                Some(number) => steps.push(format!("take version {number} of {title}, which has {}", self.snapshot.id)),
                None => {
                    steps.push(format!(
                        "make a version of {title} from version {from}, {}",
                        self.difference(&plan.differences, config)
                    ));
                }
            }
            if config.template.as_ref().is_some_and(|wanted| wanted.set_default) && template.default().number != number {
                steps.push(format!("make it the default version, which is {}", template.default().number));
            }
        }
        for (group, plan) in &self.configurations {
            match plan.is_done() {
                true => steps
                    .push(format!("leave launch configuration {} of group {group}, which has {}", plan.name, self.snapshot.id)),
                false => steps.push(format!(
                    "make launch configuration {} from {}, {}",
                    plan.name,
                    plan.source,
                    self.difference(&plan.differences, config)
                )),
            }
        }
        steps.extend(self.groups.iter().flat_map(|group| self.group_steps(group, number, config)));
        steps.extend(retirements(config));
        steps
    }

    fn difference(&self, differences: &[String], config: &Fleet) -> String {
        format!("with another {}: {}", config.mapping.device, differences.join(", "))
    }

    fn group_steps(&self, group: &Group, number: i64, config: &Fleet) -> Vec<String> {
        let configuration = self.configurations.get(&group.name);
        let target = match (configuration, &self.template) {
            (Some(plan), _) => Target::Configuration(&plan.name),
            (None, Some((template, _))) => Target::Template(template, number),
            (None, None) => return Vec::new(),
        };
        let name = &group.name;
        let follows = self.template.iter().flat_map(|(template, _)| group.versions_of(template));
        let follows: Vec<String> = follows.map(|version| version.to_string()).collect();
        let mut steps = vec![match (group.moved(target), configuration) {
            (Some(_), Some(plan)) => format!("move group {name} to {}", plan.name),
            (Some(_), None) => format!("move group {name} to it from {}", follows.join(", ")),
            (None, Some(plan)) => format!("leave group {name}, which has {}", plan.name),
            (None, None) => format!("leave group {name}, which is launched from {}", follows.join(", ")),
        }];
        let stale = group.stale(target);
        match &config.refresh {
            Some(refresh) if stale > 0 || refresh.all => {
                steps.push(format!("replace its machines ({stale} without the snapshot)"))
            }
            Some(_) => steps.push(format!("replace no machine of {name}: all have the snapshot")),
            None => {}
        }
        steps
    }
}

fn retirements(config: &Fleet) -> Vec<String> {
    let keep = config.template.as_ref().and_then(|wanted| wanted.keep);
    let versions = keep.map(|keep| format!("delete what ebs-bake made and nothing uses but for the newest {keep} versions"));
    let configurations = config.configurations.as_ref().filter(|wanted| wanted.delete_unused);
    let configurations =
        configurations.map(|wanted| format!("delete the copies with prefix {} that no group uses", wanted.prefix));
    versions.into_iter().chain(configurations).collect()
}
