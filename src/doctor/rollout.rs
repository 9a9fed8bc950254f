//! What a rollout would meet: its permissions, what launches machines, and what it would do with the newest snapshot.

use std::sync::Arc;

use super::{Check, caller, permissions, skipped};
use crate::aws::api::Action;
use crate::cancel::Cancel;
use crate::config::Ec2;
use crate::config::rollout::{Choice, Fleet, VersionChoice};
use crate::error::{Error, Kind, Result};
use crate::fleet::launch_template::{self, Template};
use crate::fleet::{self, Context, Survey, choose::choose};
use crate::host::device::SysFs;
use crate::report::Report;
use crate::storage::Snapshot;
use crate::storage::ec2::Ec2Store;
use crate::storage::ec2::preflight::{Preflight, within};

/// What is looked at.
const LOOKS: [Action; 5] = [
    Action::DescribeSnapshots,
    Action::DescribeLaunchTemplateVersions,
    Action::DescribeAutoScalingGroups,
    Action::DescribeLaunchConfigurations,
    Action::DescribeInstanceRefreshes,
];
/// What EC2 is asked about with DryRun. The last one is Auto Scaling's question to EC2 when a group is moved or refreshed.
const TRIED: [Action; 4] = [
    Action::CreateLaunchTemplateVersion,
    Action::ModifyLaunchTemplate,
    Action::DeleteLaunchTemplateVersions,
    Action::RunInstances,
];
/// What cannot be asked about.
const UNTRIED: [Action; 4] = [
    Action::UpdateAutoScalingGroup,
    Action::StartInstanceRefresh,
    Action::CreateLaunchConfiguration,
    Action::DeleteLaunchConfiguration,
];
const FOUND: [&str; 4] = ["launch-template", "auto-scaling-groups", "snapshot", "rollout"];

pub(super) async fn checks(settings: Ec2, fleet: Fleet, volume_name: &str) -> Vec<Check> {
    let is_stated = settings.region.is_some();
    let (report, cancel) = (Report::silent(), Cancel::new());
    let store = Ec2Store::new(settings, SysFs::of_host(), report.clone(), cancel.clone());
    let flight = store.preflight();
    let cx = Context { api: store.api(), config: Arc::new(fleet), report, cancel };
    let actions = LOOKS.iter().chain(&TRIED).chain(&UNTRIED).map(|action| action.permission());
    let names: Vec<&'static str> = actions.chain(FOUND).collect();
    caller::and(&flight, is_stated, &names, async || look(&cx, &store, &flight, volume_name).await).await
}

async fn look(cx: &Context, store: &Ec2Store, flight: &Preflight<'_>, volume_name: &str) -> Vec<Check> {
    let group = cx.config.groups.first().map(String::as_str);
    let ask = |at: usize| flight.may_look(LOOKS[at], group);
    let looks = async { tokio::join!(ask(0), ask(1), ask(2), ask(3), ask(4)) };
    let ((a, b, c, d, e), template) = tokio::join!(looks, template(cx));
    let looks = LOOKS.into_iter().zip([a, b, c, d, e]);
    let mut checks: Vec<Check> =
        looks.map(|(action, told)| permissions::permission(action, told, spare(action, &cx.config))).collect();
    checks.extend(tried(cx, flight, template.as_ref()).await);
    checks.extend(UNTRIED.map(|action| untried(action, &cx.config)));
    checks.extend(found(cx, store, template, volume_name).await);
    checks
}

/// The template that is named, if it has the version that is to be the source.
async fn template(cx: &Context) -> Option<Result<Template>> {
    let wanted = cx.config.template.as_ref()?;
    let look =
        within(Action::DescribeLaunchTemplateVersions, "look at launch templates", launch_template::look(cx, &wanted.name));
    let template = look.await;
    let source = wanted.source.unwrap_or(VersionChoice::Default);
    Some(template.and_then(|template| template.require(source).map(drop).map(|()| template)))
}

async fn tried(cx: &Context, flight: &Preflight<'_>, template: Option<&Result<Template>>) -> Vec<Check> {
    let template = match template {
        Some(Ok(template)) => template,
        Some(Err(_)) => return skipped(&TRIED.map(Action::permission), "needs launch-template"),
        None => return skipped(&TRIED.map(Action::permission), "needed for --launch-template"),
    };
    let ask = |at: usize| flight.may_roll_out(TRIED[at], &template.id, template.default().number);
    let (a, b, c, d) = tokio::join!(ask(0), ask(1), ask(2), ask(3));
    let judged = |(action, told)| permissions::permission(action, told, spare(action, &cx.config));
    TRIED.into_iter().zip([a, b, c, d]).map(judged).collect()
}

/// Why a rollout as it is configured would do without the action; `None`: it needs it.
fn spare(action: Action, fleet: &Fleet) -> Option<&'static str> {
    let template = fleet.template.as_ref();
    let keeps = template.is_some_and(|template| template.keep.is_some());
    let deletes = fleet.configurations.as_ref().is_some_and(|wanted| wanted.delete_unused);
    match action {
        Action::DescribeLaunchTemplateVersions if template.is_none() => Some("needed for --launch-template"),
        Action::DescribeAutoScalingGroups if fleet.groups.is_empty() && !keeps && !deletes => {
            Some("needed for --auto-scaling-group and --keep-versions")
        }
        Action::DescribeLaunchConfigurations if fleet.configurations.is_none() => {
            Some("needed for --launch-configuration-prefix")
        }
        Action::DescribeInstanceRefreshes if fleet.refresh.is_none() && !keeps => {
            Some("needed for --refresh and --keep-versions")
        }
        Action::ModifyLaunchTemplate if template.is_none_or(|template| !template.set_default) => Some("needed for --set-default"),
        Action::DeleteLaunchTemplateVersions if !keeps => Some("needed for --keep-versions"),
        // Policies may name the subnets and tags that machines have, which only the group knows.
        Action::RunInstances => Some("asked for by Auto Scaling, for each group that is moved or refreshed (docs/rollout.md)"),
        Action::UpdateAutoScalingGroup if fleet.groups.is_empty() => Some("needed for --auto-scaling-group"),
        Action::StartInstanceRefresh if fleet.refresh.is_none() => Some("needed for --refresh"),
        Action::CreateLaunchConfiguration if fleet.configurations.is_none() => Some("needed for --launch-configuration-prefix"),
        Action::DeleteLaunchConfiguration if !deletes => Some("needed for --delete-unused-configurations"),
        _ => None,
    }
}

fn untried(action: Action, fleet: &Fleet) -> Check {
    let why = spare(action, fleet).unwrap_or("needed, and not known: Auto Scaling has no DryRun (docs/iam-policy.json)");
    Check::skipped(action.permission(), why)
}

/// What there is, and what would become of it.
async fn found(cx: &Context, store: &Ec2Store, template: Option<Result<Template>>, volume_name: &str) -> Vec<Check> {
    let [of_template, of_groups, of_snapshot, of_plan] = FOUND;
    let mut checks = vec![match &template {
        Some(Ok(template)) => Check::ok(of_template, words(template)),
        Some(Err(error)) => missing(of_template, error, Action::DescribeLaunchTemplateVersions),
        None => Check::skipped(of_template, "none is named (--launch-template)"),
    }];
    if let Some(Err(_)) = template {
        checks.extend(skipped(&[of_groups, of_snapshot, of_plan], "needs launch-template"));
        return checks;
    }
    let survey = match within(Action::DescribeAutoScalingGroups, "look at groups", fleet::survey(cx)).await {
        Ok(survey) => survey,
        Err(error) => {
            checks.push(missing(of_groups, &error, Action::DescribeAutoScalingGroups));
            checks.extend(skipped(&[of_snapshot, of_plan], "needs auto-scaling-groups"));
            return checks;
        }
    };
    checks.push(match cx.config.groups.as_slice() {
        [] => Check::skipped(of_groups, "none is named (--auto-scaling-group)"),
        groups => Check::ok(of_groups, format!("{}: can be rolled out to", groups.join(", "))),
    });
    let newest = choose(store, &survey, &Choice::Latest, volume_name, &cx.config);
    match within(Action::DescribeSnapshots, "look for snapshots", newest).await {
        Ok(snapshot) => {
            checks.push(Check::ok(of_snapshot, format!("{}, the newest of {volume_name}", snapshot.id)));
            checks.push(planned(&survey, &cx.config, snapshot));
        }
        Err(error) => {
            // The first bake is still to come, maybe.
            checks.push(missing(of_snapshot, &error, Action::DescribeSnapshots).no_worse_than_warning());
            checks.push(Check::skipped(of_plan, "needs a snapshot"));
        }
    }
    checks
}

/// Why something was not found; that the look was denied stands at its permission.
fn missing(name: &'static str, error: &Error, look: Action) -> Check {
    match error.kind() {
        Kind::Permission => Check::skipped(name, format!("needs {}", look.permission())),
        _ => Check::of_error(name, error),
    }
}

fn words(template: &Template) -> String {
    format!("{}: default version {}, latest {}", template.title(), template.default().number, template.latest().number)
}

/// The decisions of a dry run.
fn planned(survey: &Survey, fleet: &Fleet, snapshot: Snapshot) -> Check {
    let name = FOUND[3];
    match fleet::plan(survey, fleet, snapshot) {
        Ok(plan) if plan.warnings.is_empty() => Check::ok(name, format!("would {}", plan.steps(fleet).join("; "))),
        Ok(plan) => Check::warning(name, format!("would {}", plan.steps(fleet).join("; ")), plan.warnings.join("; ")),
        Err(error) => Check::of_error(name, &error),
    }
}
