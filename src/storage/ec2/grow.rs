//! Making a volume larger.

use std::time::Duration;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::VolumeModificationState as State;

use super::convert::{self, Standing};
use super::{Inner, unknown_volume};
use crate::aws::api::Action;
use crate::aws::failure::Class;
use crate::error::{Error, Kind, Result};
use crate::storage::VolumeId;
use crate::wait::{self, Pace};

/// How long a modification may be `modifying`; the new size can be used from `optimizing` on.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// How long the kernel may take to notice.
const DEVICE_PATIENCE: Duration = Duration::from_secs(60);
const DEVICE_PACE: Pace = Pace { first: Duration::from_millis(50), factor: 1.5, longest: Duration::from_secs(1) };

impl Inner {
    pub(super) async fn grow_volume(&self, id: &VolumeId, size_gib: u32) -> Result<()> {
        let volume = self.describe_volume(id).await?.ok_or_else(|| unknown_volume(id))?;
        let now = self.converted(std::slice::from_ref(&volume)).await?.first().map_or(0, |volume| volume.size_gib);
        if size_gib < now {
            return Err(Error::new(Kind::Usage, format!("volume {id} has {now} GiB and cannot shrink to {size_gib}")));
        }
        if size_gib > now {
            self.modify(id, size_gib).await?;
        }
        if volume.attachments().is_empty() {
            return Ok(());
        }
        match convert::standing(&volume, self.identity.instance_id().await?) {
            Standing::Here { device } => self.await_size(id, &device, size_gib).await,
            _ => Ok(()),
        }
    }

    async fn modify(&self, id: &VolumeId, size_gib: u32) -> Result<()> {
        let doing = format!("grow volume {id} to {size_gib} GiB");
        let size = i32::try_from(size_gib).unwrap_or(i32::MAX);
        let send = |ec2: &Client| ec2.modify_volume().volume_id(id.as_str()).size(size).send();
        match self.api.call(Action::ModifyVolume, send).await {
            Ok(_) => {}
            // Another run does it, or our call was carried out after all: the modification's target tells.
            Err(failure) if matches!(failure.class(), Class::Conflict | Class::Ambiguous) => {}
            Err(failure) => return Err(failure.into_error(doing)),
        }
        match wait::until(Pace::VOLUME, PATIENCE, &self.cancel, || self.modified(id, size_gib)).await? {
            Some(()) => Ok(()),
            None => Err(Error::new(Kind::Storage, format!("cannot {doing}: not done within {} s", PATIENCE.as_secs()))
                .hint("see the volume's state in the EC2 console")),
        }
    }

    async fn modified(&self, id: &VolumeId, size_gib: u32) -> Result<Option<()>> {
        let send = |ec2: &Client| ec2.describe_volumes_modifications().volume_ids(id.as_str()).send();
        let answer = match self.api.call(Action::DescribeVolumesModifications, send).await {
            Err(failure) if failure.class() == Class::NotFound => return Ok(None),
            answer => answer.map_err(|failure| failure.into_error(format!("see how volume {id} grows")))?,
        };
        let Some(latest) = answer.volumes_modifications().iter().max_by_key(|it| it.start_time().map(|time| time.secs())) else {
            return Ok(None);
        };
        let target = latest.target_size().and_then(|size| u32::try_from(size).ok());
        match latest.modification_state() {
            Some(State::Optimizing | State::Completed) if target == Some(size_gib) => Ok(Some(())),
            Some(State::Optimizing | State::Completed) => Err(other_change(id)),
            Some(State::Failed) => {
                let why = latest.status_message().unwrap_or("EC2 does not say why").to_owned();
                Err(Error::new(Kind::Storage, format!("volume {id} did not grow")).because(why))
            }
            _ => Ok(None),
        }
    }

    async fn await_size(&self, id: &VolumeId, device: &str, size_gib: u32) -> Result<()> {
        let locator = convert::locator(id, device);
        let wanted = u64::from(size_gib) << 30;
        let look = || async { Ok(self.device(&locator).await?.filter(|device| device.size_bytes >= wanted).map(drop)) };
        match wait::until(DEVICE_PACE, DEVICE_PATIENCE, &self.cancel, look).await? {
            Some(()) => Ok(()),
            None => Err(Error::new(Kind::Device, format!("volume {id} grew, but its device {device} did not"))
                .hint("the kernel has not noticed: detach the volume, and run again")),
        }
    }
}

fn other_change(id: &VolumeId) -> Error {
    Error::new(Kind::Storage, format!("volume {id} was changed by somebody else just now"))
        .hint("EC2 lets a volume be changed only now and then: run again in six hours, or without --volume-size")
}
