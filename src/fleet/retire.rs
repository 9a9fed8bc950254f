//! Versions of launch templates and launch configurations that ebs-bake made and that nothing uses any more.

use std::collections::BTreeSet;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::LaunchTemplateErrorCode;

use super::group::{self, Group, Launch};
use super::launch_template::{self, Template};
use super::{Context, instance_refresh, launch_configuration};
use crate::aws::api::Action;
use crate::config::rollout::VersionChoice;
use crate::error::{Error, Kind, Result};
use crate::report::{Change, Phase};

/// The most that DeleteLaunchTemplateVersions takes (API reference).
const AT_ONCE: usize = 200;

/// Deletes what the configuration says, when all else has gone well. A launch template's versions are looked at anew.
///
/// # Errors
/// `Cleanup` for what could not be deleted.
pub async fn retire(cx: &Context, template: Option<(&Template, i64)>) -> Result<()> {
    let keep = cx.config.template.as_ref().and_then(|wanted| wanted.keep);
    let configurations = cx.config.configurations.as_ref().filter(|wanted| wanted.delete_unused);
    if keep.is_none() && configurations.is_none() {
        return Ok(());
    }
    let phase = cx.report.phase(Phase::Retire);
    let groups = group::all(&cx.api).await.map_err(as_cleanup)?;
    let mut deleted = Vec::new();
    if let (Some((template, number)), Some(keep)) = (template, keep) {
        let numbers = delete_versions(cx, template, number, keep, &groups).await.map_err(as_cleanup)?;
        deleted.extend(numbers.iter().map(|number| format!("version {number}")));
    }
    if let Some(wanted) = configurations {
        let in_use = groups.iter().filter_map(|group| group.configuration().map(str::to_owned)).collect();
        let names = launch_configuration::delete_unused(cx, &wanted.prefix, &in_use).await.map_err(as_cleanup)?;
        deleted.extend(names);
    }
    match deleted.is_empty() {
        true => phase.done(Change::Unchanged, "nothing"),
        false => phase.done(Change::Changed, format!("deleted {}", deleted.join(", "))),
    }
    Ok(())
}

/// What was rolled out is good.
fn as_cleanup(error: Error) -> Error {
    let cleanup =
        Error::new(Kind::Cleanup, format!("the snapshot is rolled out, but not all that is old could be deleted: {error}"));
    let cleanup = error.hint_text().map(str::to_owned).into_iter().fold(cleanup, Error::hint);
    match error.causes().first() {
        Some(cause) => cleanup.because(cause.clone()),
        None => cleanup,
    }
}

async fn delete_versions(cx: &Context, template: &Template, now: i64, keep: usize, groups: &[Group]) -> Result<Vec<i64>> {
    let template = launch_template::look(cx, &template.id).await?;
    let mut launches: Vec<Launch> = groups.iter().map(|group| group.launch.clone()).collect();
    // A refresh moves its group at its end.
    for group in groups.iter().filter(|group| !group.versions_of(&template).is_empty()) {
        launches.extend(instance_refresh::underway(&cx.api, &group.name).await?);
    }
    let old = superfluous(&template, now, keep, &launches);
    for numbers in old.chunks(AT_ONCE) {
        let numbers: Vec<String> = numbers.iter().map(i64::to_string).collect();
        let send = |ec2: &Client| {
            ec2.delete_launch_template_versions().launch_template_id(&template.id).set_versions(Some(numbers.clone())).send()
        };
        let answer = cx.api.call(Action::DeleteLaunchTemplateVersions, send).await;
        let doing = || format!("delete versions {} of {}", numbers.join(", "), template.title());
        let answer = answer.map_err(|failure| failure.into_error(doing()))?;
        let failed = answer.unsuccessfully_deleted_launch_template_versions().iter().find_map(|item| {
            let error = item.response_error()?;
            // The answer to an earlier call was lost.
            let is_gone = error.code() == Some(&LaunchTemplateErrorCode::LaunchTemplateVersionDoesNotExist);
            let why = error.message().or(error.code().map(LaunchTemplateErrorCode::as_str)).unwrap_or_default();
            (!is_gone).then(|| format!("version {}: {why}", item.version_number().unwrap_or_default()))
        });
        if let Some(failed) = failed {
            return Err(Error::new(Kind::Fleet, format!("cannot {}: {failed}", doing())));
        }
    }
    Ok(old)
}

/// The versions that ebs-bake made but for the newest ones, and but for those that are the default, the latest, this rollout's,
/// or one that a group has.
fn superfluous(template: &Template, now: i64, keep: usize, launches: &[Launch]) -> Vec<i64> {
    let is_used = |number: i64| {
        let is_followed = [VersionChoice::Default, VersionChoice::Latest]
            .iter()
            .any(|it| template.version(*it).is_some_and(|it| it.number == number));
        number == now || is_followed || launches.iter().any(|launch| launch.names(template, number))
    };
    let ours: Vec<i64> = template.versions.iter().filter(|version| version.is_ours).map(|version| version.number).collect();
    let old: BTreeSet<i64> = ours.iter().rev().skip(keep).copied().collect();
    old.into_iter().filter(|number| !is_used(*number)).collect()
}

#[cfg(test)]
mod tests;
