//! Copies of snapshots in other regions, and who else may use a snapshot.

use std::collections::BTreeSet;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::operation::copy_snapshot::builders::CopySnapshotFluentBuilder;
use aws_sdk_ec2::types::{CreateVolumePermission, OperationType, ResourceType, SnapshotAttributeName};

use super::presign::{self, Copy};
use super::snapshot::{MAX_DESCRIPTION, Made, without_retries};
use super::{Ec2Store, convert};
use crate::aws::api::Action;
use crate::config::Ec2;
use crate::error::{Error, Kind, Result};
use crate::key::tag;
use crate::report::Change;
use crate::storage::{Snapshot, SnapshotId, SnapshotQuery};

impl Ec2Store {
    /// The same account's store in another region.
    pub fn in_region(&self, region: &str) -> Ec2Store {
        let settings = Ec2 { region: Some(region.to_owned()), ..self.inner.settings.clone() };
        Ec2Store::new(settings, self.inner.sysfs.clone(), self.inner.report.clone(), self.inner.cancel.clone())
    }

    /// Copies a completed snapshot of `home` to this store's region, with its tags, encrypted with `kms_key` if there is one.
    /// Returns as soon as EC2 knows of the copy, which then is pending. Made once, as a snapshot is.
    ///
    /// # Errors
    /// Of kind `Snapshot`, but `Permission` for what is not permitted.
    pub async fn copy_from(&self, home: &Ec2Store, snapshot: &Snapshot, kms_key: Option<&str>) -> Result<Snapshot> {
        let (from, to) = (region(home)?, region(self)?);
        let what = Copy { snapshot: snapshot.id.as_str(), from: &from, to: &to, kms_key };
        // EC2 takes an encrypted snapshot only from somebody who may read it where it is (API reference, CopySnapshot).
        let url = match home.is_encrypted(&snapshot.id).await? {
            true => Some(presign::url(&home.inner.api, &what).await?),
            false => None,
        };
        let (url, what) = (&url, &what);
        let call = |run: String| async move {
            let send = |ec2: &Client| {
                let request = request(ec2, what, snapshot, &run).set_presigned_url(url.clone());
                request.customize().config_override(without_retries()).send()
            };
            self.inner.api.call(Action::CopySnapshot, send).await
        };
        let id: SnapshotId = match self.inner.make_once(&format!("copy {} to {to}", snapshot.id), call).await? {
            Made::Found(copy) => return Ok(copy),
            Made::Told(answer) => answer.snapshot_id().unwrap_or_default().parse()?,
        };
        let copy = self.inner.show_up(&SnapshotQuery { id: Some(id.clone()), ..SnapshotQuery::default() }).await?;
        copy.ok_or_else(|| Error::new(Kind::Snapshot, format!("the copy {id} in {to} cannot be seen")).hint("run again"))
    }

    async fn is_encrypted(&self, id: &SnapshotId) -> Result<bool> {
        let send = |ec2: &Client| ec2.describe_snapshots().owner_ids("self").snapshot_ids(id.as_str()).send();
        let answer = self.inner.api.call(Action::DescribeSnapshots, send).await;
        let answer = answer.map_err(|failure| failure.into_error(format!("look at snapshot {id}")))?;
        Ok(answer.snapshots().first().and_then(|snapshot| snapshot.encrypted()) == Some(true))
    }

    /// Lets these accounts make volumes from a snapshot. `Unchanged`: they could already.
    ///
    /// # Errors
    /// `Storage` for a snapshot that cannot be shared, `Permission` for what is not permitted.
    pub async fn share(&self, id: &SnapshotId, accounts: &[String]) -> Result<Change> {
        let may = self.shared_with(id).await?;
        let missing: Vec<String> = accounts.iter().filter(|account| !may.contains(*account)).cloned().collect();
        if missing.is_empty() {
            return Ok(Change::Unchanged);
        }
        let send = |ec2: &Client| {
            let request =
                ec2.modify_snapshot_attribute().snapshot_id(id.as_str()).attribute(SnapshotAttributeName::CreateVolumePermission);
            request.operation_type(OperationType::Add).set_user_ids(Some(missing.clone())).send()
        };
        let answer = self.inner.api.call(Action::ModifySnapshotAttribute, send).await;
        answer.map_err(|failure| failure.into_error(format!("share snapshot {id} with {}", missing.join(", "))))?;
        Ok(Change::Changed)
    }

    /// The accounts that a snapshot is shared with; `all` for everybody.
    ///
    /// # Errors
    /// As for [`Self::share`].
    pub async fn shared_with(&self, id: &SnapshotId) -> Result<BTreeSet<String>> {
        let name = SnapshotAttributeName::CreateVolumePermission;
        let send = |ec2: &Client| ec2.describe_snapshot_attribute().snapshot_id(id.as_str()).attribute(name.clone()).send();
        let answer = self.inner.api.call(Action::DescribeSnapshotAttribute, send).await;
        let answer = answer.map_err(|failure| failure.into_error(format!("see who may use snapshot {id}")))?;
        let who =
            |it: &CreateVolumePermission| it.user_id().or_else(|| it.group().map(|group| group.as_str())).map(str::to_owned);
        Ok(answer.create_volume_permissions().iter().filter_map(who).collect())
    }
}

fn region(store: &Ec2Store) -> Result<String> {
    store.inner.api.region().ok_or_else(|| Error::new(Kind::Usage, "no AWS region is named").hint("give --region"))
}

fn request(ec2: &Client, what: &Copy<'_>, snapshot: &Snapshot, run: &str) -> CopySnapshotFluentBuilder {
    let mut tags = snapshot.tags.clone();
    tags.insert(tag::COPIED_FROM.to_owned(), format!("{} {}", what.from, what.snapshot));
    ec2.copy_snapshot()
        .source_region(what.from)
        .source_snapshot_id(what.snapshot)
        .destination_region(what.to)
        .description(snapshot.description.chars().take(MAX_DESCRIPTION).collect::<String>())
        .set_encrypted(what.kms_key.map(|_| true))
        .set_kms_key_id(what.kms_key.map(str::to_owned))
        .tag_specifications(convert::specification(ResourceType::Snapshot, &tags, run))
}
