//! Taking a snapshot exactly once, over an API that has no token for it.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::operation::create_snapshot::CreateSnapshotOutput;
use aws_sdk_ec2::operation::create_snapshot::builders::CreateSnapshotFluentBuilder;
use aws_sdk_ec2::types::{self, ResourceType};

use super::{Inner, convert, random_run};
use crate::aws::api::Action;
use crate::aws::failure::{Class, Failure};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::key::tag;
use crate::storage::{NewSnapshot, Snapshot, SnapshotQuery, Tags};
use crate::wait::{self, Pace, Pauses};

/// After a call without an answer: how long the snapshot may take to show up.
const SETTLE: Duration = Duration::from_secs(60);
/// How often a call that EC2 answered with a server error, and that left no trace, is made again.
const TRIES: u32 = 3;
/// EC2 takes one snapshot of a volume every fifteen seconds (Amazon EBS User Guide, "Quotas for Amazon EBS").
const RATE: Pace = Pace { first: Duration::from_secs(15), factor: 1.0, longest: Duration::from_secs(15) };
const RATE_PATIENCE: Duration = Duration::from_secs(5 * 60);
/// In characters (API reference, CreateSnapshot).
pub(super) const MAX_DESCRIPTION: usize = 255;
/// Pending snapshots take minutes to make room.
const LIMIT: Pace = Pace { first: Duration::from_secs(30), factor: 1.5, longest: Duration::from_secs(120) };
const LIMIT_PATIENCE: Duration = Duration::from_secs(30 * 60);

/// How a snapshot came to be known.
pub(super) enum Made<T> {
    /// By the answer to the call.
    Told(T),
    /// By looking, for the answer was lost.
    Found(Snapshot),
}

impl Inner {
    /// Cancelled by dropping it.
    pub(super) async fn create_snapshot(&self, new: &NewSnapshot) -> Result<Snapshot> {
        let call = |run: String| async move {
            let send = |ec2: &Client| request(ec2, new, &run).customize().config_override(without_retries()).send();
            self.api.call(Action::CreateSnapshot, send).await
        };
        match self.make_once(&format!("take a snapshot of volume {}", new.volume), call).await? {
            Made::Told(output) => convert::snapshot(&as_snapshot(output)),
            Made::Found(snapshot) => Ok(snapshot),
        }
    }

    /// Makes a snapshot by a call that has no client token and that is not retried by the SDK. The call puts the run that it
    /// is given in a tag, by which its work is known if its answer is not.
    pub(super) async fn make_once<T, F>(&self, doing: &str, call: impl Fn(String) -> F) -> Result<Made<T>>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let run = random_run()?;
        let (mut rate, mut limit) = (Pauses::new(RATE, RATE_PATIENCE), Pauses::new(LIMIT, LIMIT_PATIENCE));
        let (mut ambiguous, nobody) = (0, Cancel::new());
        loop {
            let failure = match call(run.clone()).await {
                Ok(answer) => return Ok(Made::Told(answer)),
                Err(failure) => failure,
            };
            let again = match failure.class() {
                Class::Retry => {
                    self.report.note(format!("EC2 wants a pause ({}); waiting", failure.code()));
                    rate.pause(&nobody, std::future::pending()).await?
                }
                Class::Limited => {
                    self.report.note(format!("too many snapshots are pending ({}); waiting", failure.code()));
                    limit.pause(&nobody, std::future::pending()).await?
                }
                Class::Ambiguous => {
                    if let Some(made) = self.made_by(&run, failure.action).await? {
                        return Ok(Made::Found(made));
                    }
                    ambiguous += 1;
                    // An answer, if only of a server error, and no trace after a minute: it was not done.
                    failure.status.is_some() && ambiguous < TRIES
                }
                _ => false,
            };
            if !again {
                return Err(given_up(failure, doing));
            }
        }
    }

    /// The snapshot that the call made after all, looked for with patience.
    async fn made_by(&self, run: &str, action: Action) -> Result<Option<Snapshot>> {
        self.report.note(format!("{action:?} had no proper answer; looking whether it was carried out"));
        let query = SnapshotQuery { id: None, tags: Tags::from([(tag::RUN.to_owned(), run.to_owned())]) };
        self.show_up(&query).await
    }

    /// The oldest snapshot that matches, as soon as it can be seen.
    pub(super) async fn show_up(&self, query: &SnapshotQuery) -> Result<Option<Snapshot>> {
        let look = || async {
            let mut found = self.describe_snapshots(query).await?;
            found.sort_by_key(|snapshot| snapshot.started);
            Ok(found.into_iter().next())
        };
        wait::until(Pace::VOLUME, SETTLE, &Cancel::new(), look).await
    }
}

/// For calls that must not be repeated blindly.
pub(super) fn without_retries() -> aws_sdk_ec2::config::Builder {
    aws_sdk_ec2::config::Config::builder().retry_config(RetryConfig::disabled())
}

/// CreateSnapshot, not sent yet.
pub(super) fn request(ec2: &Client, new: &NewSnapshot, run: &str) -> CreateSnapshotFluentBuilder {
    ec2.create_snapshot()
        .volume_id(new.volume.as_str())
        .description(new.description.chars().take(MAX_DESCRIPTION).collect::<String>())
        .tag_specifications(convert::specification(ResourceType::Snapshot, &new.tags, run))
}

fn given_up(failure: Failure, doing: &str) -> Error {
    let unknown = failure.class() == Class::Ambiguous;
    let error = failure.into_error(doing);
    if unknown { error.hint("run again: if the snapshot was made after all, it is found by its key") } else { error }
}

/// The answer to CreateSnapshot has the fields of a snapshot in a type of its own.
fn as_snapshot(output: CreateSnapshotOutput) -> types::Snapshot {
    types::Snapshot::builder()
        .set_snapshot_id(output.snapshot_id)
        .set_volume_id(output.volume_id)
        .set_state(output.state)
        .set_progress(output.progress)
        .set_state_message(output.state_message)
        .set_volume_size(output.volume_size)
        .set_start_time(output.start_time)
        .set_description(output.description)
        .set_tags(output.tags)
        .build()
}
