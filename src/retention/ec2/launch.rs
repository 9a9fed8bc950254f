//! Templates, launch configurations and groups, as the APIs tell them.

use std::collections::BTreeSet;

use aws_sdk_autoscaling::types::{LaunchConfiguration, LaunchTemplateSpecification};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::LaunchTemplateVersion;

use super::snapshots;
use crate::aws::api::{Action, Api};
use crate::aws::failure::Class;
use crate::aws::pages;
use crate::error::Result;
use crate::fleet::{group, instance_refresh, launch_configuration};
use crate::retention::launch::{self, Ask, Configuration, Group, Launch, Template, Version};
use crate::retention::usage::{Lookup, Usage};
use crate::storage::SnapshotId;

/// On one page: the most that DescribeLaunchTemplateVersions takes.
const VERSIONS: i32 = 200;

/// What launches instances, as far as it could be found out.
pub(super) struct Launchers {
    versions: Result<Vec<Version>>,
    configurations: Result<Vec<Configuration>>,
    groups: Result<Vec<Group>>,
}

impl Launchers {
    pub(super) fn note(self, usage: &mut Usage, ours: &BTreeSet<SnapshotId>) {
        fn found<T>(result: &Result<Vec<T>>) -> &[T] {
            result.as_deref().unwrap_or_default()
        }
        launch::note(usage, ours, found(&self.versions), found(&self.configurations), found(&self.groups));
        usage.add(Lookup::Templates, self.versions, |_, _| {});
        usage.add(Lookup::Configurations, self.configurations, |_, _| {});
        usage.add(Lookup::Groups, self.groups, |_, _| {});
    }
}

/// Asks for the default and latest versions of all templates, all launch configurations and all groups, and then for what is left.
pub(super) async fn launchers(api: &Api, ours: &BTreeSet<SnapshotId>) -> Launchers {
    let (current, configurations, groups) = tokio::join!(current_versions(api), configurations(api), groups(api));
    let groups = match (groups, &current) {
        (Ok(groups), Ok(current)) => with_refreshes(api, groups, current, ours).await,
        (groups, _) => groups,
    };
    let versions = match current {
        Ok(current) => all_versions(api, current, groups.as_deref().unwrap_or_default(), ours).await,
        Err(error) => Err(error),
    };
    Launchers { versions, configurations, groups }
}

async fn current_versions(api: &Api) -> Result<Vec<Version>> {
    let page = |token: Option<String>| async move {
        let send = |ec2: &Client| {
            let request = ec2.describe_launch_template_versions().versions("$Default").versions("$Latest");
            request.max_results(VERSIONS).set_next_token(token.clone()).send()
        };
        let answer = api.call(Action::DescribeLaunchTemplateVersions, send).await;
        let answer = answer.map_err(|failure| failure.into_error("look for launch templates"))?;
        Ok((answer.launch_template_versions.unwrap_or_default(), answer.next_token))
    };
    Ok(pages(page).await?.into_iter().filter_map(version).collect())
}

async fn all_versions(api: &Api, current: Vec<Version>, groups: &[Group], ours: &BTreeSet<SnapshotId>) -> Result<Vec<Version>> {
    let mut versions = current;
    for ask in launch::left_to_ask(&versions, groups, ours) {
        versions.extend(asked_for(api, &ask).await?);
    }
    Ok(versions)
}

/// Versions of one template. None, if it was deleted: groups may still refer to it.
async fn asked_for(api: &Api, ask: &Ask) -> Result<Vec<Version>> {
    let (id, name) = match ask.template.clone() {
        Template::Id(id) => (Some(id), None),
        Template::Name(name) => (None, Some(name)),
    };
    // "After which" and "up to which" (API reference, DescribeLaunchTemplateVersions).
    let after = ask.range.map(|(least, _)| least - 1).filter(|after| *after > 0).map(|after| after.to_string());
    let up_to = ask.range.map(|(_, most)| most.to_string());
    let (id, name, after, up_to) = (&id, &name, &after, &up_to);
    let page = |token: Option<String>| async move {
        let send = |ec2: &Client| {
            let request = ec2.describe_launch_template_versions();
            let request = request.set_launch_template_id(id.clone()).set_launch_template_name(name.clone());
            let request = request.set_min_version(after.clone()).set_max_version(up_to.clone());
            request.max_results(VERSIONS).set_next_token(token.clone()).send()
        };
        match api.call(Action::DescribeLaunchTemplateVersions, send).await {
            Ok(answer) => Ok((answer.launch_template_versions.unwrap_or_default(), answer.next_token)),
            Err(failure) if failure.class() == Class::NotFound => Ok((Vec::new(), None)),
            Err(failure) => Err(failure.into_error("look at the versions of a launch template")),
        }
    };
    Ok(pages(page).await?.into_iter().filter_map(version).collect())
}

fn version(version: LaunchTemplateVersion) -> Option<Version> {
    let data = version.launch_template_data.as_ref();
    let mappings = data.map(|data| data.block_device_mappings()).unwrap_or_default();
    Some(Version {
        snapshots: snapshots(mappings.iter().filter_map(|mapping| mapping.ebs()?.snapshot_id())),
        template_id: version.launch_template_id?,
        template: version.launch_template_name?,
        number: version.version_number?,
        default: version.default_version == Some(true),
    })
}

async fn configurations(api: &Api) -> Result<Vec<Configuration>> {
    Ok(launch_configuration::all(api).await?.into_iter().filter_map(configuration).collect())
}

fn configuration(configuration: LaunchConfiguration) -> Option<Configuration> {
    let mappings = configuration.block_device_mappings().iter();
    let snapshots = snapshots(mappings.filter_map(|mapping| mapping.ebs()?.snapshot_id()));
    Some(Configuration { snapshots, name: configuration.launch_configuration_name? })
}

async fn groups(api: &Api) -> Result<Vec<Group>> {
    let group = |it: group::Group| Group { launches: launches(&it.launch), name: it.name };
    Ok(group::all(api).await?.into_iter().map(group).collect())
}

/// What is launched: from a template, from the templates of a policy, or by a launch configuration.
fn launches(launch: &group::Launch) -> Vec<Launch> {
    match launch {
        group::Launch::Configuration(name) => vec![Launch::Configuration(name.clone())],
        launch => launch.specifications().into_iter().filter_map(of_template).collect(),
    }
}

fn of_template(specification: &LaunchTemplateSpecification) -> Option<Launch> {
    let id = specification.launch_template_id().map(|id| Template::Id(id.to_owned()));
    let template = id.or_else(|| specification.launch_template_name().map(|name| Template::Name(name.to_owned())))?;
    Some(Launch::Template { template, version: group::version(specification) })
}

/// The groups, with what instance refreshes that go on shall have them launch.
async fn with_refreshes(
    api: &Api,
    mut groups: Vec<Group>,
    current: &[Version],
    ours: &BTreeSet<SnapshotId>,
) -> Result<Vec<Group>> {
    for group in launch::worth_a_look(current, &mut groups, ours) {
        let underway = instance_refresh::underway(api, &group.name).await?;
        group.launches.extend(underway.iter().flat_map(launches));
    }
    Ok(groups)
}
