//! From a snapshot to the machines that boot from it: a version of a launch template or a copy of a launch configuration, the
//! Auto Scaling groups that use it, and the refresh of the machines that run.
//!
//! Looks at everything first ([`survey`]), decides ([`plan`]), and then does what is missing ([`apply`]): what cannot be is refused
//! before anything is changed, and a run that was interrupted is completed by the next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_autoscaling::types::LaunchConfiguration;

use crate::aws::api::Api;
use crate::aws::failure::{Class, Failure};
use crate::cancel::Cancel;
use crate::config::rollout::Fleet;
use crate::error::Result;
use crate::report::{Change, Phase, Report};
use crate::wait::{Pace, Pauses};

mod apply;
pub mod choose;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod group;
pub mod instance_refresh;
pub mod launch_configuration;
pub mod launch_template;
pub mod mapping;
mod plan;
mod retire;
pub mod user_data;

pub use apply::{RolledOut, apply};
pub use plan::{Plan, plan};

use group::Group;
use launch_template::Template;

/// What a rollout works with.
#[derive(Clone)]
pub struct Context {
    /// EC2 and Auto Scaling.
    pub api: Arc<Api>,
    /// What shall be done.
    pub config: Arc<Fleet>,
    /// Where it tells what it does.
    pub report: Report,
    /// Whether it shall stop.
    pub cancel: Cancel,
}

/// What launches machines now.
#[derive(Debug, Clone)]
pub struct Survey {
    /// The launch template.
    pub template: Option<Template>,
    /// The groups, in the order in which they were named.
    pub groups: Vec<Group>,
    /// The launch configurations that groups have.
    pub configurations: BTreeMap<String, LaunchConfiguration>,
}

/// Looks at what launches machines.
///
/// # Errors
/// `Fleet` for what is not there, `Usage` for what cannot be rolled out to as it was asked for.
pub async fn survey(cx: &Context) -> Result<Survey> {
    let phase = cx.report.phase(Phase::Fleet);
    let template = match &cx.config.template {
        Some(wanted) => Some(launch_template::look(cx, &wanted.name).await?),
        None => None,
    };
    let groups = group::named(cx, &cx.config.groups).await?;
    let names = groups.iter().filter_map(|group| group.configuration().map(str::to_owned)).collect();
    let configurations = launch_configuration::named(cx, &names).await?;
    let survey = Survey { template, groups, configurations };
    plan::refuse_what_cannot_be(&survey, &cx.config)?;
    phase.done(Change::Unchanged, survey.in_words());
    Ok(survey)
}

impl Survey {
    fn in_words(&self) -> String {
        let template = self.template.iter().map(|template| {
            let (default, latest) = (template.default().number, template.latest().number);
            format!("{}: default version {default}, latest {latest}", template.title())
        });
        let groups: Vec<&str> = self.groups.iter().map(|group| group.name.as_str()).collect();
        let groups = (!groups.is_empty()).then(|| format!("groups {}", groups.join(", ")));
        template.chain(groups).collect::<Vec<_>>().join("; ")
    }
}

/// Auto Scaling lets one change of a group be made at a time (`ResourceContention`).
const CONTENTION: Pace = Pace { first: Duration::from_secs(1), factor: 2.0, longest: Duration::from_secs(15) };
const CONTENTION_PATIENCE: Duration = Duration::from_secs(2 * 60);

/// Makes a call until it is not told to come back later.
async fn patiently<T, F>(cx: &Context, call: impl Fn() -> F) -> Result<Result<T, Failure>>
where
    F: Future<Output = Result<T, Failure>>,
{
    let mut pauses = Pauses::new(CONTENTION, CONTENTION_PATIENCE);
    loop {
        let answer = call().await;
        let again = matches!(&answer, Err(failure) if failure.class() == Class::Retry);
        if !again || !pauses.pause(&cx.cancel, std::future::pending()).await? {
            return Ok(answer);
        }
    }
}
