//! Detaching a volume from this instance, but never under somebody's feet.

use std::time::Duration;

use aws_sdk_ec2::Client;

use super::attach::Watch;
use super::{Inner, convert};
use crate::aws::api::Action;
use crate::aws::failure::Class;
use crate::bake::blocking;
use crate::cancel::Cancel;
use crate::error::{Error, Kind, Result};
use crate::host::device::Device;
use crate::host::lock::{DeviceLock, Exclusive};
use crate::storage::VolumeId;
use crate::storage::ec2::convert::Standing;
use crate::wait::{Pace, Pauses};

/// How many looks may show the volume attached after EC2 took our call, or free while the kernel has it, before we believe them.
const STALE_LOOKS: u32 = 3;
/// A detachment takes some seconds; one that takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(180);

impl Inner {
    /// Is not cancelled: it gives back what was taken. The attachment belongs to the instance and not to this process, so
    /// that a volume that another run uses stays attached: that run, or the next, has found it so and leaves it so.
    pub(super) async fn detach(&self, id: &VolumeId, mut lock: Option<DeviceLock>) -> Result<()> {
        let me = self.identity.instance_id().await?;
        let mut pauses = Pauses::new(Pace::VOLUME, PATIENCE);
        let mut watch = Watch::new(convert::locator(id, &self.settings.device), false);
        loop {
            let held = match lock.take() {
                Some(lock) => Some(lock),
                None => match self.lock_unused(id).await? {
                    Use::Unused(lock) => lock,
                    Use::InUse => {
                        self.report.note(format!("volume {id} stays attached: another run uses it"));
                        return Ok(());
                    }
                },
            };
            let taken = self.call_detach(id, me).await?;
            if self.is_detached(id, me, held, taken, &mut pauses, &mut watch).await? {
                return Ok(());
            }
        }
    }

    /// Waits until the volume is detached; `false`: the call came to nothing, as looks that agree say. The lock is given up
    /// before it is made again, for the device may be another run's by then.
    async fn is_detached(
        &self,
        id: &VolumeId,
        me: &str,
        mut lock: Option<DeviceLock>,
        taken: bool,
        pauses: &mut Pauses,
        watch: &mut Watch,
    ) -> Result<bool> {
        // What EC2 refused because there is nothing to detach is contradicted by the first look at an attachment.
        let patience = if taken { STALE_LOOKS } else { 0 };
        let (mut here, mut gone) = (0, 0);
        loop {
            let early = self.changed(watch);
            if !pauses.pause(&Cancel::new(), early).await? {
                return Err(stuck(id, me));
            }
            match self.describe_volume(id).await?.map(|volume| convert::standing(&volume, me)) {
                // One that hangs while it is being attached stays so unless it is detached.
                Some(Standing::Here { .. } | Standing::Attaching) if here == patience => return Ok(false),
                Some(Standing::Here { .. } | Standing::Attaching) => here += 1,
                // Whoever waits for the lock looks at the volume's state when it has it. Xen gives a disk back only when
                // nobody has it open.
                Some(Standing::Unsettled) => drop(lock.take()),
                // As long as the kernel has the device the answer may be from before the attachment.
                Some(Standing::Free | Standing::Broken(_) | Standing::Elsewhere { .. }) | None => {
                    if gone == STALE_LOOKS || self.device_by_serial(id).await.is_none() {
                        return Ok(true);
                    }
                    gone += 1;
                }
            }
        }
    }

    /// The volume's device, whatever EC2 says. By its name alone, as Xen has it, it could be another volume by now.
    async fn device_by_serial(&self, id: &VolumeId) -> Option<Device> {
        self.device(&convert::locator(id, "")).await.ok().flatten()
    }

    /// Makes sure that no other run on this host uses the volume, and that it is not mounted.
    pub(super) async fn lock_unused(&self, id: &VolumeId) -> Result<Use> {
        let Some(volume) = self.describe_volume(id).await? else { return Ok(Use::Unused(None)) };
        // A device that is not there, or that does not tell which volume it is, is one that no run has used.
        let device = match convert::standing(&volume, self.identity.instance_id().await?) {
            Standing::Here { device } => self.device(&convert::locator(id, &device)).await.ok().flatten(),
            // The answer may be older than the attachment.
            _ => self.device_by_serial(id).await,
        };
        let Some(device) = device else { return Ok(Use::Unused(None)) };
        blocking(move || {
            let lock = match DeviceLock::acquire(&device, Duration::ZERO, &Cancel::new(), |_, _| {}) {
                Ok(lock) => lock,
                Err(error) if error.kind() == Kind::Contended => return Ok(Use::InUse),
                Err(error) => return Err(error),
            };
            Exclusive::probe(&device)?;
            Ok(Use::Unused(Some(lock)))
        })
        .await
    }

    /// Calls DetachVolume; whether EC2 took it. `false`: it says that there is nothing to detach, which a look has to confirm.
    async fn call_detach(&self, id: &VolumeId, me: &str) -> Result<bool> {
        let send = |ec2: &Client| ec2.detach_volume().volume_id(id.as_str()).instance_id(me).send();
        match self.api.call(Action::DetachVolume, send).await {
            Ok(_) => Ok(true),
            Err(failure) => match failure.class() {
                Class::NotFound | Class::Conflict => Ok(false),
                Class::Ambiguous => Ok(true),
                _ => Err(failure.into_error(format!("detach volume {id} from {me}"))),
            },
        }
    }
}

/// Whether something on this host uses a volume.
pub(super) enum Use {
    /// By nobody; a device that is there is locked.
    Unused(Option<DeviceLock>),
    InUse,
}

fn stuck(id: &VolumeId, me: &str) -> Error {
    let message = format!("volume {id} was not detached from {me} within {} s", PATIENCE.as_secs());
    Error::new(Kind::Storage, message).hint("see its state in the EC2 console; is it still in use on the instance?")
}
