//! The one block device mapping that a rollout changes, in the words that launch templates and launch configurations share.
//! Values in, values out.

use aws_sdk_autoscaling::types as scaling;
use aws_sdk_ec2::types as ec2;

use crate::config::rollout::Mapping as Change;
use crate::error::{Error, Kind, Result};
use crate::storage::Snapshot;

/// The volume of a mapping, as far as a rollout changes it; `None`: EC2 decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the API reference, EbsBlockDevice")]
pub struct Disk {
    pub snapshot_id: Option<String>,
    pub volume_size: Option<i32>,
    pub volume_type: Option<String>,
    pub iops: Option<i32>,
    pub throughput: Option<i32>,
    pub volume_initialization_rate: Option<i32>,
    pub delete_on_termination: Option<bool>,
}

impl Disk {
    /// Name and value of all fields.
    fn fields(&self) -> [(&'static str, Option<String>); 7] {
        let number = |value: Option<i32>| value.map(|value| value.to_string());
        [
            ("snapshot-id", self.snapshot_id.clone()),
            ("volume-size", number(self.volume_size)),
            ("volume-type", self.volume_type.clone()),
            ("iops", number(self.iops)),
            ("throughput", number(self.throughput)),
            ("volume-initialization-rate", number(self.volume_initialization_rate)),
            ("delete-on-termination", self.delete_on_termination.map(|value| value.to_string())),
        ]
    }
}

/// A block device mapping of EC2's or Auto Scaling's API.
pub trait Mapping: Clone + PartialEq {
    /// A mapping of this device, without a volume.
    fn of(device: &str) -> Self;
    /// The device's name.
    fn device(&self) -> &str;
    /// The volume, if the device is one of EBS.
    fn disk(&self) -> Option<Disk>;
    /// Makes the device an EBS volume like this; what else is said of its volume stays.
    fn set(&mut self, disk: &Disk);
}

impl Mapping for ec2::LaunchTemplateBlockDeviceMappingRequest {
    fn of(device: &str) -> Self {
        Self::builder().device_name(device).build()
    }

    fn device(&self) -> &str {
        self.device_name().unwrap_or_default()
    }

    fn disk(&self) -> Option<Disk> {
        self.ebs().map(|ebs| Disk {
            snapshot_id: ebs.snapshot_id.clone(),
            volume_size: ebs.volume_size,
            volume_type: ebs.volume_type.as_ref().map(|kind| kind.as_str().to_owned()),
            iops: ebs.iops,
            throughput: ebs.throughput,
            volume_initialization_rate: ebs.volume_initialization_rate,
            delete_on_termination: ebs.delete_on_termination,
        })
    }

    fn set(&mut self, disk: &Disk) {
        (self.virtual_name, self.no_device) = (None, None);
        let ebs = self.ebs.get_or_insert_with(|| ec2::LaunchTemplateEbsBlockDeviceRequest::builder().build());
        ebs.snapshot_id = disk.snapshot_id.clone();
        ebs.volume_size = disk.volume_size;
        ebs.volume_type = disk.volume_type.as_deref().map(ec2::VolumeType::from);
        ebs.iops = disk.iops;
        ebs.throughput = disk.throughput;
        ebs.volume_initialization_rate = disk.volume_initialization_rate;
        ebs.delete_on_termination = disk.delete_on_termination;
    }
}

impl Mapping for scaling::BlockDeviceMapping {
    fn of(device: &str) -> Self {
        let mut mapping = Self::builder().build();
        mapping.device_name = Some(device.to_owned());
        mapping
    }

    fn device(&self) -> &str {
        self.device_name().unwrap_or_default()
    }

    fn disk(&self) -> Option<Disk> {
        self.ebs().map(|ebs| Disk {
            snapshot_id: ebs.snapshot_id.clone(),
            volume_size: ebs.volume_size,
            volume_type: ebs.volume_type.clone(),
            iops: ebs.iops,
            throughput: ebs.throughput,
            volume_initialization_rate: None,
            delete_on_termination: ebs.delete_on_termination,
        })
    }

    fn set(&mut self, disk: &Disk) {
        (self.virtual_name, self.no_device) = (None, None);
        let ebs = self.ebs.get_or_insert_with(|| scaling::Ebs::builder().build());
        ebs.snapshot_id = disk.snapshot_id.clone();
        ebs.volume_size = disk.volume_size;
        ebs.volume_type = disk.volume_type.clone();
        ebs.iops = disk.iops;
        ebs.throughput = disk.throughput;
        ebs.delete_on_termination = disk.delete_on_termination;
    }
}

/// All mappings of a template or a configuration, one of which was changed or added.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed<M> {
    /// In their order.
    pub mappings: Vec<M>,
    /// What is new, in words: `snapshot-id snap-1 → snap-2`; empty: nothing.
    pub differences: Vec<String>,
}

/// Lets the device's volume be made from the snapshot.
///
/// # Errors
/// `Usage` for a size below the snapshot's, and when the device is mapped under its other name.
pub fn change<M: Mapping>(mappings: &[M], change: &Change, snapshot: &Snapshot) -> Result<Changed<M>> {
    let at = find(mappings.iter().map(M::device), &change.device)?;
    let before = at.and_then(|index| mappings[index].disk());
    let after = wanted(before.clone().unwrap_or_default(), change, snapshot)?;
    let mut mappings = mappings.to_vec();
    let at = at.unwrap_or_else(|| {
        mappings.push(M::of(&change.device));
        mappings.len() - 1
    });
    let kept = mappings[at].clone();
    mappings[at].set(&after);
    // What was no volume, or none that says nothing, is one now.
    let differences = if kept == mappings[at] { Vec::new() } else { differences(&before.unwrap_or_default(), &after) };
    Ok(Changed { mappings, differences })
}

/// The snapshot that the device's volume is made from.
pub fn snapshot<M: Mapping>(mappings: &[M], device: &str) -> Option<String> {
    let disk = mappings.iter().find(|mapping| mapping.device() == device)?.disk()?;
    disk.snapshot_id.filter(|id| !id.is_empty())
}

/// Which of the names is the device. `/dev/sdk` and `/dev/xvdk` are one device to an instance (EC2 User Guide, "Device names for
/// volumes"): two mappings of it would keep instances from being launched.
fn find<'a>(names: impl Iterator<Item = &'a str>, device: &str) -> Result<Option<usize>> {
    let names: Vec<&str> = names.collect();
    if let Some(index) = names.iter().position(|name| *name == device) {
        return Ok(Some(index));
    }
    match names.iter().find(|name| letters(name) == letters(device)) {
        Some(other) => {
            let message = format!("there is a mapping of {other}, which is the same device as {device}");
            Err(Error::new(Kind::Usage, message).hint(format!("give --fleet-device {other}")))
        }
        None => Ok(None),
    }
}

fn letters(device: &str) -> &str {
    let name = device.strip_prefix("/dev/").unwrap_or(device);
    name.strip_prefix("xvd").or_else(|| name.strip_prefix("sd")).unwrap_or(name)
}

fn wanted(before: Disk, change: &Change, snapshot: &Snapshot) -> Result<Disk> {
    let signed = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    let least = signed(snapshot.size_gib);
    if let Some(size) = change.size_gib.filter(|size| *size < snapshot.size_gib) {
        let message = format!("--fleet-volume-size {size}: snapshot {} needs {} GiB", snapshot.id, snapshot.size_gib);
        return Err(Error::new(Kind::Usage, message).hint("leave it out, and the volume is as large as it must be"));
    }
    // What was said of volumes of another type need not be possible for this one.
    let same_type = change.kind.is_none() || change.kind == before.volume_type;
    let kept = |value: Option<i32>| value.filter(|_| same_type);
    Ok(Disk {
        snapshot_id: Some(snapshot.id.to_string()),
        // A volume that grew since has snapshots that no longer fit.
        volume_size: change.size_gib.map(signed).or(before.volume_size.map(|size| size.max(least))),
        volume_type: change.kind.clone().or(before.volume_type.clone()),
        iops: change.iops.map(signed).or(kept(before.iops)),
        throughput: change.throughput.map(signed).or(kept(before.throughput)),
        volume_initialization_rate: change.initialization_rate.map(signed).or(before.volume_initialization_rate),
        delete_on_termination: Some(change.delete_on_termination),
    })
}

fn differences(before: &Disk, after: &Disk) -> Vec<String> {
    let pairs = before.fields().into_iter().zip(after.fields()).filter(|((_, before), (_, after))| before != after);
    let shown = |value: Option<String>| value.unwrap_or_else(|| "nothing".into());
    pairs.map(|((name, before), (_, after))| format!("{name} {} → {}", shown(before), shown(after))).collect()
}

#[cfg(test)]
pub(super) mod tests;
