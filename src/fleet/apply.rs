//! Does what a plan says, in its order: make, move, replace, and last delete what is old.

use tokio::task::JoinSet;

use super::group::{self, Group, Launch, Target};
use super::instance_refresh::{self, Others, Running, Turn, Wish};
use super::launch_template::{self, Template};
use super::{Context, Plan, launch_configuration, retire};
use crate::error::{Error, Kind, Result};
use crate::report::{Change, Phase};
use crate::storage::SnapshotId;

/// What a rollout came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RolledOut {
    /// The launch template's ID and the version that has the snapshot.
    pub template: Option<(String, i64)>,
    /// Group and launch configuration.
    pub configurations: Vec<(String, String)>,
    /// Group and instance refresh.
    pub refreshes: Vec<(String, String)>,
    /// What machines were launched with before, if it was one snapshot and another one.
    pub previous: Option<SnapshotId>,
}

/// Does what is missing. Beside what it came to: all is good, but what is old could not be deleted.
///
/// # Errors
/// `Fleet` for what is refused or fails, `Permission` for what is not permitted. What was done until then stays; the next run
/// goes on from there.
pub async fn apply(cx: &Context, plan: &Plan) -> Result<(RolledOut, Option<Error>)> {
    for warning in &plan.warnings {
        cx.report.warn(warning);
    }
    let version = match &plan.template {
        Some((template, planned)) => Some((template, version(cx, template, planned).await?)),
        None => None,
    };
    configurations(cx, plan).await?;
    let refreshes = groups(cx, plan, version).await?;
    if cx.config.wait && !refreshes.is_empty() {
        let back = previous(plan);
        instance_refresh::follow(cx, &refreshes).await.map_err(|error| match back {
            Some(id) if error.kind() == Kind::Fleet && error.hint_text().is_none() => error
                .hint(format!("see the group's scaling activities; run again to go on, or with --snapshot-id {id} to go back")),
            _ => error,
        })?;
    }
    let number = version.map(|(template, version)| (template, version.number));
    let cleanup = match refreshes.is_empty() || cx.config.wait {
        true => retire::retire(cx, number).await.err(),
        // What is old may be needed to go back.
        false => None,
    };
    let rolled_out = RolledOut {
        template: number.map(|(template, number)| (template.id.clone(), number)),
        configurations: plan.configurations.iter().map(|(group, plan)| (group.clone(), plan.name.clone())).collect(),
        refreshes: refreshes.into_iter().map(|running| (running.group, running.id)).collect(),
        previous: previous(plan),
    };
    Ok((rolled_out, cleanup))
}

fn previous(plan: &Plan) -> Option<SnapshotId> {
    let mut before = plan.before.iter().flatten().filter(|id| **id != plan.snapshot.id.as_str());
    let first = before.next()?;
    before.all(|id| id == first).then(|| first.parse().ok()).flatten()
}

/// A version that has the snapshot.
#[derive(Debug, Clone, Copy)]
struct Made {
    number: i64,
    /// When it was made, in seconds since 1970.
    created: i64,
    /// The template's default was changed in this run.
    is_new_default: bool,
}

async fn version(cx: &Context, template: &Template, plan: &launch_template::Plan) -> Result<Made> {
    let phase = cx.report.phase(Phase::Template);
    cx.cancel.check()?;
    let present = plan.present.and_then(|number| template.versions.iter().find(|version| version.number == number));
    let (mut change, version) = match present {
        Some(version) => (Change::Unchanged, version.clone()),
        None => (Change::Created, launch_template::make(cx, template, plan).await?),
    };
    let is_new_default =
        cx.config.template.as_ref().is_some_and(|wanted| wanted.set_default) && template.default().number != version.number;
    if is_new_default {
        launch_template::set_default(cx, template, version.number).await?;
        change = if change == Change::Unchanged { Change::Changed } else { change };
    }
    let default = if is_new_default { ", now the default" } else { "" };
    phase.done(change, format!("version {} of {}{default}", version.number, template.title()));
    Ok(Made { number: version.number, created: version.created, is_new_default })
}

async fn configurations(cx: &Context, plan: &Plan) -> Result<()> {
    let mut plans: Vec<&launch_configuration::Plan> = plan.configurations.values().collect();
    if plans.is_empty() {
        return Ok(());
    }
    let phase = cx.report.phase(Phase::Configuration);
    plans.sort_by_key(|plan| &plan.name);
    plans.dedup_by_key(|plan| &plan.name);
    let mut change = Change::Unchanged;
    for plan in plans.iter().filter(|plan| !plan.is_done()) {
        cx.cancel.check()?;
        if launch_configuration::make(cx, plan).await? == Change::Created {
            change = Change::Created;
        }
    }
    phase.done(change, plans.iter().map(|plan| plan.name.as_str()).collect::<Vec<_>>().join(", "));
    Ok(())
}

/// Moves all groups and starts their refreshes at the same time: one may have to wait for another refresh.
async fn groups(cx: &Context, plan: &Plan, version: Option<(&Template, Made)>) -> Result<Vec<Running>> {
    if plan.groups.is_empty() {
        return Ok(Vec::new());
    }
    let phase = cx.report.phase(Phase::Group);
    let mut moving = JoinSet::new();
    for (index, group) in plan.groups.iter().enumerate() {
        let step = Step {
            group: group.clone(),
            configuration: plan.configurations.get(&group.name).cloned(),
            version: version.map(|(template, made)| (template.clone(), made)),
        };
        let cx = cx.clone();
        moving.spawn(async move { (index, step.go(&cx).await) });
    }
    let mut moved = moving.join_all().await;
    moved.sort_by_key(|(index, _)| *index);
    if moved.iter().any(|(_, moved)| moved.is_err()) {
        for running in moved.iter().filter_map(|(_, moved)| moved.as_ref().ok()?.refresh.as_ref()) {
            cx.report.warn(format!("instance refresh {} of group {} goes on", running.id, running.group));
        }
    }
    let moved = moved.into_iter().map(|(_, moved)| moved).collect::<Result<Vec<Moved>>>()?;
    let is_unchanged = moved.iter().all(|moved| moved.change == Change::Unchanged);
    let change = if is_unchanged { Change::Unchanged } else { Change::Changed };
    let words = plan.groups.iter().zip(&moved).map(|(group, moved)| format!("{} {}", group.name, moved.words));
    phase.done(change, words.collect::<Vec<_>>().join(", "));
    Ok(moved.into_iter().filter_map(|moved| moved.refresh).collect())
}

/// What became of a group.
struct Moved {
    change: Change,
    words: &'static str,
    refresh: Option<Running>,
}

/// A group, and what it shall be launched from.
struct Step {
    group: Group,
    configuration: Option<launch_configuration::Plan>,
    version: Option<(Template, Made)>,
}

impl Step {
    fn target(&self) -> Option<Target<'_>> {
        match (&self.configuration, &self.version) {
            (Some(plan), _) => Some(Target::Configuration(&plan.name)),
            (None, Some((template, made))) => Some(Target::Template(template, made.number)),
            (None, None) => None,
        }
    }

    async fn go(mut self, cx: &Context) -> Result<Moved> {
        let mut others = Others::default();
        loop {
            if let Some(moved) = self.step(cx, &mut others).await? {
                return Ok(moved);
            }
            // Whoever was waited for may have done it all.
            self.group = group::named(cx, std::slice::from_ref(&self.group.name)).await?.remove(0);
        }
    }

    /// Nothing, if something else had to be waited for.
    async fn step(&self, cx: &Context, others: &mut Others) -> Result<Option<Moved>> {
        let unchanged = |words| Moved { change: Change::Unchanged, words, refresh: None };
        let Some(target) = self.target() else { return Ok(Some(unchanged("is left alone"))) };
        let (moved, stale) = (self.group.moved(target), self.group.stale(target));
        let wishes = cx.config.refresh.as_ref().filter(|wishes| stale > 0 || wishes.all);
        let Some(wishes) = wishes else {
            let Some(launch) = moved else {
                let words = if cx.config.refresh.is_some() { "and all its machines have it" } else { "has it" };
                return Ok(Some(unchanged(words)));
            };
            group::update(cx, &self.group.name, &launch).await?;
            return Ok(Some(Moved { change: Change::Changed, words: "was moved to it", refresh: None }));
        };
        let wish = self.wish(&moved, wishes.all);
        match instance_refresh::turn(cx, &wish, others).await? {
            Turn::Ours => {}
            Turn::Waited => return Ok(None),
            Turn::Taken(running) => {
                return Ok(Some(Moved { refresh: Some(running), ..unchanged("is being refreshed already") }));
            }
        }
        // A configuration can be no refresh's goal: the group has it first.
        let launch = moved.filter(|launch| matches!(launch, Launch::Configuration(_)));
        if let Some(launch) = launch {
            group::update(cx, &self.group.name, &launch).await?;
        }
        let running = instance_refresh::start(cx, wishes, &wish, others).await?;
        Ok(Some(Moved { change: Change::Changed, words: "is being refreshed", refresh: Some(running) }))
    }

    /// A pinned group is moved by the refresh itself, at its end: that is what Auto Scaling can roll back, and what tells which
    /// configuration a running refresh is for.
    fn wish(&self, moved: &Option<Launch>, all: bool) -> Wish {
        let is_pinned = self
            .version
            .as_ref()
            .is_some_and(|(template, made)| moved.as_ref().unwrap_or(&self.group.launch).names(template, made.number));
        let launch = moved.as_ref().unwrap_or(&self.group.launch);
        let desired = if is_pinned { instance_refresh::desired(launch) } else { None };
        let since = match (&self.configuration, &self.version) {
            (Some(plan), _) => moved.is_none().then(|| plan.created()),
            (None, Some((_, made))) => (!made.is_new_default).then_some(made.created),
            (None, None) => None,
        };
        Wish { group: self.group.name.clone(), desired, skip_matching: !all && self.configuration.is_none(), since }
    }
}
