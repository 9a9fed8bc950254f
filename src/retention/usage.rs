//! Who uses a snapshot. Values only: `ec2.rs` and `local.rs` find them out.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Error;
use crate::storage::{SnapshotId, VolumeId};

/// So many of a kind are named; more are counted.
const NAMED: usize = 2;

/// Where users of snapshots are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// Versions of launch templates.
    Templates,
    /// Launch configurations.
    Configurations,
    /// Auto Scaling groups.
    Groups,
    /// Volumes, and the instances that they are attached to.
    Volumes,
    /// AMIs.
    Images,
    /// The parameter of Systems Manager.
    Parameter,
    /// Other accounts that may make volumes from it.
    Accounts,
}

/// A version of a launch template that refers to a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TemplateVersion {
    /// `lt-0123456789abcdef0`
    pub template_id: String,
    /// The template's name.
    pub template: String,
    /// The version's number.
    pub number: i64,
    /// What is launched from `$Default`.
    pub default: bool,
    /// What is launched from `$Latest`.
    pub latest: bool,
    /// A group launches this very number.
    pub pinned: bool,
}

impl TemplateVersion {
    /// Whether something launches it without naming a number, or a group by its number. Other versions can only be launched
    /// by somebody who asks for them.
    pub fn in_use(&self) -> bool {
        self.default || self.latest || self.pinned
    }

    fn words(&self) -> String {
        let marks = [(self.default, "default"), (self.latest, "latest"), (self.pinned, "pinned"), (!self.in_use(), "old")];
        let marks: Vec<&str> = marks.into_iter().filter_map(|(is, mark)| is.then_some(mark)).collect();
        format!("template {} v{} ({})", self.template, self.number, marks.join(", "))
    }
}

/// Who has a volume.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// Nobody.
    Nobody,
    /// The store: it is being made, or on its way from or to an instance.
    Store,
    /// This host.
    Here,
    /// An instance, running or not.
    Instance(String),
}

/// A volume that was made from a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VolumeUser {
    /// Its ID.
    pub id: VolumeId,
    /// Who has it.
    pub holder: Holder,
}

impl VolumeUser {
    fn instance(&self) -> Option<&str> {
        match &self.holder {
            Holder::Instance(id) => Some(id),
            _ => None,
        }
    }
}

/// Who uses a snapshot, or refers to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Users {
    /// Those that refer to it, whether they are in use or not.
    pub templates: BTreeSet<TemplateVersion>,
    /// Names of launch configurations.
    pub configurations: BTreeSet<String>,
    /// Names of the groups that launch from it, through a template or a launch configuration.
    pub groups: BTreeSet<String>,
    /// Those made from it.
    pub volumes: BTreeSet<VolumeUser>,
    /// IDs of AMIs registered with it.
    pub images: BTreeSet<String>,
    /// The parameter whose value it is.
    pub parameter: Option<String>,
    /// Accounts that it is shared with: their IDs, or `all`.
    pub accounts: BTreeSet<String>,
}

impl Users {
    /// The instances that have a volume made from it.
    pub fn instances(&self) -> BTreeSet<&str> {
        self.volumes.iter().filter_map(VolumeUser::instance).collect()
    }

    /// Who needs it, in a few words each: empty if nobody does. Other accounts are not among them, for they may or may not.
    pub fn needs(&self) -> Vec<String> {
        let in_use = self.templates.iter().filter(|version| version.in_use()).map(TemplateVersion::words);
        let here = self.volumes.iter().filter(|volume| volume.holder == Holder::Here);
        let making = self.volumes.iter().filter(|volume| volume.holder == Holder::Store);
        let instances = self.instances().into_iter().map(|id| format!("instance {id}"));
        [
            few(in_use, "template versions"),
            few(self.configurations.iter().map(|name| format!("launch configuration {name}")), "launch configurations"),
            few(self.groups.iter().map(|name| format!("group {name}")), "groups"),
            few(instances, "instances"),
            few(here.map(|volume| format!("volume {} (attached here)", volume.id)), "attached volumes"),
            few(making.map(|volume| format!("volume {} (on its way)", volume.id)), "volumes on their way"),
            few(self.images.iter().map(|id| format!("AMI {id}")), "AMIs"),
            self.parameter.iter().map(|name| format!("parameter {name}")).collect(),
        ]
        .concat()
    }

    /// What refers to it and would not miss it: old versions of templates, volumes that nobody has.
    pub fn refers(&self) -> Vec<String> {
        let old = self.templates.iter().filter(|version| !version.in_use()).map(TemplateVersion::words);
        let free = self.volumes.iter().filter(|volume| volume.holder == Holder::Nobody);
        [few(old, "old template versions"), few(free.map(|volume| format!("volume {} (free)", volume.id)), "free volumes")]
            .concat()
    }
}

/// Each in words if they are few, else how many they are.
fn few(each: impl Iterator<Item = String>, kind: &str) -> Vec<String> {
    let each: Vec<String> = each.collect();
    if each.len() > NAMED { vec![format!("{} {kind}", each.len())] } else { each }
}

/// Who uses which snapshots, and what could not be found out.
#[derive(Debug, Default)]
pub struct Usage {
    users: BTreeMap<SnapshotId, Users>,
    unknown: Vec<(Lookup, Error)>,
}

impl Usage {
    /// Who uses this one, as far as it is known.
    pub fn of(&self, id: &SnapshotId) -> Users {
        self.users.get(id).cloned().unwrap_or_default()
    }

    /// To note a user.
    pub fn entry(&mut self, id: &SnapshotId) -> &mut Users {
        self.users.entry(id.clone()).or_default()
    }

    /// Notes what came of a look-up: the users that it found are put in by `put`.
    pub fn add<T>(&mut self, lookup: Lookup, found: Result<T, Error>, put: impl FnOnce(&mut Usage, T)) {
        match found {
            Ok(found) => put(self, found),
            Err(error) => self.unknown.push((lookup, error)),
        }
    }

    /// Adds what another look has found.
    pub fn merge(&mut self, other: Usage) {
        for (id, users) in other.users {
            let all = self.entry(&id);
            all.templates.extend(users.templates);
            all.configurations.extend(users.configurations);
            all.groups.extend(users.groups);
            all.volumes.extend(users.volumes);
            all.images.extend(users.images);
            all.parameter = all.parameter.take().or(users.parameter);
            all.accounts.extend(users.accounts);
        }
        self.unknown.extend(other.unknown);
    }

    /// Whether this look-up succeeded, or was not needed.
    pub fn knows(&self, lookup: Lookup) -> bool {
        self.unknown.iter().all(|(failed, _)| *failed != lookup)
    }

    /// Whether nothing is missing: only then is a snapshot without users unused.
    pub fn is_complete(&self) -> bool {
        self.unknown.is_empty()
    }

    /// The look-ups that failed, and why.
    pub fn failures(&self) -> impl Iterator<Item = &Error> {
        self.unknown.iter().map(|(_, error)| error)
    }

    /// The first of them.
    pub fn into_failure(self) -> Option<Error> {
        self.unknown.into_iter().map(|(_, error)| error).next()
    }
}
