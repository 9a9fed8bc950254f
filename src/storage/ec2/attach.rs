//! Attaching a volume to this instance, without ever taking one from somebody.

use std::time::Duration;

use aws_sdk_ec2::{Client, types};
use tokio::time::sleep;

use super::convert::{self, Standing};
use super::snapshot::without_retries;
use super::{Inner, unknown_volume};
use crate::aws::api::Action;
use crate::aws::failure::{Class, Failure};
use crate::bake::blocking;
use crate::error::{Error, Kind, Result};
use crate::host::device::{Device, Locator};
use crate::report::Change;
use crate::storage::{Attachment, VolumeId};
use crate::wait::{Pace, Pauses};

/// How many looks may miss a volume that was made just now.
const MISSING_LOOKS: u32 = 3;
/// After EC2 took our call: how many looks may say that the volume is free before we believe them.
const STALE_LOOKS: u32 = 3;
/// While EC2 is waited for as well.
const WATCH_PAUSE: Duration = Duration::from_millis(100);
/// Looking at sysfs costs nothing.
const DEVICE_PACE: Pace = Pace { first: Duration::from_millis(20), factor: 1.5, longest: Duration::from_millis(250) };

/// A device whose coming or going tells that a look at EC2 is worth it.
#[derive(Debug)]
pub(super) struct Watch {
    locator: Locator,
    comes: bool,
    seen: bool,
    told: bool,
}

impl Watch {
    pub(super) fn new(locator: Locator, comes: bool) -> Self {
        Watch { locator, comes, seen: false, told: false }
    }
}

/// What has been seen and done so far in one attachment.
#[derive(Debug, Default)]
struct Progress {
    /// EC2 took a call of ours, or may have.
    asked: bool,
    /// Looks that missed the volume.
    missing: u32,
    /// Looks since our call that showed the volume free.
    free: u32,
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Taken,
    /// Lost, or an error of EC2's own.
    Unknown,
    /// The volume's state is to be looked at again.
    Refused,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Done { device: String },
    Attach,
    Wait,
    Lost { host: String },
    Broken(String),
    Missing,
}

impl Progress {
    /// From the volume's standing; `None`: EC2 does not know the volume.
    fn next(&mut self, standing: Option<Standing>) -> Step {
        match standing {
            None => {
                self.missing += 1;
                if self.missing > MISSING_LOOKS { Step::Missing } else { Step::Wait }
            }
            Some(Standing::Here { device }) => Step::Done { device },
            Some(Standing::Elsewhere { host }) => Step::Lost { host },
            Some(Standing::Broken(why)) => Step::Broken(why),
            Some(Standing::Attaching | Standing::Unsettled) => Step::Wait,
            Some(Standing::Free) if !self.asked => Step::Attach,
            Some(Standing::Free) => {
                self.free += 1;
                if self.free > STALE_LOOKS { Step::Attach } else { Step::Wait }
            }
        }
    }

    /// A call that may have come to nothing is made again at the next look that shows the volume free: if that look was stale, EC2
    /// refuses it.
    fn heard(&mut self, answer: Answer) {
        self.asked |= answer != Answer::Refused;
        self.free = if answer == Answer::Unknown { STALE_LOOKS } else { 0 };
    }
}

impl Inner {
    pub(super) async fn attach(&self, id: &VolumeId) -> Result<(Change, Attachment)> {
        let me = self.identity.instance_id().await?;
        let expected = convert::locator(id, &self.settings.device);
        let (mut progress, mut pauses) = (Progress::default(), Pauses::new(Pace::VOLUME, self.settings.attach_timeout));
        let mut watch = Watch::new(expected, true);
        loop {
            let volume = self.describe_volume(id).await?;
            if let Some(volume) = &volume {
                self.refuse_what_cannot_be_attached(id, volume).await?;
            }
            let standing = volume.as_ref().map(|volume| convert::standing(volume, me));
            match progress.next(standing) {
                Step::Done { device } => return self.arrived(id, device, progress.asked).await,
                Step::Attach => progress.heard(self.call_attach(id, me).await?),
                Step::Wait => {}
                Step::Lost { host } => return Err(attached_elsewhere(id, &host)),
                Step::Broken(why) => {
                    let error = Error::new(Kind::Storage, format!("volume {id} cannot be attached: {why}"));
                    return Err(error.hint("if it is still there, delete it: the next run makes it anew from its last snapshot"));
                }
                Step::Missing => return Err(unknown_volume(id)),
            }
            // The kernel often knows before a poll would tell.
            let early = self.changed(&mut watch);
            if !pauses.pause(&self.cancel, early).await? {
                return Err(self.stuck(id, me));
            }
        }
    }

    /// Calls AttachVolume. The SDK does not repeat the call: refused after an answer that was lost, it could not be told from one that
    /// another run was faster than.
    async fn call_attach(&self, id: &VolumeId, me: &str) -> Result<Answer> {
        let device = &self.settings.device;
        let send = |ec2: &Client| {
            let request = ec2.attach_volume().volume_id(id.as_str()).instance_id(me).device(device);
            request.customize().config_override(without_retries()).send()
        };
        let Err(failure) = self.api.call(Action::AttachVolume, send).await else { return Ok(Answer::Taken) };
        match failure.class() {
            Class::Ambiguous => Ok(Answer::Unknown),
            Class::Retry => Ok(Answer::Refused),
            Class::NotFound if failure.code() == "InvalidVolume.NotFound" => Ok(Answer::Refused),
            Class::Conflict if failure.code() == "InvalidParameterValue" => match self.volume_at(me, device).await? {
                Some(other) if other != id.as_str() => Err(name_taken(device, &other)),
                Some(_) => Ok(Answer::Refused),
                None => Err(failure.into_error(format!("attach volume {id} to {me} as {device}"))),
            },
            Class::Conflict => Ok(Answer::Refused),
            _ => Err(attach_failed(failure, id, me, device)),
        }
    }

    /// The volume that has this device name on the instance.
    pub(super) async fn volume_at(&self, me: &str, device: &str) -> Result<Option<String>> {
        let filters = [convert::filter("attachment.instance-id", me), convert::filter("attachment.device", device)];
        let found = self.matching_volumes(None, filters.to_vec()).await?;
        Ok(found.first().and_then(|volume| volume.volume_id()).map(str::to_owned))
    }

    pub(super) async fn refuse_what_cannot_be_attached(&self, id: &VolumeId, volume: &types::Volume) -> Result<()> {
        if volume.multi_attach_enabled() == Some(true) {
            let message = format!("volume {id} has Multi-Attach enabled, so that other instances could write to it meanwhile");
            return Err(Error::new(Kind::Storage, message).hint("use a volume without Multi-Attach"));
        }
        let (zone, ours) = (volume.availability_zone().unwrap_or_default(), self.identity.availability_zone().await?);
        if zone != ours {
            let message = format!("volume {id} is in zone {zone}, and this instance in {ours}");
            let hint = "leave --volume-id out, and a volume is made in this zone from the newest snapshot of its name";
            return Err(Error::new(Kind::Storage, message).hint(hint));
        }
        Ok(())
    }

    /// The volume is attached: waits for its device.
    async fn arrived(&self, id: &VolumeId, device: String, asked: bool) -> Result<(Change, Attachment)> {
        if device != self.settings.device {
            self.report.note(format!("volume {id} is attached already, as {device}"));
        }
        let locator = convert::locator(id, &device);
        let mut pauses = Pauses::new(DEVICE_PACE, self.settings.attach_timeout);
        loop {
            let seen = self.device(&locator).await;
            if let Ok(Some(_)) = seen {
                let change = if asked { Change::Created } else { Change::Unchanged };
                return Ok((change, Attachment::Here { device, locator }));
            }
            if !pauses.pause(&self.cancel, std::future::pending()).await? {
                return Err(seen.err().unwrap_or_else(|| self.never_appeared(id, &device)));
            }
        }
    }

    pub(super) async fn device(&self, locator: &Locator) -> Result<Option<Device>> {
        let (sysfs, locator) = (self.sysfs.clone(), locator.clone());
        blocking(move || sysfs.find(&locator)).await
    }

    /// Completes when the device has come, or gone; once.
    pub(super) async fn changed(&self, watch: &mut Watch) {
        while !watch.seen {
            watch.seen = self.device(&watch.locator).await.is_ok_and(|device| device.is_some() == watch.comes);
            if !watch.seen {
                sleep(WATCH_PAUSE).await;
            }
        }
        if std::mem::replace(&mut watch.told, true) {
            std::future::pending().await
        }
    }
}

fn attached_elsewhere(id: &VolumeId, host: &str) -> Error {
    Error::new(Kind::Contended, format!("volume {id} is attached to {host}"))
        .hint("wait for the run there to end, or use another --volume-name")
}

fn name_taken(device: &str, other: &str) -> Error {
    Error::new(Kind::Storage, format!("{device} is taken on this instance by volume {other}"))
        .hint("detach that volume, or give another name with --device")
}

impl Inner {
    fn stuck(&self, id: &VolumeId, me: &str) -> Error {
        let seconds = self.settings.attach_timeout.as_secs();
        Error::new(Kind::Storage, format!("volume {id} was not attached to {me} within {seconds} s"))
            .hint("it is stuck: see its state in the EC2 console; another --device, or a reboot of the instance, often helps")
    }

    fn never_appeared(&self, id: &VolumeId, device: &str) -> Error {
        let seconds = self.settings.attach_timeout.as_secs();
        Error::new(Kind::Device, format!("volume {id} is attached as {device}, but its device did not appear within {seconds} s"))
            .hint("is this process on the instance that --instance-id names? see `lsblk -o NAME,SERIAL`")
    }
}

fn attach_failed(failure: Failure, id: &VolumeId, me: &str, device: &str) -> Error {
    failure.into_error(format!("attach volume {id} to {me} as {device}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(standings: &[Option<Standing>]) -> Vec<Step> {
        let mut progress = Progress::default();
        let mut step = |standing: &Option<Standing>| {
            let step = progress.next(standing.clone());
            if step == Step::Attach {
                progress.heard(Answer::Taken);
            }
            step
        };
        standings.iter().map(&mut step).collect()
    }

    fn here() -> Option<Standing> {
        Some(Standing::Here { device: "/dev/sdf".into() })
    }

    #[test]
    fn what_is_free_is_attached_once_however_stale_the_answers_are() {
        let free = Some(Standing::Free);
        let done = Step::Done { device: "/dev/sdf".into() };
        assert_eq!(steps(&[here()]), std::slice::from_ref(&done));
        assert_eq!(
            steps(&[free.clone(), free.clone(), Some(Standing::Attaching), free, here()]),
            [Step::Attach, Step::Wait, Step::Wait, Step::Wait, done]
        );
    }

    #[test]
    fn what_was_detached_again_by_somebody_is_attached_again() {
        let free = || Some(Standing::Free);
        let expected = [Step::Attach, Step::Wait, Step::Wait, Step::Wait, Step::Attach];
        assert_eq!(steps(&[free(), free(), free(), free(), free()]), expected);
    }

    #[test]
    fn a_call_that_came_to_nothing_is_made_again_at_once() {
        let mut progress = Progress::default();
        let heard = [Answer::Refused, Answer::Unknown, Answer::Unknown].map(|answer| {
            assert_eq!(progress.next(Some(Standing::Free)), Step::Attach);
            progress.heard(answer);
            progress.asked
        });
        assert_eq!(heard, [false, true, true]);
        // Without an answer it may have been ours: what is attached now is given back in the end.
        assert_eq!(progress.next(here()), Step::Done { device: "/dev/sdf".into() });
    }

    #[test]
    fn nothing_is_taken_from_another_instance() {
        let other = Some(Standing::Elsewhere { host: "i-2".into() });
        assert_eq!(steps(&[other]), [Step::Lost { host: "i-2".into() }]);
        assert_eq!(steps(&[Some(Standing::Unsettled)]), [Step::Wait]);
    }

    #[test]
    fn a_volume_that_is_not_visible_yet_gets_some_looks() {
        assert_eq!(steps(&[None, None, None, here()])[2..], [Step::Wait, Step::Done { device: "/dev/sdf".into() }]);
        assert_eq!(steps(&[None, None, None, None])[3], Step::Missing);
    }
}
