//! A launch template and its versions, which cannot be changed: a rollout makes one, or takes one that is as it shall be.

use aws_sdk_ec2::Client;
use aws_sdk_ec2::operation::create_launch_template_version::CreateLaunchTemplateVersionOutput;
use aws_sdk_ec2::types::{
    LaunchTemplateBlockDeviceMapping, LaunchTemplateBlockDeviceMappingRequest as MappingRequest, LaunchTemplateEbsBlockDevice,
    LaunchTemplateEbsBlockDeviceRequest, LaunchTemplateVersion, RequestLaunchTemplateData, ResponseLaunchTemplateData,
};

use super::{Context, mapping};
use crate::aws::api::Action;
use crate::aws::{client_token, pages};
use crate::config::rollout::{Mapping as Change, VersionChoice};
use crate::error::{Error, Kind, Result};
use crate::key::tag;
use crate::storage::Snapshot;

/// The most that DescribeLaunchTemplateVersions takes (API reference).
const PAGE: i32 = 200;
/// In characters (API reference, CreateLaunchTemplateVersion).
const MAX_DESCRIPTION: usize = 255;
/// What the descriptions of versions begin with that ebs-bake made. Versions have no tags.
const OURS: &str = "ebs-bake: ";

/// A launch template.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// `lt-0123456789abcdef0`
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Oldest first; at least one, and one of them is the default.
    pub versions: Vec<Version>,
}

/// A version of a launch template.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    /// From 1.
    pub number: i64,
    /// What the template's `$Default` is.
    pub is_default: bool,
    /// Whether ebs-bake made it.
    pub is_ours: bool,
    /// In seconds since 1970.
    pub created: i64,
    /// Everything but the mappings.
    data: ResponseLaunchTemplateData,
    /// In the form in which they are handed in again.
    mappings: Vec<MappingRequest>,
}

impl Template {
    /// How people and AWS call it.
    pub fn title(&self) -> String {
        format!("launch template {} ({})", self.name, self.id)
    }

    /// The one that `$Default` is.
    pub fn default(&self) -> &Version {
        self.versions.iter().find(|version| version.is_default).unwrap_or(&self.versions[0])
    }

    /// The one that `$Latest` is.
    pub fn latest(&self) -> &Version {
        self.versions.last().expect("a template has a version")
    }

    /// The version that is meant, if it is there.
    pub fn version(&self, choice: VersionChoice) -> Option<&Version> {
        match choice {
            VersionChoice::Default => Some(self.default()),
            VersionChoice::Latest => Some(self.latest()),
            VersionChoice::Number(number) => self.versions.iter().find(|version| version.number == number),
        }
    }

    /// The version that is meant.
    ///
    /// # Errors
    /// `Fleet`, when it is not there.
    pub fn require(&self, choice: VersionChoice) -> Result<&Version> {
        self.version(choice).ok_or_else(|| {
            let message = format!("{} has no version {choice}", self.title());
            Error::new(Kind::Fleet, message).hint(format!("the latest is {}", self.latest().number))
        })
    }
}

impl Version {
    /// The snapshot that machines get at this device.
    pub fn snapshot(&self, device: &str) -> Option<String> {
        mapping::snapshot(&self.mappings, device)
    }

    /// Whether they differ in nothing but this device's mapping.
    pub fn is_alike(&self, other: &Version, device: &str) -> bool {
        let others = |version: &Version| {
            let mut mappings = version.mappings.clone();
            mappings.retain(|mapping| mapping.device_name() != Some(device));
            sorted(mappings)
        };
        self.data == other.data && others(self) == others(other)
    }

    fn is(&self, data: &ResponseLaunchTemplateData, mappings: &[MappingRequest]) -> bool {
        self.data == *data && sorted(self.mappings.clone()) == sorted(mappings.to_vec())
    }
}

/// Their order means nothing.
fn sorted(mut mappings: Vec<MappingRequest>) -> Vec<MappingRequest> {
    mappings.sort_by(|one, other| one.device_name().cmp(&other.device_name()));
    mappings
}

/// What becomes of a template.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The version that all but the mapping is of.
    pub source: i64,
    /// The version that is as it shall be; `None`: it has to be made.
    pub present: Option<i64>,
    /// What is new beside the source, in words.
    pub differences: Vec<String>,
    mappings: Vec<MappingRequest>,
    description: String,
    token: String,
}

/// Decides which version has the snapshot. One that is there already is taken: the source, one that a group has (`in_use`), or
/// the newest; only the latest, if somebody `follows_latest`.
///
/// # Errors
/// Those of [`mapping::change`].
pub fn plan(
    template: &Template,
    source: &Version,
    change: &Change,
    snapshot: &Snapshot,
    in_use: &[i64],
    follows_latest: bool,
) -> Result<Plan> {
    let changed = mapping::change(&source.mappings, change, snapshot)?;
    let mut fitting: Vec<i64> =
        template.versions.iter().filter(|it| it.is(&source.data, &changed.mappings)).map(|it| it.number).collect();
    if follows_latest {
        fitting.retain(|number| *number == template.latest().number);
    }
    let preferred = std::iter::once(&source.number).chain(in_use).find(|number| fitting.contains(number)).copied();
    let present = preferred.or(fitting.last().copied());
    let description = description(snapshot);
    // Calls with the same token make one version, as long as EC2 remembers: of runs at the same time, and of one whose answer was
    // lost. The latest version is part of it, for rolled back and forth the same change is made more than once.
    let latest = template.latest().number.to_string();
    let mappings = format!("{:?}", changed.mappings);
    let token = client_token(&[&template.id, &source.number.to_string(), &latest, &mappings, &description]);
    Ok(Plan { source: source.number, present, differences: changed.differences, mappings: changed.mappings, description, token })
}

/// What was baked, and where it comes from.
fn description(snapshot: &Snapshot) -> String {
    let tag = |name| snapshot.tags.get(name).map(String::as_str);
    let commit = tag(tag::COMMIT).map(|commit| format!(", commit {commit}")).unwrap_or_default();
    let repository = tag(tag::REPOSITORY).map(|url| format!(" of {url}")).unwrap_or_default();
    format!("{OURS}{}{commit}{repository}", snapshot.id).chars().take(MAX_DESCRIPTION).collect()
}

/// The template with this ID or name.
///
/// # Errors
/// `Fleet`, when it is not there.
pub async fn look(cx: &Context, name: &str) -> Result<Template> {
    let page = |token: Option<String>| async move {
        let send = |ec2: &Client| {
            let request = ec2.describe_launch_template_versions().max_results(PAGE).set_next_token(token.clone());
            let request = match name.starts_with("lt-") {
                true => request.launch_template_id(name),
                false => request.launch_template_name(name),
            };
            request.send()
        };
        let answer = cx.api.call(Action::DescribeLaunchTemplateVersions, send).await;
        let answer = answer.map_err(|failure| failure.into_error(format!("look at launch template {name}")))?;
        Ok((answer.launch_template_versions.unwrap_or_default(), answer.next_token))
    };
    template(pages(page).await?).ok_or_else(|| Error::new(Kind::Fleet, format!("launch template {name} has no versions")))
}

pub(super) fn template(versions: Vec<LaunchTemplateVersion>) -> Option<Template> {
    let first = versions.first()?;
    let (id, name) = (first.launch_template_id.clone()?, first.launch_template_name.clone().unwrap_or_default());
    let mut versions: Vec<Version> = versions.into_iter().filter_map(version).collect();
    versions.sort_by_key(|version| version.number);
    (!versions.is_empty()).then_some(Template { id, name, versions })
}

fn version(version: LaunchTemplateVersion) -> Option<Version> {
    let mut data = version.launch_template_data.unwrap_or_else(|| ResponseLaunchTemplateData::builder().build());
    let mappings = data.block_device_mappings.take().unwrap_or_default();
    Some(Version {
        number: version.version_number?,
        is_default: version.default_version.unwrap_or(false),
        is_ours: version.version_description.is_some_and(|text| text.starts_with(OURS)),
        created: version.create_time.map_or(0, |time| time.secs()),
        data,
        mappings: mappings.into_iter().map(request).collect(),
    })
}

/// A mapping as EC2 shows it, in the form in which it takes it. With a source version named, EC2 leaves the snapshots out of
/// what is inherited (API reference, CreateLaunchTemplateVersion; aws-cli#4297): so all mappings are handed in, whole.
fn request(mapping: LaunchTemplateBlockDeviceMapping) -> MappingRequest {
    MappingRequest::builder()
        .set_device_name(mapping.device_name)
        .set_virtual_name(mapping.virtual_name)
        .set_no_device(mapping.no_device)
        .set_ebs(mapping.ebs.map(ebs))
        .build()
}

fn ebs(ebs: LaunchTemplateEbsBlockDevice) -> LaunchTemplateEbsBlockDeviceRequest {
    LaunchTemplateEbsBlockDeviceRequest::builder()
        .set_encrypted(ebs.encrypted)
        .set_delete_on_termination(ebs.delete_on_termination)
        .set_iops(ebs.iops)
        .set_kms_key_id(ebs.kms_key_id)
        .set_snapshot_id(ebs.snapshot_id)
        .set_volume_size(ebs.volume_size)
        .set_volume_type(ebs.volume_type)
        .set_throughput(ebs.throughput)
        .set_volume_initialization_rate(ebs.volume_initialization_rate)
        .set_ebs_card_index(ebs.ebs_card_index)
        .build()
}

/// Makes the version that the plan wants, and looks at what EC2 made.
///
/// # Errors
/// `Fleet` for what EC2 refuses, and for a version that is not what was asked for: nothing uses it then.
pub async fn make(cx: &Context, template: &Template, plan: &Plan) -> Result<Version> {
    let data = RequestLaunchTemplateData::builder().set_block_device_mappings(Some(plan.mappings.clone())).build();
    let send = |ec2: &Client| {
        let request = ec2.create_launch_template_version().launch_template_id(&template.id).client_token(&plan.token);
        let request = request.source_version(plan.source.to_string()).version_description(&plan.description);
        request.launch_template_data(data.clone()).send()
    };
    let answer = cx.api.call(Action::CreateLaunchTemplateVersion, send).await;
    let answer = answer.map_err(|failure| failure.into_error(format!("make a version of {}", template.title())))?;
    warn(cx, template, &answer);
    let made = answer.launch_template_version.and_then(version);
    let made = made.ok_or_else(|| Error::new(Kind::Fleet, "EC2's answer lacks the version"))?;
    let source = template.require(VersionChoice::Number(plan.source))?;
    if !made.is(&source.data, &plan.mappings) {
        let message = format!("version {} of {} is not what was asked for", made.number, template.title());
        let hint = format!("compare it with version {}; nothing was moved to it", plan.source);
        return Err(Error::new(Kind::Fleet, message).hint(hint));
    }
    Ok(made)
}

/// EC2 takes what cannot be launched, and says so.
fn warn(cx: &Context, template: &Template, answer: &CreateLaunchTemplateVersionOutput) {
    for error in answer.warning().map(|warning| warning.errors()).unwrap_or_default() {
        let (code, text) = (error.code().unwrap_or_default(), error.message().unwrap_or_default());
        cx.report.warn(format!("{}: EC2 says {code}: {text}", template.title()));
    }
}

/// Makes a version the default one.
///
/// # Errors
/// `Fleet` for what EC2 refuses.
pub async fn set_default(cx: &Context, template: &Template, number: i64) -> Result<()> {
    let send =
        |ec2: &Client| ec2.modify_launch_template().launch_template_id(&template.id).default_version(number.to_string()).send();
    let answer = cx.api.call(Action::ModifyLaunchTemplate, send).await;
    let doing = || format!("make version {number} the default of {}", template.title());
    answer.map(drop).map_err(|failure| failure.into_error(doing()))
}

#[cfg(test)]
pub(super) mod tests;
