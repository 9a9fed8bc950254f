//! Launch configurations, which cannot be changed: a rollout copies a group's one with another mapping.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_autoscaling::Client;
use aws_sdk_autoscaling::operation::create_launch_configuration::builders::CreateLaunchConfigurationFluentBuilder;
use aws_sdk_autoscaling::types::LaunchConfiguration;
use sha2::{Digest, Sha256};

use super::{Context, mapping, patiently};
use crate::aws::api::{Action, Api};
use crate::aws::failure::{Class, Failure};
use crate::aws::pages;
use crate::config::rollout::Mapping as Change;
use crate::error::{Error, Kind, Result};
use crate::key::tag;
use crate::report::Change as Done;
use crate::storage::Snapshot;

/// The most that DescribeLaunchConfigurations takes on a page, and in names (API reference).
const PAGE: i32 = 100;
const NAMES: usize = 50;
/// Digits of the commit, and of the hash over everything else, in a name.
const DIGITS: usize = 12;

/// What becomes of a group's launch configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The one that the group has.
    pub source: String,
    /// The one that it gets: the same, if it has the snapshot already.
    pub name: String,
    /// What is new, in words.
    pub differences: Vec<String>,
    /// The one that it gets, in full, but for its name.
    content: LaunchConfiguration,
}

impl Plan {
    /// When the group's one was made, in seconds since 1970.
    pub fn created(&self) -> i64 {
        self.content.created_time().map_or(0, |time| time.secs())
    }

    /// Whether the group's one is as it shall be.
    pub fn is_done(&self) -> bool {
        self.source == self.name
    }
}

/// Decides what a configuration's copy is.
///
/// # Errors
/// Those of [`mapping::change`], and `Usage` for what only launch templates can.
pub fn plan(configuration: &LaunchConfiguration, prefix: &str, change: &Change, snapshot: &Snapshot) -> Result<Plan> {
    let source = name_of(configuration).to_owned();
    if change.initialization_rate.is_some() {
        let message = format!("--fleet-volume-initialization-rate: launch configuration {source} cannot have one");
        return Err(Error::new(Kind::Usage, message).hint("leave it out, or move the group to a launch template"));
    }
    let changed = mapping::change(configuration.block_device_mappings(), change, snapshot)?;
    let mut content = configuration.clone();
    content.block_device_mappings = Some(changed.mappings);
    let name = match changed.differences.is_empty() {
        true => source.clone(),
        false => name(prefix, snapshot, &content),
    };
    Ok(Plan { source, name, differences: changed.differences, content })
}

/// `chef-0123456789ab-<hash>`: equal for equal contents.
fn name(prefix: &str, snapshot: &Snapshot, content: &LaunchConfiguration) -> String {
    let mut content = content.clone();
    (content.launch_configuration_name, content.launch_configuration_arn, content.created_time) = (None, None, None);
    let hash: String = Sha256::digest(format!("{content:?}")).iter().map(|byte| format!("{byte:02x}")).collect();
    let id = snapshot.id.as_str().trim_start_matches("snap-");
    let commit = snapshot.tags.get(tag::COMMIT).map_or(id, String::as_str);
    format!("{prefix}-{commit:.DIGITS$}-{hash:.DIGITS$}")
}

/// Whether it is such a name: others with the prefix are somebody else's.
fn is_ours(name: &str, prefix: &str) -> bool {
    let rest = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-')).and_then(|rest| rest.split_once('-'));
    let is_hex = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    rest.is_some_and(|(commit, hash)| {
        (8..=DIGITS).contains(&commit.len()) && hash.len() == DIGITS && is_hex(commit) && is_hex(hash)
    })
}

fn name_of(configuration: &LaunchConfiguration) -> &str {
    configuration.launch_configuration_name().unwrap_or_default()
}

/// Those of these names that there are.
///
/// # Errors
/// Those of the call.
pub async fn named(cx: &Context, names: &BTreeSet<String>) -> Result<BTreeMap<String, LaunchConfiguration>> {
    let names: Vec<String> = names.iter().cloned().collect();
    let mut found = Vec::new();
    for names in names.chunks(NAMES) {
        found.extend(describe(&cx.api, names).await?);
    }
    Ok(found.into_iter().map(|configuration| (name_of(&configuration).to_owned(), configuration)).collect())
}

/// All of the account in this region.
///
/// # Errors
/// Those of the call.
pub async fn all(api: &Api) -> Result<Vec<LaunchConfiguration>> {
    describe(api, &[]).await
}

async fn describe(api: &Api, names: &[String]) -> Result<Vec<LaunchConfiguration>> {
    let page = |token: Option<String>| async move {
        let send = |scaling: &Client| {
            let request = scaling.describe_launch_configurations().max_records(PAGE).set_next_token(token.clone());
            request.set_launch_configuration_names((!names.is_empty()).then(|| names.to_vec())).send()
        };
        let answer = api.call(Action::DescribeLaunchConfigurations, send).await;
        let answer = answer.map_err(|failure| failure.into_error("look at launch configurations"))?;
        Ok((answer.launch_configurations.unwrap_or_default(), answer.next_token))
    };
    pages(page).await
}

/// Makes the copy, unless it is there: its name says what is in it.
///
/// # Errors
/// `Fleet` for what Auto Scaling refuses.
pub async fn make(cx: &Context, plan: &Plan) -> Result<Done> {
    if !named(cx, &BTreeSet::from([plan.name.clone()])).await?.is_empty() {
        return Ok(Done::Unchanged);
    }
    let send = |scaling: &Client| {
        copy(scaling.create_launch_configuration(), &plan.content).launch_configuration_name(&plan.name).send()
    };
    match patiently(cx, || cx.api.call(Action::CreateLaunchConfiguration, &send)).await? {
        Ok(_) => Ok(Done::Created),
        // By a call whose answer was lost, or by another run.
        Err(failure) if failure.code() == "AlreadyExists" => Ok(Done::Created),
        Err(failure) => Err(failure.into_error(format!("make launch configuration {}", plan.name))),
    }
}

/// Everything that a configuration has but its name. Auto Scaling shows what is not there as empty, and takes no empty values.
fn copy(request: CreateLaunchConfigurationFluentBuilder, of: &LaunchConfiguration) -> CreateLaunchConfigurationFluentBuilder {
    let text = |value: &Option<String>| value.clone().filter(|text| !text.is_empty());
    let list = |values: &Option<Vec<String>>| values.clone().filter(|values| !values.is_empty());
    request
        .set_image_id(text(&of.image_id))
        .set_key_name(text(&of.key_name))
        .set_security_groups(list(&of.security_groups))
        .set_classic_link_vpc_id(text(&of.classic_link_vpc_id))
        .set_classic_link_vpc_security_groups(list(&of.classic_link_vpc_security_groups))
        .set_user_data(text(&of.user_data))
        .set_instance_type(text(&of.instance_type))
        .set_kernel_id(text(&of.kernel_id))
        .set_ramdisk_id(text(&of.ramdisk_id))
        .set_block_device_mappings(of.block_device_mappings.clone())
        .set_instance_monitoring(of.instance_monitoring.clone())
        .set_spot_price(text(&of.spot_price))
        .set_iam_instance_profile(text(&of.iam_instance_profile))
        .set_ebs_optimized(of.ebs_optimized)
        .set_associate_public_ip_address(of.associate_public_ip_address)
        .set_placement_tenancy(text(&of.placement_tenancy))
        .set_metadata_options(of.metadata_options.clone())
}

/// Deletes the copies with the prefix that are not `in_use`; returns their names.
///
/// # Errors
/// `Fleet` for what Auto Scaling refuses.
pub async fn delete_unused(cx: &Context, prefix: &str, in_use: &BTreeSet<String>) -> Result<Vec<String>> {
    let all = all(&cx.api).await?;
    let mut deleted = Vec::new();
    for name in all.iter().map(name_of).filter(|name| is_ours(name, prefix) && !in_use.contains(*name)) {
        let send = |scaling: &Client| scaling.delete_launch_configuration().launch_configuration_name(name).send();
        match patiently(cx, || cx.api.call(Action::DeleteLaunchConfiguration, &send)).await? {
            Ok(_) => deleted.push(name.to_owned()),
            // A group has taken it meanwhile.
            Err(failure) if failure.class() == Class::Conflict => {}
            Err(failure) if is_gone(&failure) => deleted.push(name.to_owned()),
            Err(failure) => return Err(failure.into_error(format!("delete launch configuration {name}"))),
        }
    }
    Ok(deleted)
}

/// What is not there needs no deleting: the answer to the call that did it may have been lost.
fn is_gone(failure: &Failure) -> bool {
    failure.code() == "ValidationError" && failure.message.contains("not found")
}

#[cfg(test)]
mod tests;
