//! Instance refreshes: started once, or taken over from whoever started it, and followed.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_autoscaling::Client;
use aws_sdk_autoscaling::types::{DesiredConfiguration, InstanceRefresh, InstanceRefreshStatus as Status, RefreshPreferences};

use super::group::Launch;
use super::{Context, patiently};
use crate::aws::api::{Action, Api};
use crate::aws::failure::Failure;
use crate::config::rollout::Refresh as Wishes;
use crate::error::{Error, Kind, Result};
use crate::report::{Change, Phase, RunningPhase, Unit};
use crate::wait::{Pace, Pauses};

/// Machines are replaced in minutes. Of calls that describe, Auto Scaling takes many a second.
const PACE: Pace = Pace { first: Duration::from_secs(2), factor: 1.5, longest: Duration::from_secs(15) };

/// A refresh that is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct Wish {
    /// The group's name.
    pub group: String,
    /// What it is moved to, when all machines are replaced; `None`: it has been, or follows a template's version.
    pub desired: Option<DesiredConfiguration>,
    /// Whether machines that have it already stay.
    pub skip_matching: bool,
    /// Since when (seconds since 1970) the group has launched machines so; `None`: for this very moment.
    pub since: Option<i64>,
}

/// A refresh that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// The group's name.
    pub group: String,
    /// The refresh's ID.
    pub id: String,
}

/// The refreshes of groups whose turn it is not yet.
#[derive(Debug, Default)]
pub struct Others(BTreeSet<String>);

/// Whose turn it is.
#[derive(Debug)]
pub enum Turn {
    /// No refresh runs.
    Ours,
    /// None does any more.
    Waited,
    /// One for the same configuration does.
    Taken(Running),
}

/// Waits until the group has no other refresh running. One for the same configuration is taken over.
///
/// # Errors
/// `Fleet`, when that takes too long.
pub async fn turn(cx: &Context, wish: &Wish, others: &mut Others) -> Result<Turn> {
    let mut waited = false;
    let mut pauses = Pauses::new(PACE, cx.config.wait_timeout);
    loop {
        let Some(active) = describe(&cx.api, &wish.group, None).await?.into_iter().find(is_active) else {
            return Ok(if waited { Turn::Waited } else { Turn::Ours });
        };
        let id = active.instance_refresh_id().unwrap_or_default().to_owned();
        if !others.0.contains(&id) && is_for(&active, wish) {
            return Ok(Turn::Taken(Running { group: wish.group.clone(), id }));
        }
        waited = true;
        if others.0.insert(id.clone()) {
            let status = status(&active);
            cx.report.note(format!(
                "group {}: instance refresh {id} is {status}, for another configuration; waiting for its end",
                wish.group
            ));
        }
        if !pauses.pause(&cx.cancel, std::future::pending()).await? {
            let message = format!("group {}: instance refresh {id} of another configuration did not end in time", wish.group);
            return Err(Error::new(Kind::Fleet, message).hint("run again later, cancel that one, or raise --wait-timeout"));
        }
    }
}

/// Starts it, or takes over the one that a call without an answer, or another run, has started meanwhile.
///
/// # Errors
/// `Fleet` for what Auto Scaling refuses.
pub async fn start(cx: &Context, wishes: &Wishes, wish: &Wish, others: &mut Others) -> Result<Running> {
    let preferences = preferences(wishes, wish.skip_matching);
    let mut pauses = Pauses::new(PACE, cx.config.wait_timeout);
    loop {
        let send = |scaling: &Client| {
            let request = scaling.start_instance_refresh().auto_scaling_group_name(&wish.group);
            request.set_desired_configuration(wish.desired.clone()).preferences(preferences.clone()).send()
        };
        let failure: Failure = match patiently(cx, || cx.api.call(Action::StartInstanceRefresh, &send)).await? {
            Ok(answer) => {
                let id = answer.instance_refresh_id().unwrap_or_default().to_owned();
                return Ok(Running { group: wish.group.clone(), id });
            }
            Err(failure) => failure,
        };
        let in_progress = failure.code() == "InstanceRefreshInProgress";
        if !in_progress || !pauses.pause(&cx.cancel, std::future::pending()).await? {
            return Err(failure.into_error(format!("start an instance refresh of group {}", wish.group)));
        }
        // None ran when it was our turn: it is younger than the configuration.
        let young = Wish { since: Some(i64::MIN), ..wish.clone() };
        if let Turn::Taken(running) = turn(cx, &young, others).await? {
            return Ok(running);
        }
    }
}

fn preferences(wishes: &Wishes, skip_matching: bool) -> RefreshPreferences {
    let seconds = |time: Option<Duration>| time.map(|time| i32::try_from(time.as_secs()).unwrap_or(i32::MAX));
    let percentages = wishes.checkpoints.iter().map(|percent| i32::from(*percent)).collect::<Vec<_>>();
    RefreshPreferences::builder()
        .set_min_healthy_percentage(wishes.min_healthy.map(i32::from))
        .set_max_healthy_percentage(wishes.max_healthy.map(i32::from))
        .set_instance_warmup(seconds(wishes.warmup))
        .set_skip_matching(skip_matching.then_some(true))
        .set_auto_rollback(wishes.auto_rollback.then_some(true))
        .set_checkpoint_percentages((!percentages.is_empty()).then_some(percentages))
        .set_checkpoint_delay(seconds(wishes.checkpoint_delay))
        .build()
}

/// What a group is moved to.
pub fn desired(launch: &Launch) -> Option<DesiredConfiguration> {
    let builder = DesiredConfiguration::builder();
    Some(match launch.as_request() {
        Launch::Configuration(_) => return None,
        Launch::Template(spec) => builder.launch_template(spec).build(),
        Launch::Mixed(policy) => builder.mixed_instances_policy(*policy).build(),
    })
}

pub(super) fn is_for(refresh: &InstanceRefresh, wish: &Wish) -> bool {
    let goes_on = matches!(refresh.status(), Some(Status::Pending | Status::InProgress | Status::Baking));
    let began = refresh.start_time().map_or(i64::MIN, |time| time.secs());
    goes_on
        && match (&refresh.desired_configuration, &wish.desired) {
            (Some(theirs), Some(ours)) => as_requested(theirs) == *ours,
            (None, None) => wish.since.is_some_and(|since| began >= since),
            _ => false,
        }
}

/// ID and name of a template may both be shown.
fn as_requested(desired: &DesiredConfiguration) -> DesiredConfiguration {
    let policy = desired.mixed_instances_policy.clone().map(|policy| Launch::Mixed(Box::new(policy)));
    let launch = policy.or(desired.launch_template.clone().map(Launch::Template));
    launch.and_then(|launch| self::desired(&launch)).unwrap_or_else(|| desired.clone())
}

fn is_active(refresh: &InstanceRefresh) -> bool {
    outcome(refresh).is_none()
}

/// How it ended; `None`: it has not.
pub(super) fn outcome(refresh: &InstanceRefresh) -> Option<bool> {
    match refresh.status()? {
        Status::Successful => Some(true),
        Status::Failed | Status::Cancelled | Status::RollbackSuccessful | Status::RollbackFailed => Some(false),
        // Also what this version of the SDK does not know: it is looked at again until time is up.
        _ => None,
    }
}

fn status(refresh: &InstanceRefresh) -> &str {
    refresh.status().map_or("in no state", Status::as_str)
}

/// What it came to, in words.
pub(super) fn reason(refresh: &InstanceRefresh) -> String {
    let rollback = refresh.rollback_details().and_then(|details| details.rollback_reason());
    let reasons: Vec<&str> = [rollback, refresh.status_reason()].into_iter().flatten().filter(|text| !text.is_empty()).collect();
    if reasons.is_empty() { "Auto Scaling does not say why".into() } else { reasons.join("; ") }
}

async fn describe(api: &Api, group: &str, id: Option<&str>) -> Result<Vec<InstanceRefresh>> {
    let send = |scaling: &Client| {
        let request = scaling.describe_instance_refreshes().auto_scaling_group_name(group);
        request.set_instance_refresh_ids(id.map(|id| vec![id.to_owned()])).send()
    };
    let answer = api.call(Action::DescribeInstanceRefreshes, send).await;
    let answer = answer.map_err(|failure| failure.into_error(format!("look at instance refreshes of group {group}")))?;
    // The one that runs is among the newest, which come first.
    Ok(answer.instance_refreshes.unwrap_or_default())
}

/// The configurations that running refreshes move a group to.
///
/// # Errors
/// Those of the call.
pub async fn underway(api: &Api, group: &str) -> Result<Vec<Launch>> {
    let active = describe(api, group, None).await?.into_iter().filter(is_active);
    let launch = |refresh: InstanceRefresh| {
        let desired = refresh.desired_configuration?;
        let policy = desired.mixed_instances_policy.map(|policy| Launch::Mixed(Box::new(policy)));
        policy.or(desired.launch_template.map(Launch::Template))
    };
    Ok(active.filter_map(launch).collect())
}

/// Follows all of them to their end, also when one has failed. Being told to stop ends the following, not the refreshes.
///
/// # Errors
/// `Fleet` for those that failed, were cancelled or rolled back, or take too long.
pub async fn follow(cx: &Context, running: &[Running]) -> Result<()> {
    let phase = cx.report.phase(Phase::Refresh);
    let mut followed: Vec<Followed<'_>> = running.iter().map(Followed::new).collect();
    let mut pauses = Pauses::new(PACE, cx.config.wait_timeout);
    loop {
        for it in followed.iter_mut().filter(|it| it.ended.is_none()) {
            it.look(cx).await?;
        }
        if followed.iter().all(|it| it.ended.is_some()) {
            break;
        }
        progress(&phase, &followed);
        match pauses.pause(&cx.cancel, std::future::pending()).await {
            Ok(true) => {}
            Ok(false) => return Err(too_long(&followed, cx.config.wait_timeout)),
            Err(error) => return Err(goes_on(&error, &followed)),
        }
    }
    let failed: Vec<String> = followed.iter().filter_map(|it| it.ended.clone().flatten()).collect();
    if failed.is_empty() {
        phase.done(Change::Changed, followed.iter().map(Followed::title).collect::<Vec<_>>().join(", "));
        return Ok(());
    }
    Err(Error::new(Kind::Fleet, failed.join("; ")))
}

/// A refresh that is looked at again and again.
struct Followed<'a> {
    running: &'a Running,
    percent: u64,
    said: String,
    /// With what is wrong, if it failed.
    ended: Option<Option<String>>,
}

impl<'a> Followed<'a> {
    fn new(running: &'a Running) -> Self {
        Followed { running, percent: 0, said: String::new(), ended: None }
    }

    fn title(&self) -> String {
        format!("{} ({})", self.running.group, self.running.id)
    }

    async fn look(&mut self, cx: &Context) -> Result<()> {
        let Running { group, id } = self.running;
        let found = describe(&cx.api, group, Some(id)).await?;
        let Some(refresh) = found.iter().find(|it| it.instance_refresh_id() == Some(id)) else { return Ok(()) };
        self.percent = refresh.percentage_complete().and_then(|percent| u64::try_from(percent).ok()).unwrap_or(self.percent);
        let status = status(refresh);
        let why = refresh.status_reason().filter(|reason| !reason.is_empty()).map(|reason| format!(": {reason}"));
        let says = format!("group {group}: instance refresh is {status}{}", why.unwrap_or_default());
        if self.said != says {
            cx.report.note(&says);
            self.said = says;
        }
        self.ended = outcome(refresh)
            .map(|good| (!good).then(|| format!("instance refresh {id} of group {group} is {status}: {}", reason(refresh))));
        Ok(())
    }
}

fn progress(phase: &RunningPhase, followed: &[Followed<'_>]) {
    let percent = |it: &Followed<'_>| if it.ended.is_some() { 100 } else { it.percent };
    phase.progress(followed.iter().map(percent).sum::<u64>() / followed.len().max(1) as u64, Some(100), Unit::Percent);
}

fn unfinished(followed: &[Followed<'_>]) -> Vec<String> {
    let open = followed.iter().filter(|it| it.ended.is_none());
    open.map(|it| format!("instance refresh {} of group {} at {} %", it.running.id, it.running.group, it.percent)).collect()
}

fn too_long(followed: &[Followed<'_>], patience: Duration) -> Error {
    let message = format!("not ended within {} s: {}", patience.as_secs(), unfinished(followed).join(", "));
    Error::new(Kind::Fleet, message).hint("it goes on by itself: run again to follow it, or raise --wait-timeout")
}

fn goes_on(interrupted: &Error, followed: &[Followed<'_>]) -> Error {
    let message = format!("{interrupted}; what was started goes on: {}", unfinished(followed).join(", "));
    Error::new(interrupted.kind(), message)
        .hint("run again to follow it; `aws autoscaling cancel-instance-refresh --auto-scaling-group-name …` stops it")
}

#[cfg(test)]
mod tests;
