//! What AWS's errors mean: decided from the action, the error code and the HTTP status alone, in one table.

use super::api::Action;
use crate::error::{Error, Kind};

/// A call that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The action.
    pub action: Action,
    /// AWS's error code, if an answer with one came.
    pub code: Option<String>,
    /// The HTTP status, if an answer came.
    pub status: Option<u16>,
    /// What AWS or the transport said.
    pub message: String,
    /// What was missing here, so that nothing was sent.
    pub missing: Option<Missing>,
}

/// What a call cannot be made without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// None were found where the SDK looks.
    Credentials,
    /// None is named where the SDK looks.
    Region,
}

/// What to do about a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Nothing was done; the same call can work after seconds.
    Retry,
    /// Nothing was done; a quota is exhausted for minutes.
    Limited,
    /// The thing is not there, or not visible yet.
    NotFound,
    /// The thing is in another state than the call needs; a look tells which.
    Conflict,
    /// A client token was used for something else.
    TokenUsed,
    /// It may have been done, or not.
    Ambiguous,
    /// It was refused, and will be again.
    Terminal,
}

/// Codes of calls that were refused for their rate; the SDK has retried them already (`ec2/latest/APIReference`, "Error
/// codes for the Amazon EC2 API").
const THROTTLED: [&str; 8] = [
    "RequestLimitExceeded",
    "EC2ThrottledException",
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottled",
    "RequestThrottledException",
    "SnapshotCreationPerVolumeRateExceeded",
];

/// Codes that say who we are is not enough.
const DENIED: [&str; 16] = [
    "UnauthorizedOperation",
    "UnauthorizedException",
    "AuthFailure",
    "AccessDenied",
    "AccessDeniedException",
    "Blocked",
    "OptInRequired",
    "PendingVerification",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "MissingAuthenticationToken",
    "IncompleteSignature",
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
    "ExpiredToken",
    "RequestExpired",
];

impl Failure {
    /// The error code, or nothing.
    pub fn code(&self) -> &str {
        self.code.as_deref().unwrap_or_default()
    }

    /// What to do about it.
    pub fn class(&self) -> Class {
        let code = self.code();
        match code {
            _ if self.missing.is_some() || DENIED.contains(&code) => Class::Terminal,
            _ if THROTTLED.contains(&code) => Class::Retry,
            "ConcurrentSnapshotLimitExceeded" | "PendingSnapshotLimitExceeded" => Class::Limited,
            // Twenty copies to one region at a time (Amazon EBS User Guide, "Quotas for Amazon EBS").
            "ResourceLimitExceeded" if self.action == Action::CopySnapshot => Class::Limited,
            "ParameterNotFound" => Class::NotFound,
            "IdempotentParameterMismatch" | "IdempotentInstanceTerminated" | "InvalidClientToken" => Class::TokenUsed,
            "IncorrectState" | "VolumeInUse" | "InvalidVolume.InUse" | "InvalidSnapshot.InUse" => Class::Conflict,
            // Of a call that was repeated, too: the first one is what stands in its way.
            "IncorrectModificationState" | "VolumeModificationRateExceeded" => Class::Conflict,
            // EC2 says so of a device name that is taken: a look tells by what.
            "InvalidParameterValue" if self.action == Action::AttachVolume && self.message.contains("already in use") => {
                Class::Conflict
            }
            // Of Auto Scaling: another change of the same group is being made.
            "ResourceContention" | "ScalingActivityInProgress" => Class::Retry,
            "AlreadyExists" | "ResourceInUse" | "InstanceRefreshInProgress" => Class::Conflict,
            "InvalidAttachment.NotFound" => Class::NotFound,
            "InvalidLaunchTemplateName.NotFoundException" | "InvalidLaunchTemplateId.VersionNotFound" => Class::NotFound,
            _ if code.starts_with("Invalid") && code.ends_with(".NotFound") => Class::NotFound,
            _ if self.status.is_none_or(|status| status >= 500) => Class::Ambiguous,
            _ => Class::Terminal,
        }
    }

    /// Which part of the work failed.
    pub fn kind(&self) -> Kind {
        let code = self.code();
        match self.action {
            _ if self.missing == Some(Missing::Region) => Kind::Usage,
            _ if self.missing.is_some() || DENIED.contains(&code) => Kind::Permission,
            Action::AttachVolume if code == "VolumeInUse" => Kind::Contended,
            Action::CreateVolume | Action::ModifyVolume if is_about_parameters(code) => Kind::Usage,
            Action::CopySnapshot | Action::CreateSnapshot if self.class() != Class::NotFound => Kind::Snapshot,
            Action::CreateLaunchTemplateVersion
            | Action::DeleteLaunchTemplateVersions
            | Action::DescribeLaunchTemplateVersions
            | Action::ModifyLaunchTemplate => Kind::Fleet,
            action if action.service() == "autoscaling" => Kind::Fleet,
            _ => Kind::Storage,
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self.code() {
            _ if self.missing == Some(Missing::Region) => "give --region, or set AWS_REGION",
            _ if self.missing == Some(Missing::Credentials) => {
                "give the job credentials: an instance profile, a web identity, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            }
            "ExpiredToken" | "RequestExpired" => "the credentials have expired: give the job ones that last as long as it does",
            "AuthFailure" => "the credentials are not valid in this region, or the clock of this host is wrong",
            "OptInRequired" | "PendingVerification" | "Blocked" => "AWS does not let this account do that: see its message",
            code if DENIED.contains(&code) => "docs/iam-policy.json has the permissions that are needed",
            code if THROTTLED.contains(&code) => "AWS is being called too often from this account and region: run again later",
            "ConcurrentSnapshotLimitExceeded" | "PendingSnapshotLimitExceeded" => {
                "wait until other snapshots have completed, or have the quota of pending snapshots raised"
            }
            "SnapshotLimitExceeded" => "delete snapshots that nobody needs, or have the quota raised",
            "VolumeLimitExceeded" | "MaxIOPSLimitExceeded" => "delete volumes that nobody needs, or have the quota raised",
            "InvalidLaunchTemplateId.NotFound" | "InvalidLaunchTemplateName.NotFoundException" => {
                "see --launch-template and --region: templates belong to one region"
            }
            // AWS, "Amazon EC2 Auto Scaling will no longer add support for new EC2 features to Launch Configurations".
            "UnsupportedOperation" if self.action == Action::CreateLaunchConfiguration => {
                "accounts that had none in this region by October 2024 cannot make launch configurations: move the group to a launch \
                 template, and give --launch-template"
            }
            "LimitExceeded" if self.action == Action::CreateLaunchConfiguration => {
                "give --delete-unused-configurations, delete others that nobody needs, or have the quota raised"
            }
            "OperationNotPermitted" if self.action == Action::ModifySnapshotAttribute => {
                "what is encrypted with the AWS managed key cannot be shared: bake with --kms-key-id, or --copy-to REGION,KEY"
            }
            "AttachmentLimitExceeded" | "AttachmentLimitReached" => {
                "detach a volume from this instance: it has as many as it can"
            }
            "InvalidVolume.ZoneMismatch" => {
                "leave --volume-id out, and a volume is made in this zone from the newest snapshot of its name"
            }
            "InvalidKmsKey.InvalidKeyState" | "InvalidKmsKey.Unsupported" => "--kms-key-id: enable the key, or give another one",
            "VolumeModificationRateExceeded" | "VolumeModificationSizeLimitExceeded" => {
                "EC2 lets a volume be changed only now and then: run again in six hours, or without --volume-size"
            }
            "InvalidInstanceID.NotFound" | "InvalidInstanceID.Malformed" => "see --instance-id and --region",
            "IncorrectInstanceState" => "the instance must be running: see --instance-id",
            "" if self.status.is_none() => "see whether this host reaches the AWS endpoint of the region",
            _ if self.action.service() == "autoscaling" => return None,
            _ => match self.class() {
                Class::Ambiguous => "AWS failed or its answer was lost: run again, which first looks at what was done",
                Class::NotFound => "it is gone, or AWS does not show it yet: run again",
                Class::Conflict | Class::TokenUsed => {
                    "another call was faster, or AWS is not done with the one before: run again"
                }
                Class::Retry | Class::Limited => "run again later",
                Class::Terminal => return None,
            },
        })
    }

    /// The error that a user sees; `doing` says what was tried on what (`attach vol-… to i-…`).
    pub fn into_error(self, doing: impl std::fmt::Display) -> Error {
        let why = match (&self.code, self.status) {
            _ if self.missing == Some(Missing::Region) => "no AWS region is named".to_owned(),
            _ if self.missing == Some(Missing::Credentials) => "no credentials".to_owned(),
            (Some(code), _) => code.clone(),
            (None, Some(status)) => format!("HTTP status {status}"),
            (None, None) => "no answer".to_owned(),
        };
        let mut error = Error::new(self.kind(), format!("cannot {doing}: {:?}: {why}", self.action));
        if let Some(hint) = self.hint() {
            error = error.hint(hint);
        }
        if self.message.is_empty() { error } else { error.because(self.message) }
    }
}

fn is_about_parameters(code: &str) -> bool {
    let prefixes = ["InvalidParameter", "MissingParameter", "UnknownVolumeType", "UnsupportedOperation", "UnknownParameter"];
    prefixes.iter().any(|prefix| code.starts_with(prefix)) || matches!(code, "Unsupported" | "InvalidRequest")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(action: Action, code: &str, status: u16) -> Failure {
        let code = Some(code.to_owned()).filter(|code| !code.is_empty());
        let status = Some(status).filter(|status| *status != 0);
        Failure { action, code, status, message: String::new(), missing: None }
    }

    #[test]
    fn every_code_has_a_class_and_an_exit_code() {
        for (action, code, status, class, kind) in [
            (Action::DescribeVolumes, "RequestLimitExceeded", 503, Class::Retry, Kind::Storage),
            (Action::DescribeVolumes, "UnauthorizedOperation", 403, Class::Terminal, Kind::Permission),
            (Action::DescribeSnapshots, "AuthFailure", 401, Class::Terminal, Kind::Permission),
            (Action::DescribeSnapshots, "ExpiredToken", 400, Class::Terminal, Kind::Permission),
            (Action::DescribeSnapshots, "InvalidSnapshot.NotFound", 400, Class::NotFound, Kind::Storage),
            (Action::CreateVolume, "IdempotentParameterMismatch", 400, Class::TokenUsed, Kind::Storage),
            (Action::CreateVolume, "InvalidParameterValue", 400, Class::Terminal, Kind::Usage),
            (Action::CreateVolume, "InvalidParameterCombination", 400, Class::Terminal, Kind::Usage),
            (Action::CreateVolume, "VolumeLimitExceeded", 400, Class::Terminal, Kind::Storage),
            (Action::CreateVolume, "InvalidSnapshot.NotFound", 400, Class::NotFound, Kind::Storage),
            (Action::CreateVolume, "InternalError", 500, Class::Ambiguous, Kind::Storage),
            (Action::ModifyVolume, "IncorrectModificationState", 400, Class::Conflict, Kind::Storage),
            (Action::AttachVolume, "VolumeInUse", 400, Class::Conflict, Kind::Contended),
            (Action::AttachVolume, "IncorrectState", 400, Class::Conflict, Kind::Storage),
            (Action::AttachVolume, "InvalidParameterValue", 400, Class::Terminal, Kind::Storage),
            (Action::AttachVolume, "InvalidVolume.ZoneMismatch", 400, Class::Terminal, Kind::Storage),
            (Action::AttachVolume, "AttachmentLimitExceeded", 400, Class::Terminal, Kind::Storage),
            (Action::DetachVolume, "IncorrectState", 400, Class::Conflict, Kind::Storage),
            (Action::DetachVolume, "InvalidAttachment.NotFound", 400, Class::NotFound, Kind::Storage),
            (Action::DeleteVolume, "VolumeInUse", 400, Class::Conflict, Kind::Storage),
            (Action::CreateSnapshot, "SnapshotCreationPerVolumeRateExceeded", 400, Class::Retry, Kind::Snapshot),
            (Action::CreateSnapshot, "ConcurrentSnapshotLimitExceeded", 400, Class::Limited, Kind::Snapshot),
            (Action::CreateSnapshot, "PendingSnapshotLimitExceeded", 400, Class::Limited, Kind::Snapshot),
            (Action::CreateSnapshot, "SnapshotLimitExceeded", 400, Class::Terminal, Kind::Snapshot),
            (Action::CreateSnapshot, "InvalidVolume.NotFound", 400, Class::NotFound, Kind::Storage),
            (Action::CreateSnapshot, "InternalError", 500, Class::Ambiguous, Kind::Snapshot),
            (Action::CreateSnapshot, "ServiceUnavailable", 503, Class::Ambiguous, Kind::Snapshot),
            (Action::CreateSnapshot, "RequestLimitExceeded", 503, Class::Retry, Kind::Snapshot),
            (Action::CreateSnapshot, "", 0, Class::Ambiguous, Kind::Snapshot),
            (Action::CopySnapshot, "ResourceLimitExceeded", 400, Class::Limited, Kind::Snapshot),
            (Action::GetParameter, "ParameterNotFound", 400, Class::NotFound, Kind::Storage),
            (Action::PutParameter, "AccessDeniedException", 400, Class::Terminal, Kind::Permission),
            (Action::CreateSnapshot, "UnauthorizedOperation", 403, Class::Terminal, Kind::Permission),
            (Action::DescribeLaunchTemplateVersions, "InvalidLaunchTemplateId.NotFound", 400, Class::NotFound, Kind::Fleet),
            (
                Action::DescribeLaunchTemplateVersions,
                "InvalidLaunchTemplateName.NotFoundException",
                400,
                Class::NotFound,
                Kind::Fleet,
            ),
            (Action::CreateLaunchTemplateVersion, "UnauthorizedOperation", 403, Class::Terminal, Kind::Permission),
            (Action::CreateLaunchConfiguration, "AlreadyExists", 400, Class::Conflict, Kind::Fleet),
            (Action::CreateLaunchConfiguration, "UnsupportedOperation", 400, Class::Terminal, Kind::Fleet),
            (Action::DeleteLaunchConfiguration, "ResourceInUse", 400, Class::Conflict, Kind::Fleet),
            (Action::UpdateAutoScalingGroup, "ResourceContention", 500, Class::Retry, Kind::Fleet),
            (Action::UpdateAutoScalingGroup, "ValidationError", 400, Class::Terminal, Kind::Fleet),
            (Action::UpdateAutoScalingGroup, "AccessDenied", 403, Class::Terminal, Kind::Permission),
            (Action::StartInstanceRefresh, "InstanceRefreshInProgress", 400, Class::Conflict, Kind::Fleet),
        ] {
            let failure = failure(action, code, status);
            assert_eq!((failure.class(), failure.kind()), (class, kind), "{action:?} {code} {status}");
        }
    }

    #[test]
    fn a_taken_device_name_is_told_by_the_message() {
        let mut failure = failure(Action::AttachVolume, "InvalidParameterValue", 400);
        failure.message = "Invalid value '/dev/sdk' for unixDevice. Attachment point /dev/sdk is already in use".into();
        assert_eq!(failure.class(), Class::Conflict);
    }

    #[test]
    fn what_a_user_sees_names_the_thing_the_action_and_what_to_do() {
        let mut denied = failure(Action::AttachVolume, "UnauthorizedOperation", 403);
        denied.message = "You are not authorized to perform this operation.".into();
        let error = denied.into_error("attach vol-1 to i-1");
        assert_eq!(error.to_string(), "cannot attach vol-1 to i-1: AttachVolume: UnauthorizedOperation");
        assert!(error.hint_text().unwrap().contains("docs/iam-policy.json"));
        assert_eq!(error.causes(), ["You are not authorized to perform this operation."]);
        let nobody = Failure { missing: Some(Missing::Credentials), ..failure(Action::DescribeVolumes, "", 0) };
        assert_eq!(nobody.class(), Class::Terminal);
        let error = nobody.into_error("look for volumes");
        assert_eq!((error.kind(), error.to_string().contains("no credentials")), (Kind::Permission, true));
    }
}
