//! Making a volume: once, even when several runs want it at the same time.

use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::operation::create_volume::builders::CreateVolumeFluentBuilder;
use aws_sdk_ec2::types::{self, ResourceType, VolumeType};

use super::convert::{self, Standing};
use super::{Inner, random_run};
use crate::aws::api::Action;
use crate::aws::client_token;
use crate::aws::failure::Class;
use crate::cancel::Cancel;
use crate::error::{Error, Kind, Result};
use crate::report::Change;
use crate::storage::{NewVolume, SnapshotId, Volume, VolumeId, VolumeQuery};
use crate::wait::{self, Pace, Pauses};

/// How long a volume may be `creating`.
const PATIENCE: Duration = Duration::from_secs(5 * 60);
/// How long a volume that another run made just now may take to show up.
const VISIBLE: Duration = Duration::from_secs(15);
/// How many volumes for one wish may have been made and deleted while EC2 remembers their tokens.
const GENERATIONS: u32 = 4;
/// How long deleting a volume that came to nothing is tried.
const DELETE_PATIENCE: Duration = Duration::from_secs(60);

impl Inner {
    /// The client token is the same for all runs that want the same volume in this zone, but each run has a tag of its own in
    /// the call: EC2 makes the volume for one of them and tells the others of a mismatch, so that each knows whose it is.
    ///
    /// EC2 remembers a token for hours, also when its volume is gone. Then all runs take the same next token, for those that
    /// waited for a run that failed all come here at the same time.
    pub(super) async fn create_volume(&self, new: &NewVolume) -> Result<(Change, Volume)> {
        let zone = self.identity.availability_zone().await?.to_owned();
        let run = random_run()?;
        let mut token = new.token.as_deref().map_or_else(|| run.clone(), |token| client_token(&[token, &zone]));
        for generation in 1..=GENERATIONS {
            if let Called::Made(id) = self.call_create_volume(new, &zone, &run, &token).await? {
                return self.settled(id, &run).await;
            }
            if let Some(id) = self.made_by_another(new).await? {
                return self.settled(id, &run).await;
            }
            // The last one is nobody else's: a volume too many is told to the next run, none at all helps nobody.
            token = client_token(&[&token, if generation < GENERATIONS { "again" } else { &run }]);
        }
        match self.call_create_volume(new, &zone, &run, &token).await? {
            Called::Made(id) => self.settled(id, &run).await,
            Called::TokenUsed => Err(Error::new(Kind::Storage, "EC2 takes a new client token for a used one").hint("run again")),
        }
    }

    /// CreateVolume, not sent yet.
    pub(super) fn volume_request(&self, ec2: &Client, new: &NewVolume, zone: &str, run: &str) -> CreateVolumeFluentBuilder {
        let settings = &self.settings.volume;
        let signed = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        ec2.create_volume()
            .availability_zone(zone)
            .size(signed(new.size_gib))
            .volume_type(VolumeType::from(settings.kind.as_str()))
            .set_snapshot_id(new.source.as_ref().map(ToString::to_string))
            .set_iops(settings.iops.map(signed))
            .set_throughput(settings.throughput.map(signed))
            .set_encrypted((settings.encrypted || settings.kms_key_id.is_some()).then_some(true))
            .set_kms_key_id(settings.kms_key_id.clone())
            // Only a volume that is made from a snapshot has anything to load.
            .set_volume_initialization_rate(new.source.as_ref().and(settings.initialization_rate).map(signed))
            .tag_specifications(convert::specification(ResourceType::Volume, &new.tags, run))
    }

    async fn call_create_volume(&self, new: &NewVolume, zone: &str, run: &str, token: &str) -> Result<Called> {
        let send = |ec2: &Client| self.volume_request(ec2, new, zone, run).client_token(token).send();
        match self.api.call(Action::CreateVolume, send).await {
            Ok(output) => match output.volume_id() {
                Some(id) => Ok(Called::Made(id.parse()?)),
                None => Err(Error::new(Kind::Storage, "EC2's answer lacks the volume's ID")),
            },
            Err(failure) if failure.class() == Class::TokenUsed => Ok(Called::TokenUsed),
            Err(failure) => Err(failure.into_error(doing(new.source.as_ref(), zone))),
        }
    }

    /// The volume that another run made with our token: it has the same tags.
    async fn made_by_another(&self, new: &NewVolume) -> Result<Option<VolumeId>> {
        let query = VolumeQuery { id: None, tags: new.tags.clone() };
        let look = || async {
            let found = self.describe_volumes(&query).await?;
            Ok(found.first().and_then(|volume| volume.volume_id()).map(str::to_owned))
        };
        // If we deleted a volume, it was the one that the token was used for: none will show up.
        let patience = if self.deleted.load(Ordering::Relaxed) { Duration::ZERO } else { VISIBLE };
        let found = wait::until(Pace::VOLUME, patience, &self.cancel, look).await?;
        found.map(|id| id.parse()).transpose()
    }

    /// Waits until the volume can be attached. One that this run made and that comes to nothing is deleted again.
    async fn settled(&self, id: VolumeId, run: &str) -> Result<(Change, Volume)> {
        let mut seen = None;
        let settled = self.await_available(&id, &mut seen).await;
        let ours = seen.as_ref().is_none_or(|volume: &types::Volume| convert::run_of(volume.tags()) == Some(run));
        match settled {
            Ok(volume) => {
                let change = if ours { Change::Created } else { Change::Unchanged };
                let volume = self.converted(std::slice::from_ref(&volume)).await?;
                volume.into_iter().next().map(|volume| (change, volume)).ok_or_else(|| super::unknown_volume(&id))
            }
            Err(error) => {
                if ours {
                    self.delete_again(&id).await;
                }
                Err(error)
            }
        }
    }

    async fn await_available(&self, id: &VolumeId, seen: &mut Option<types::Volume>) -> Result<types::Volume> {
        let mut pauses = Pauses::new(Pace::VOLUME, PATIENCE);
        loop {
            if let Some(volume) = self.describe_volume(id).await? {
                let volume = seen.insert(volume);
                match (convert::standing(volume, ""), volume.state()) {
                    (Standing::Broken(why), _) => {
                        let hint = "the volume's status in the EC2 console may say more; --kms-key-id: may the job use the key?";
                        return Err(Error::new(Kind::Storage, format!("volume {id} came to nothing: {why}")).hint(hint));
                    }
                    (_, Some(types::VolumeState::Creating)) => {}
                    _ => return Ok(volume.clone()),
                }
            }
            if !pauses.pause(&self.cancel, std::future::pending()).await? {
                let message = format!("volume {id} was not available within {} s", PATIENCE.as_secs());
                return Err(Error::new(Kind::Storage, message).hint("see its state in the EC2 console"));
            }
        }
    }

    /// One that is still being made cannot be deleted yet.
    async fn delete_again(&self, id: &VolumeId) {
        let mut pauses = Pauses::new(Pace::VOLUME, DELETE_PATIENCE);
        while let Err(error) = self.delete_volume(id).await {
            if !matches!(pauses.pause(&Cancel::new(), std::future::pending()).await, Ok(true)) {
                self.report.warn(format!("volume {id} is left over: {error}"));
                return;
            }
        }
    }
}

enum Called {
    Made(VolumeId),
    TokenUsed,
}

fn doing(source: Option<&SnapshotId>, zone: &str) -> String {
    match source {
        Some(snapshot) => format!("make a volume from {snapshot} in {zone}"),
        None => format!("make a volume in {zone}"),
    }
}
