//! Auto Scaling groups: what they launch machines from, and the machines that they have.

use aws_sdk_autoscaling::Client;
use aws_sdk_autoscaling::types::{AutoScalingGroup, LaunchTemplateSpecification, LifecycleState, MixedInstancesPolicy};

use super::launch_template::Template;
use super::{Context, patiently};
use crate::aws::api::{Action, Api};
use crate::aws::pages;
use crate::config::rollout::VersionChoice;
use crate::error::{Error, Kind, Result};

/// The most that DescribeAutoScalingGroups takes (API reference).
const PAGE: i32 = 100;

/// A group.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// What it launches machines from.
    pub launch: Launch,
    /// What each of its machines was launched from.
    instances: Vec<Launched>,
}

/// What a group launches machines from.
#[derive(Debug, Clone, PartialEq)]
pub enum Launch {
    /// The launch configuration of this name.
    Configuration(String),
    /// A version of a launch template.
    Template(LaunchTemplateSpecification),
    /// A policy, which has one launch template or several.
    Mixed(Box<MixedInstancesPolicy>),
}

/// What a machine was launched from.
#[derive(Debug, Clone, PartialEq)]
enum Launched {
    Configuration(String),
    Template(LaunchTemplateSpecification),
    Unknown,
}

/// What machines shall be launched from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target<'a> {
    /// The launch configuration of this name.
    Configuration(&'a str),
    /// This version of the template.
    Template(&'a Template, i64),
}

impl Group {
    pub(super) fn of(group: AutoScalingGroup) -> Option<Group> {
        let launch = match (group.mixed_instances_policy, group.launch_template, group.launch_configuration_name) {
            (Some(policy), ..) => Launch::Mixed(Box::new(policy)),
            (None, Some(template), _) => Launch::Template(template),
            (None, None, Some(name)) => Launch::Configuration(name),
            (None, None, None) => return None,
        };
        let instances = group.instances.unwrap_or_default().into_iter();
        // Those on their way out are replaced already.
        let stays = |state: Option<&LifecycleState>| {
            let leaves = ["Terminat", "Detach"];
            state.is_none_or(|state| !leaves.iter().any(|prefix| state.as_str().starts_with(prefix)))
        };
        let instances = instances.filter(|it| stays(it.lifecycle_state.as_ref())).map(|it| {
            match (it.launch_template, it.launch_configuration_name) {
                (Some(template), _) => Launched::Template(template),
                (None, Some(name)) => Launched::Configuration(name),
                (None, None) => Launched::Unknown,
            }
        });
        Some(Group { name: group.auto_scaling_group_name?, launch, instances: instances.collect() })
    }

    /// The launch configuration, if it has one.
    pub fn configuration(&self) -> Option<&str> {
        match &self.launch {
            Launch::Configuration(name) => Some(name),
            _ => None,
        }
    }

    /// The versions of the template that it names; empty: it uses another one.
    pub fn versions_of(&self, template: &Template) -> Vec<VersionChoice> {
        self.launch.specifications().into_iter().filter(|spec| is_of(spec, template)).map(version).collect()
    }

    /// The names of other launch templates that it uses beside this one.
    pub fn others_than(&self, template: &Template) -> Vec<String> {
        let others = self.launch.specifications().into_iter().filter(|spec| !is_of(spec, template));
        let name = |spec: &LaunchTemplateSpecification| spec.launch_template_name.clone().or(spec.launch_template_id.clone());
        let mut names: Vec<String> = others.filter_map(name).collect();
        names.sort();
        names.dedup();
        names
    }

    /// How it would launch if it were moved to the target; `None`: it does so already. What follows `$Latest` or `$Default` is
    /// left alone.
    pub fn moved(&self, target: Target<'_>) -> Option<Launch> {
        let mut launch = self.launch.clone();
        match (&mut launch, target) {
            (Launch::Configuration(name), Target::Configuration(wanted)) => wanted.clone_into(name),
            (launch, Target::Template(template, number)) => {
                let pinned = |spec: &&mut LaunchTemplateSpecification| {
                    is_of(spec, template) && matches!(version(spec), VersionChoice::Number(_))
                };
                for spec in launch.specifications_mut().into_iter().filter(pinned) {
                    spec.version = Some(number.to_string());
                }
            }
            _ => {}
        }
        (launch != self.launch).then_some(launch)
    }

    /// The versions of the template that its machines were launched from.
    pub fn launched_versions(&self, template: &Template) -> Vec<i64> {
        let number = |launched: &Launched| match launched {
            Launched::Template(spec) if is_of(spec, template) => spec.version()?.parse().ok(),
            _ => None,
        };
        self.instances.iter().filter_map(number).collect()
    }

    /// How many of its machines were launched from something else. Those of other templates are not counted.
    pub fn stale(&self, target: Target<'_>) -> usize {
        let is_stale = |launched: &&Launched| match (launched, target) {
            (Launched::Configuration(name), Target::Configuration(wanted)) => name != wanted,
            (Launched::Template(spec), Target::Template(template, number)) => {
                let another = self.launch.specifications().iter().any(|it| !is_of(it, template) && same_template(it, spec));
                !another && (!is_of(spec, template) || spec.version() != Some(number.to_string().as_str()))
            }
            _ => true,
        };
        self.instances.iter().filter(is_stale).count()
    }
}

impl Launch {
    /// The versions of launch templates that it names.
    pub fn specifications(&self) -> Vec<&LaunchTemplateSpecification> {
        match self {
            Launch::Configuration(_) => Vec::new(),
            Launch::Template(spec) => vec![spec],
            Launch::Mixed(policy) => {
                let template = policy.launch_template();
                let own = template.and_then(|it| it.launch_template_specification());
                let overrides = template.map(|it| it.overrides()).unwrap_or_default();
                own.into_iter().chain(overrides.iter().filter_map(|it| it.launch_template_specification())).collect()
            }
        }
    }

    fn specifications_mut(&mut self) -> Vec<&mut LaunchTemplateSpecification> {
        match self {
            Launch::Configuration(_) => Vec::new(),
            Launch::Template(spec) => vec![spec],
            Launch::Mixed(policy) => {
                let Some(template) = policy.launch_template.as_mut() else { return Vec::new() };
                let own = template.launch_template_specification.as_mut();
                let overrides = template.overrides.iter_mut().flatten();
                own.into_iter().chain(overrides.filter_map(|it| it.launch_template_specification.as_mut())).collect()
            }
        }
    }

    /// The same in the form in which Auto Scaling takes it: it shows ID and name of a template, and takes one of them.
    pub fn as_request(&self) -> Launch {
        let mut launch = self.clone();
        for spec in launch.specifications_mut() {
            if spec.launch_template_id.is_some() {
                spec.launch_template_name = None;
            }
        }
        launch
    }

    /// Whether a version of the template is named by its number.
    pub fn names(&self, template: &Template, number: i64) -> bool {
        self.specifications().into_iter().any(|spec| is_of(spec, template) && version(spec) == VersionChoice::Number(number))
    }
}

fn is_of(spec: &LaunchTemplateSpecification, template: &Template) -> bool {
    match spec.launch_template_id() {
        Some(id) => id == template.id,
        None => spec.launch_template_name() == Some(template.name.as_str()),
    }
}

fn same_template(one: &LaunchTemplateSpecification, other: &LaunchTemplateSpecification) -> bool {
    match (one.launch_template_id(), other.launch_template_id()) {
        (Some(one), Some(other)) => one == other,
        _ => one.launch_template_name() == other.launch_template_name(),
    }
}

/// Without a version `$Default` is meant (API reference, LaunchTemplateSpecification).
pub fn version(spec: &LaunchTemplateSpecification) -> VersionChoice {
    spec.version().and_then(|version| version.parse().ok()).unwrap_or(VersionChoice::Default)
}

/// The groups of these names, in this order.
///
/// # Errors
/// `Fleet` for one that is not there.
pub async fn named(cx: &Context, names: &[String]) -> Result<Vec<Group>> {
    let mut found = Vec::new();
    // More names in one call than groups on one page would come in pages.
    for names in names.chunks(PAGE as usize) {
        found.extend(describe(&cx.api, names).await?);
    }
    let group = |name: &String| {
        let group = found.iter().find(|group| group.name == *name).cloned();
        group.ok_or_else(|| {
            let message = format!("there is no Auto Scaling group {name} in this region");
            Error::new(Kind::Fleet, message).hint("see --auto-scaling-group and --region")
        })
    };
    names.iter().map(group).collect()
}

/// All groups of the account in this region.
///
/// # Errors
/// Those of the call.
pub async fn all(api: &Api) -> Result<Vec<Group>> {
    describe(api, &[]).await
}

async fn describe(api: &Api, names: &[String]) -> Result<Vec<Group>> {
    let page = |token: Option<String>| async move {
        let send = |scaling: &Client| {
            let request = scaling.describe_auto_scaling_groups().max_records(PAGE).set_next_token(token.clone());
            let names = (!names.is_empty()).then(|| names.to_vec());
            request.set_auto_scaling_group_names(names).send()
        };
        let answer = api.call(Action::DescribeAutoScalingGroups, send).await;
        let answer = answer.map_err(|failure| failure.into_error("look at Auto Scaling groups"))?;
        Ok((answer.auto_scaling_groups.unwrap_or_default(), answer.next_token))
    };
    Ok(pages(page).await?.into_iter().filter_map(Group::of).collect())
}

/// Lets a group launch machines so from now on.
///
/// # Errors
/// `Fleet` for what Auto Scaling refuses.
pub async fn update(cx: &Context, name: &str, launch: &Launch) -> Result<()> {
    let launch = launch.as_request();
    let send = |scaling: &Client| {
        let request = scaling.update_auto_scaling_group().auto_scaling_group_name(name);
        match launch.clone() {
            Launch::Configuration(configuration) => request.launch_configuration_name(configuration),
            Launch::Template(spec) => request.launch_template(spec),
            Launch::Mixed(policy) => request.mixed_instances_policy(*policy),
        }
        .send()
    };
    let answer = patiently(cx, || cx.api.call(Action::UpdateAutoScalingGroup, &send)).await?;
    answer.map(drop).map_err(|failure| failure.into_error(format!("move Auto Scaling group {name}")))
}

#[cfg(test)]
mod tests;
