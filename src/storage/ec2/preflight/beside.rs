//! What EC2 and Auto Scaling would say to a rollout and to pruning. Auto Scaling has no DryRun: it is only asked for what is there.

use std::error::Error as StdError;

use aws_sdk_autoscaling::Client as Scaling;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::types::{LaunchTemplateSpecification, RequestLaunchTemplateData};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::{Permission, Preflight, judged};
use crate::aws::api::{Action, Service};

impl Preflight<'_> {
    /// Whether things of a kind may be looked at. Refreshes are looked at for a group: `None`, if there is none.
    pub async fn may_look(&self, action: Action, group: Option<&str>) -> Option<Permission> {
        Some(match action {
            Action::DescribeSnapshots => {
                self.tried(action, |ec2| ec2.describe_snapshots().owner_ids("self").dry_run(true).send()).await
            }
            Action::DescribeVolumes => self.tried(action, |ec2| ec2.describe_volumes().dry_run(true).send()).await,
            Action::DescribeImages => self.tried(action, |ec2| ec2.describe_images().owners("self").dry_run(true).send()).await,
            Action::DescribeLaunchTemplateVersions => {
                let request = |ec2: &aws_sdk_ec2::Client| ec2.describe_launch_template_versions().versions("$Default");
                self.tried(action, |ec2| request(ec2).dry_run(true).send()).await
            }
            Action::DescribeFastSnapshotRestores => {
                self.tried(action, |ec2| ec2.describe_fast_snapshot_restores().dry_run(true).send()).await
            }
            Action::DescribeAutoScalingGroups => {
                self.asked(action, |scaling: &Scaling| scaling.describe_auto_scaling_groups().max_records(1).send()).await
            }
            Action::DescribeLaunchConfigurations => {
                self.asked(action, |scaling: &Scaling| scaling.describe_launch_configurations().max_records(1).send()).await
            }
            Action::DescribeInstanceRefreshes => {
                let group = group?;
                let request = |scaling: &Scaling| scaling.describe_instance_refreshes().auto_scaling_group_name(group);
                self.asked(action, |scaling| request(scaling).max_records(1).send()).await
            }
            _ => return None,
        })
    }

    /// Whether a rollout's call of this action would be permitted for a version of a launch template. The version stays what it is,
    /// even if something carries the call out. `None`: Auto Scaling does not tell.
    pub async fn may_roll_out(&self, action: Action, template: &str, version: i64) -> Option<Permission> {
        let number = version.to_string();
        Some(match action {
            Action::CreateLaunchTemplateVersion => {
                let nothing_else = RequestLaunchTemplateData::builder().build();
                let request = |ec2: &aws_sdk_ec2::Client| {
                    ec2.create_launch_template_version().launch_template_id(template).launch_template_data(nothing_else.clone())
                };
                self.tried(action, |ec2| request(ec2).source_version(&number).dry_run(true).send()).await
            }
            Action::ModifyLaunchTemplate => {
                let request = |ec2: &aws_sdk_ec2::Client| ec2.modify_launch_template().launch_template_id(template);
                self.tried(action, |ec2| request(ec2).default_version(&number).dry_run(true).send()).await
            }
            Action::DeleteLaunchTemplateVersions => {
                let request = |ec2: &aws_sdk_ec2::Client| ec2.delete_launch_template_versions().launch_template_id(template);
                self.tried(action, |ec2| request(ec2).versions(&number).dry_run(true).send()).await
            }
            Action::RunInstances => {
                let from = LaunchTemplateSpecification::builder().launch_template_id(template).version(&number).build();
                let request = |ec2: &aws_sdk_ec2::Client| ec2.run_instances().launch_template(from.clone()).min_count(1);
                self.tried(action, |ec2| request(ec2).max_count(1).dry_run(true).send()).await
            }
            _ => return None,
        })
    }

    /// Whether pruning's call of this action would be permitted for a snapshot.
    pub async fn may_prune(&self, action: Action, snapshot: &str) -> Permission {
        match action {
            // Which zones there are is not known without one more permission; the first one has this name in most regions.
            Action::DisableFastSnapshotRestores => {
                let zone = format!("{}a", self.inner().api.region().unwrap_or_default());
                let request = |ec2: &aws_sdk_ec2::Client| ec2.disable_fast_snapshot_restores().source_snapshot_ids(snapshot);
                self.tried(action, |ec2| request(ec2).availability_zones(&zone).dry_run(true).send()).await
            }
            _ => self.permission_on_snapshot(action, snapshot).await,
        }
    }

    /// Makes a call that changes nothing.
    async fn asked<C, T, E, F>(&self, action: Action, make: impl Fn(&C) -> F) -> Permission
    where
        C: Service,
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        match self.answer(action, make).await {
            Ok(()) => Permission::Granted,
            // Of a group that is not there.
            Err(failure) if failure.code() == "ValidationError" => Permission::Untold(failure.code().to_owned()),
            Err(failure) => judged(action, Err(failure)),
        }
    }
}
