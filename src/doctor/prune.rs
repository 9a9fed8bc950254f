//! What pruning would meet: everything that it has to look at before it deletes anything, and whether it may delete.

use super::{Check, caller, permissions};
use crate::aws::api::Action;
use crate::bake::volume::named;
use crate::cancel::Cancel;
use crate::config::Ec2;
use crate::fleet::group;
use crate::host::device::SysFs;
use crate::report::Report;
use crate::storage::ec2::Ec2Store;
use crate::storage::ec2::preflight::{Preflight, within};
use crate::storage::{Snapshot, SnapshotQuery};

/// If one of these looks is not permitted, nothing is deleted.
const LOOKS: [Action; 8] = [
    Action::DescribeSnapshots,
    Action::DescribeVolumes,
    Action::DescribeImages,
    Action::DescribeLaunchTemplateVersions,
    Action::DescribeAutoScalingGroups,
    Action::DescribeLaunchConfigurations,
    Action::DescribeInstanceRefreshes,
    Action::DescribeFastSnapshotRestores,
];
/// What is tried on a snapshot.
const TRIED: [Action; 3] = [Action::DescribeSnapshotAttribute, Action::DisableFastSnapshotRestores, Action::DeleteSnapshot];
const SNAPSHOTS: &str = "snapshots";

/// What shall be pruned.
pub(super) struct Wish<'a> {
    pub volume_name: &'a str,
    pub parameter: Option<&'a str>,
    pub include_shared: bool,
}

pub(super) async fn checks(settings: Ec2, wish: Wish<'_>) -> Vec<Check> {
    let is_stated = settings.region.is_some();
    let store = Ec2Store::new(settings, SysFs::of_host(), Report::silent(), Cancel::new());
    let flight = store.preflight();
    let actions = LOOKS.iter().chain([&Action::GetParameter]).chain(&TRIED).map(|action| action.permission());
    let names: Vec<&'static str> = actions.chain([SNAPSHOTS]).collect();
    caller::and(&flight, is_stated, &names, async || look(&store, &flight, &wish).await).await
}

async fn look(store: &Ec2Store, flight: &Preflight<'_>, wish: &Wish<'_>) -> Vec<Check> {
    let api = store.api();
    let groups = within(Action::DescribeAutoScalingGroups, "look at Auto Scaling groups", group::all(&api));
    let query = SnapshotQuery { tags: named(wish.volume_name), ..SnapshotQuery::default() };
    let (groups, snapshots) = tokio::join!(groups, flight.snapshots(&query));
    let group = groups.ok().and_then(|groups| groups.into_iter().next()).map(|group| group.name);
    let ask = |at: usize| flight.may_look(LOOKS[at], group.as_deref());
    let (a, b, c, d) = tokio::join!(ask(0), ask(1), ask(2), ask(3));
    let (e, f, g, h) = tokio::join!(ask(4), ask(5), ask(6), ask(7));
    let looks = LOOKS.into_iter().zip([a, b, c, d, e, f, g, h]);
    let mut checks: Vec<Check> = looks.map(|(action, told)| permissions::permission(action, told, None)).collect();
    checks.push(parameter(store, wish.parameter).await);
    let snapshots = snapshots.unwrap_or_default();
    for action in TRIED {
        let told = match snapshots.first() {
            Some(snapshot) => Some(flight.may_prune(action, snapshot.id.as_str()).await),
            None => None,
        };
        checks.push(permissions::permission(action, told, spare(action, wish)));
    }
    checks.push(count(wish.volume_name, &snapshots));
    checks
}

/// Why pruning would do without the action; `None`: it needs it.
fn spare(action: Action, wish: &Wish<'_>) -> Option<&'static str> {
    match action {
        Action::DescribeSnapshotAttribute if wish.include_shared => Some("needed without --include-shared"),
        Action::DisableFastSnapshotRestores => Some("needed for snapshots that are restored fast"),
        _ => None,
    }
}

/// Reads the parameter that keeps a snapshot.
async fn parameter(store: &Ec2Store, name: Option<&str>) -> Check {
    let check = Action::GetParameter.permission();
    let Some(name) = name else { return Check::skipped(check, "needed for --ssm-parameter") };
    let read = within(Action::GetParameter, "read the parameter", store.read_parameter(name)).await;
    Check::of(check, read.map(|value| format!("{name} names {}", value.as_deref().unwrap_or("nothing"))))
}

fn count(name: &str, snapshots: &[Snapshot]) -> Check {
    match snapshots {
        [] => Check::skipped(SNAPSHOTS, format!("none of {name} is seen")),
        [oldest, ..] => Check::ok(SNAPSHOTS, format!("{} of {name}; the oldest is {}", snapshots.len(), oldest.id)),
    }
}
