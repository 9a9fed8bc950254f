//! What EC2 would say to a bake: looks, and calls with DryRun, which change nothing. `ebs-bake doctor` asks it. `beside.rs` asks for the
//! other commands.

use std::error::Error as StdError;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::types::{OperationType, SnapshotAttributeName};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use jiff::fmt::rfc2822::DateTimeParser;
use jiff::{SignedDuration, Timestamp};

use super::{Ec2Store, Inner, PAGE, convert, random_run, snapshot};
use crate::aws::api::{Action, Service};
use crate::aws::failure::{Class, Failure};
use crate::error::{Error, Kind, Result};
use crate::host::identity::{Document, Stated};
use crate::storage::{BlockStorage, NewSnapshot, NewVolume, Snapshot, SnapshotId, SnapshotQuery, Volume, VolumeQuery};

mod beside;

/// How long one question may take, with all that the SDK repeats.
const PATIENCE: Duration = Duration::from_secs(10);
/// STS may be out of reach where EC2 is not, and nothing but this asks it.
const STS_PATIENCE: Duration = Duration::from_secs(5);
/// What EC2 appends to a denial: some hundred characters that only DecodeAuthorizationMessage can read.
const ENCODED: &str = "Encoded authorization failure message";

/// Whether the caller may call an action.
#[derive(Debug)]
pub enum Permission {
    /// EC2 says so.
    Granted,
    /// The call would be refused.
    Refused(Error),
    /// EC2 answered something else, with this code.
    Untold(String),
}

/// Who calls.
#[derive(Debug)]
pub enum Caller {
    /// STS knows them: their ARN.
    Known(String),
    /// There are none, or they are not valid.
    Refused(Error),
    /// STS did not answer.
    Unasked(Error),
}

/// The volumes that match.
#[derive(Debug)]
pub struct Found {
    /// Oldest first.
    pub volumes: Vec<Volume>,
    /// Why the one that matches cannot be attached to this instance.
    pub unfit: Option<Error>,
}

/// What the calls are about.
#[derive(Debug)]
pub struct Subject {
    /// The volume that a bake would make.
    pub new: NewVolume,
    /// The volume that is there, and the snapshot that a bake would take of it.
    pub present: Option<(Volume, NewSnapshot)>,
    /// The newest snapshot of its name.
    pub latest: Option<SnapshotId>,
    /// The size that it would grow to, in GiB.
    pub grow_to: u32,
}

/// Questions to EC2.
pub struct Preflight<'a> {
    store: &'a Ec2Store,
    /// By how much this host's clock is ahead of EC2's.
    ahead: Mutex<Option<SignedDuration>>,
}

impl Ec2Store {
    /// Asks nothing yet.
    pub fn preflight(&self) -> Preflight<'_> {
        Preflight { store: self, ahead: Mutex::default() }
    }
}

impl Preflight<'_> {
    fn inner(&self) -> &Inner {
        &self.store.inner
    }

    /// What the user says of this instance.
    pub fn stated(&self) -> &Stated {
        self.inner().identity.stated()
    }

    /// What the metadata service says of this instance.
    ///
    /// # Errors
    /// `Usage`, when it does not answer.
    pub async fn document(&self) -> Result<&Document> {
        self.inner().identity.document().await
    }

    /// The region.
    ///
    /// # Errors
    /// `Usage`, when none is named anywhere.
    pub async fn region(&self) -> Result<String> {
        let api = &self.inner().api;
        let known = tokio::time::timeout(PATIENCE, api.config()).await.is_ok();
        let nowhere = || Error::new(Kind::Usage, "no AWS region is named").hint("give --region, or set AWS_REGION");
        known.then(|| api.region()).flatten().ok_or_else(nowhere)
    }

    /// Asks STS whose the credentials are, which needs no permission.
    pub async fn caller(&self) -> Caller {
        let send = |sts: &aws_sdk_sts::Client| {
            let sent = sts.get_caller_identity().send();
            async move {
                let answer = sent.await;
                self.note_time(&answer);
                answer
            }
        };
        let answer = tokio::time::timeout(STS_PATIENCE, self.inner().api.call(Action::GetCallerIdentity, send));
        match answer.await.unwrap_or_else(|_| Err(silence(Action::GetCallerIdentity))) {
            Ok(identity) => Caller::Known(identity.arn().unwrap_or("an identity without an ARN").to_owned()),
            Err(failure) if failure.missing.is_none() && matches!(failure.class(), Class::Ambiguous | Class::Retry) => {
                Caller::Unasked(failure.into_error("ask STS whose the credentials are"))
            }
            Err(failure) => Caller::Refused(failure.into_error("ask STS whose the credentials are")),
        }
    }

    /// The volumes that match, and whether the one can be attached here.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn volumes(&self, query: &VolumeQuery) -> Result<Found> {
        let described = within(Action::DescribeVolumes, "look for volumes", self.inner().describe_volumes(query)).await?;
        let mut volumes = self.inner().converted(&described).await?;
        let unfit = match (volumes.as_slice(), described.as_slice()) {
            ([volume], [described]) => self.inner().refuse_what_cannot_be_attached(&volume.id, described).await.err(),
            _ => None,
        };
        volumes.sort_by_key(|volume| volume.created);
        Ok(Found { volumes, unfit })
    }

    /// The snapshots that match, oldest first.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn snapshots(&self, query: &SnapshotQuery) -> Result<Vec<Snapshot>> {
        within(Action::DescribeSnapshots, "look for snapshots", self.store.snapshots(query)).await
    }

    /// The name that a volume gets on being attached, and the volume that has it on this instance.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn device(&self) -> Result<(&str, Option<String>)> {
        let me = self.inner().identity.instance_id().await?;
        let device = self.inner().settings.device.as_str();
        let look = self.inner().volume_at(me, device);
        Ok((device, within(Action::DescribeVolumes, "look for what is attached", look).await?))
    }

    /// How many snapshots of this account are pending in the region, whoever takes them.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn pending_snapshots(&self) -> Result<usize> {
        let doing = "count the pending snapshots";
        let count = async {
            let (mut count, mut page) = (0, None::<String>);
            loop {
                let send = |ec2: &Client| {
                    let request = ec2.describe_snapshots().owner_ids("self").max_results(PAGE);
                    request.filters(convert::filter("status", "pending")).set_next_token(page.clone()).send()
                };
                let answer = self.inner().api.call(Action::DescribeSnapshots, send).await;
                let answer = answer.map_err(|failure| failure.into_error(doing))?;
                count += answer.snapshots().len();
                page = answer.next_token().filter(|token| !token.is_empty()).map(str::to_owned);
                if page.is_none() {
                    return Ok(count);
                }
            }
        };
        within(Action::DescribeSnapshots, doing, count).await
    }

    /// By how much this host's clock is ahead of AWS's, if an answer told: those to DryRun calls do.
    pub fn clock_ahead(&self) -> Option<SignedDuration> {
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a bake's call of this action would be permitted: the same call, with DryRun. `None`: it would be about a volume
    /// or a snapshot, and there is none.
    pub async fn permission(&self, action: Action, about: &Subject) -> Option<Permission> {
        let me = match self.inner().identity.instance_id().await {
            Ok(me) => me,
            Err(error) => return Some(Permission::Refused(error)),
        };
        let zone = match self.inner().identity.availability_zone().await {
            Ok(zone) => zone,
            Err(error) => return Some(Permission::Refused(error)),
        };
        let run = random_run().unwrap_or_default();
        let inner = self.inner();
        match action {
            // Its client token is its own: the one that runs share must not be used up.
            Action::CreateVolume => {
                let send = |ec2: &Client| inner.volume_request(ec2, &about.new, zone, &run).dry_run(true).send();
                return Some(self.tried(action, send).await);
            }
            Action::DescribeVolumesModifications => {
                let send = |ec2: &Client| ec2.describe_volumes_modifications().dry_run(true).send();
                return Some(self.tried(action, send).await);
            }
            _ => {}
        }
        if let Action::CopySnapshot
        | Action::DeleteSnapshot
        | Action::DescribeSnapshotAttribute
        | Action::ModifySnapshotAttribute = action
        {
            return Some(self.permission_on_snapshot(action, about.latest.as_ref()?.as_str()).await);
        }
        let (volume, snapshot) = about.present.as_ref()?;
        let id = volume.id.as_str();
        Some(match action {
            Action::AttachVolume => {
                let device = &inner.settings.device;
                let request = |ec2: &Client| ec2.attach_volume().volume_id(id).instance_id(me).device(device);
                self.tried(action, |ec2| request(ec2).dry_run(true).send()).await
            }
            Action::DetachVolume => {
                let request = |ec2: &Client| ec2.detach_volume().volume_id(id).instance_id(me);
                self.tried(action, |ec2| request(ec2).dry_run(true).send()).await
            }
            Action::CreateSnapshot => self.tried(action, |ec2| snapshot::request(ec2, snapshot, &run).dry_run(true).send()).await,
            Action::ModifyVolume => {
                let size = i32::try_from(about.grow_to).unwrap_or(i32::MAX);
                self.tried(action, |ec2| ec2.modify_volume().volume_id(id).size(size).dry_run(true).send()).await
            }
            Action::DeleteVolume => self.tried(action, |ec2| ec2.delete_volume().volume_id(id).dry_run(true).send()).await,
            _ => return None,
        })
    }

    /// The actions beside the bake itself; a copy is tried within the region.
    async fn permission_on_snapshot(&self, action: Action, id: &str) -> Permission {
        let attribute = SnapshotAttributeName::CreateVolumePermission;
        match action {
            Action::CopySnapshot => {
                let region = self.inner().api.region().unwrap_or_default();
                let request = |ec2: &Client| ec2.copy_snapshot().source_region(region.clone()).source_snapshot_id(id);
                self.tried(action, |ec2| request(ec2).dry_run(true).send()).await
            }
            Action::DescribeSnapshotAttribute => {
                let request = |ec2: &Client| ec2.describe_snapshot_attribute().snapshot_id(id).attribute(attribute.clone());
                self.tried(action, |ec2| request(ec2).dry_run(true).send()).await
            }
            Action::ModifySnapshotAttribute => {
                let request = |ec2: &Client| ec2.modify_snapshot_attribute().snapshot_id(id).attribute(attribute.clone());
                let request = |ec2: &Client| request(ec2).operation_type(OperationType::Add).user_ids(SOMEBODY);
                self.tried(action, |ec2| request(ec2).dry_run(true).send()).await
            }
            _ => self.tried(action, |ec2| ec2.delete_snapshot().snapshot_id(id).dry_run(true).send()).await,
        }
    }

    async fn tried<T, E, F>(&self, action: Action, make: impl Fn(&Client) -> F) -> Permission
    where
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        judged(action, self.answer(action, make).await)
    }

    /// What comes of a call, in time.
    async fn answer<C, T, E, F>(&self, action: Action, make: impl Fn(&C) -> F) -> Result<(), Failure>
    where
        C: Service,
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        let make = |client: &C| {
            let sent = make(client);
            async move {
                let answer = sent.await;
                self.note_time(&answer);
                answer
            }
        };
        let answer = tokio::time::timeout(PATIENCE, self.inner().api.call(action, make)).await;
        answer.unwrap_or_else(|_| Err(silence(action))).map(drop)
    }

    fn note_time<T, E>(&self, answer: &Result<T, SdkError<E, HttpResponse>>) {
        let Some(date) = answer.as_ref().err().and_then(SdkError::raw_response).and_then(|raw| raw.headers().get("date")) else {
            return;
        };
        if let Ok(theirs) = DateTimeParser::new().parse_timestamp(date) {
            let ahead = Timestamp::now().duration_since(theirs);
            *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = Some(ahead);
        }
    }
}

/// An account that is nobody's (AWS' documentation).
const SOMEBODY: &str = "111122223333";

/// What the answer to a call with DryRun means.
fn judged(action: Action, answer: Result<(), Failure>) -> Permission {
    let name = format!("{action:?}");
    let Err(mut failure) = answer else {
        let message = format!("the endpoint carried {name} out although DryRun was set");
        return Permission::Refused(
            Error::new(Kind::Storage, message).hint("see what it made; whether EC2 would permit it is not known"),
        );
    };
    if let Some((text, _)) = failure.message.split_once(ENCODED) {
        failure.message = text.trim().to_owned();
    }
    match (failure.code(), failure.class()) {
        ("DryRunOperation", _) => Permission::Granted,
        // The launch template may leave to Auto Scaling what a launch by hand needs: a subnet, a machine's type.
        _ if action == Action::RunInstances && failure.kind() != Kind::Permission => {
            Permission::Untold(failure.code().to_owned())
        }
        // About the state of the volume now, which is another one when a bake calls; and about too many calls.
        ("InvalidAttachment.NotFound", _) | (_, Class::Conflict | Class::Retry | Class::Limited | Class::TokenUsed) => {
            Permission::Untold(failure.code().to_owned())
        }
        _ => Permission::Refused(refusal(failure)),
    }
}

/// What was refused is told beside it.
fn refusal(failure: Failure) -> Error {
    let why = failure.code.clone().unwrap_or_else(|| "no answer".to_owned());
    let error = Error::new(failure.kind(), why);
    let error = failure.hint().into_iter().fold(error, Error::hint);
    if failure.message.is_empty() { error } else { error.because(failure.message) }
}

fn silence(action: Action) -> Failure {
    Failure { action, code: None, status: None, message: String::new(), missing: None }
}

/// The work, in time.
pub(crate) async fn within<T>(action: Action, doing: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let in_time = tokio::time::timeout(PATIENCE, work).await;
    in_time.unwrap_or_else(|_| Err(silence(action).into_error(doing)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: &str, status: u16, message: &str) -> Permission {
        let (code, message) = (Some(code.to_owned()), message.to_owned());
        judged(Action::DetachVolume, Err(Failure { code, status: Some(status), message, ..silence(Action::DetachVolume) }))
    }

    #[test]
    fn a_dry_run_that_would_have_succeeded_is_a_permission() {
        assert!(matches!(answered("DryRunOperation", 412, ""), Permission::Granted));
        for about_state in ["IncorrectState", "VolumeInUse", "InvalidAttachment.NotFound", "RequestLimitExceeded"] {
            assert!(matches!(answered(about_state, 400, ""), Permission::Untold(code) if code == about_state));
        }
        for refused in ["InvalidParameterValue", "InvalidInstanceID.NotFound", "AuthFailure"] {
            assert!(matches!(answered(refused, 400, ""), Permission::Refused(_)), "{refused}");
        }
        assert!(matches!(judged(Action::CreateVolume, Ok(())), Permission::Refused(_)), "it was no dry run");
    }

    #[test]
    fn a_denial_is_told_without_what_nobody_can_read() {
        let text = "You are not authorized to perform: ec2:DetachVolume. Encoded authorization failure message: x8dfKJH";
        let Permission::Refused(error) = answered("UnauthorizedOperation", 403, text) else { panic!("it was refused") };
        assert_eq!(error.kind(), Kind::Permission);
        assert_eq!(error.to_string(), "UnauthorizedOperation");
        assert_eq!(error.causes(), ["You are not authorized to perform: ec2:DetachVolume."]);
    }

    #[test]
    fn the_date_of_an_answer_is_read() {
        let read = DateTimeParser::new().parse_timestamp("Tue, 24 Nov 2026 13:45:52 GMT").unwrap();
        assert_eq!(read.to_string(), "2026-11-24T13:45:52Z");
    }
}
