//! Settings and what the CI system says, made into what a command needs: defaults filled in, contradictions refused.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::layers::{Environment, TOKEN_VARIABLE};
use super::settings::StoreKind;
use super::{Bake, Cleanup, Doctor, Ec2, Ec2Volume, Examined, Publish, Restore, RestoreAction, Store, settings};
use crate::ci::{self, Ci, System};
use crate::error::{Error, Kind, OrFail, Result};
use crate::report::outputs::OutputFiles;
use crate::source::credentials::Login;
use crate::source::{Access, Location, Wanted};

mod retention;
mod rollout;
#[cfg(test)]
mod tests;
mod user_data;

pub use retention::{list, prune};
pub use rollout::rollout;
pub use user_data::user_data;

/// Free on every instance: neither the root's name nor one that instance types give to their own disks.
const DEFAULT_DEVICE: &str = "/dev/sdk";
/// Beside a volume that is being baked on, and one that the instance was launched with.
const DEFAULT_RESTORE_DEVICE: &str = "/dev/sdl";
const DEFAULT_VOLUME_TYPE: &str = "gp3";
const DEFAULT_LOCAL_DIR: &str = "/var/lib/ebs-bake";
/// Git directories can be fetched anew, so they belong with the caches.
const DEFAULT_STATE_DIR: &str = "/var/cache/ebs-bake";
const DEFAULT_VOLUME_NAME: &str = "chef";
/// What the EBS CSI driver grants before an attachment counts as stuck.
const DEFAULT_ATTACH_TIMEOUT: Duration = Duration::from_secs(90);
/// Longer than a bake of the same volume takes.
const DEFAULT_LOCK_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// A first snapshot of some GiB takes minutes; a busy region several times that.
const DEFAULT_WAIT_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// Tokens are shorter by far.
const TOKEN_FILE_MAX: u64 = 16 * 1024;

/// Reads the repository that the user wrote ([`Location::parse`], but for tests).
pub type ParseLocation = fn(&str) -> Result<(Location, Option<Login>)>;

fn refuse<T>(message: impl Into<String>, hint: &str) -> Result<T> {
    Err(Error::new(Kind::Usage, message).hint(hint))
}

fn store(settings: settings::Storage) -> Result<Store> {
    // Who says where the local store is means that one.
    let default = if settings.local_dir.is_some() { StoreKind::Local } else { StoreKind::Ec2 };
    if settings.store.unwrap_or(default) == StoreKind::Ec2 {
        return Ok(Store::Ec2(Box::new(ec2(settings))));
    }
    let directory = settings.local_dir.unwrap_or_else(|| DEFAULT_LOCAL_DIR.into());
    let directory = std::path::absolute(&directory).or_fail(Kind::Usage, || "--local-dir: a directory is needed, it is empty")?;
    Ok(Store::Local(directory))
}

fn ec2(settings: settings::Storage) -> Ec2 {
    Ec2 {
        region: settings.region,
        instance_id: settings.instance_id,
        availability_zone: settings.availability_zone,
        device: settings.device.unwrap_or_else(|| DEFAULT_DEVICE.into()),
        attach_timeout: DEFAULT_ATTACH_TIMEOUT,
        volume: Ec2Volume { kind: DEFAULT_VOLUME_TYPE.into(), ..Ec2Volume::default() },
    }
}

fn with_patience(store: Store, waiting: &settings::Waiting) -> Store {
    let Store::Ec2(mut ec2) = store else { return store };
    ec2.attach_timeout = waiting.attach_timeout.unwrap_or(ec2.attach_timeout);
    Store::Ec2(ec2)
}

/// What the user says of new volumes.
fn with_volume(store: Store, volume: &settings::Volume) -> Store {
    let Store::Ec2(mut ec2) = store else { return store };
    ec2.volume = Ec2Volume {
        kind: volume.volume_type.clone().unwrap_or(ec2.volume.kind),
        iops: volume.iops,
        throughput: volume.throughput,
        encrypted: volume.encrypted.unwrap_or(false),
        kms_key_id: volume.kms_key_id.clone(),
        initialization_rate: volume.volume_initialization_rate,
    };
    Store::Ec2(ec2)
}

/// A mount point must mean the same directory wherever it is looked up, and must not be the root.
fn mount_point(path: PathBuf) -> Result<PathBuf> {
    let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
    if path.is_absolute() && path.components().all(plain) && path.components().nth(1).is_some() {
        return Ok(path);
    }
    let message = format!("--mount-point: {} is not an absolute path to a directory below /", path.display());
    refuse(message, "give a path such as /code/chef, without '..'")
}

/// `bake`.
pub fn bake(settings: settings::Bake, ci: &Ci, environment: &Environment, parse: ParseLocation) -> Result<Bake> {
    let settings::Bake { source, checkout, checks, credentials, storage, volume, waiting, publishing, rollout, results } =
        settings;
    let store = with_patience(with_volume(store(storage)?, &volume), &waiting);
    let publish = publish(publishing, &store, !waiting.no_wait.unwrap_or(false))?;
    let rollout = rollout.rollout.unwrap_or(false).then(|| rollout::after_bake(rollout, &store, &waiting)).transpose()?;
    let (repository, wanted) = what(source, ci)?;
    let (location, url_login) = parse(&repository)?;
    let url_login = url_login.or_else(|| job_login(&location, ci, parse));
    let volume_name = volume.volume_name.unwrap_or_else(|| DEFAULT_VOLUME_NAME.into());
    let default_mount_point = || Path::new("/code").join(&volume_name);
    Ok(Bake {
        store,
        access: access(credentials, url_login, &location, ci, environment)?,
        location,
        wanted,
        snapshot_tags: results.snapshot_tag.unwrap_or_default().into_iter().flatten().collect(),
        publish,
        rollout,
        run_url: ci.run_url.clone(),
        volume_id: volume.volume_id,
        volume_size_gib: volume.volume_size,
        mount_point: mount_point(volume.mount_point.unwrap_or_else(default_mount_point))?,
        volume_name,
        git_dir: checkout.git_dir.unwrap_or_default(),
        submodules: checkout.submodules.unwrap_or_default(),
        clean: !checkout.no_clean.unwrap_or(false),
        allow_lfs_pointers: checkout.allow_lfs_pointers.unwrap_or(false),
        after_checkout: checkout.after_checkout,
        checks: checks.into(),
        after: volume.after.unwrap_or_default(),
        lock_timeout: waiting.lock_timeout.unwrap_or(DEFAULT_LOCK_TIMEOUT),
        wait_timeout: waiting.wait_timeout.unwrap_or(DEFAULT_WAIT_TIMEOUT),
        wait: !waiting.no_wait.unwrap_or(false),
        state_dir: volume.state_dir.unwrap_or_else(|| DEFAULT_STATE_DIR.into()),
        dry_run: results.outputs.dry_run.unwrap_or(false),
        outputs: output_files(results.outputs, ci),
    })
}

fn output_files(settings: settings::Outputs, ci: &Ci) -> OutputFiles {
    OutputFiles {
        json: settings.output_json,
        env: settings.output_env,
        github_output: ci.github_output.clone(),
        step_summary: ci.step_summary.clone(),
    }
}

fn publish(settings: settings::Publishing, store: &Store, waits: bool) -> Result<Publish> {
    let publish = Publish {
        copies: settings.copy_to.unwrap_or_default().into_iter().flatten().collect(),
        accounts: settings.share_with.unwrap_or_default().into_iter().flatten().collect(),
        parameter: settings.ssm_parameter,
    };
    if publish == Publish::default() {
        return Ok(publish);
    }
    let Store::Ec2(ec2) = store else {
        return refuse("--copy-to, --share-with and --ssm-parameter are for EC2", "leave them out, or give --store ec2");
    };
    if !waits {
        return refuse("--no-wait: only a completed snapshot is copied, shared or announced", "leave one or the other out");
    }
    let mut regions: BTreeSet<&str> = ec2.region.iter().map(String::as_str).collect();
    match publish.copies.iter().find(|copy| !regions.insert(&copy.region)) {
        Some(copy) => refuse(format!("--copy-to {}: it is named twice, or where the snapshot is", copy.region), "once is enough"),
        None => Ok(publish),
    }
}

/// Which repository and which commit. `owner/name` is a directory if there is one, else that repository of the job's server.
/// What the CI system says of its commit is true of its own repository only, and only if nobody asked for another commit.
fn what(source: settings::Source, ci: &Ci) -> Result<(String, Wanted)> {
    let named = source.repository.map(|name| match ci.repository_called(&name) {
        Some(url) if !Path::new(&name).exists() => url,
        _ => name,
    });
    let of_ci = match (&named, &ci.repository) {
        (None, _) => true,
        (Some(given), Some(its)) => ci::same_repository(given, its),
        (Some(_), None) => false,
    };
    let Some(repository) = named.or_else(|| ci.repository.clone()) else {
        return refuse(
            "there is no repository to bake: --repository is not given, and no CI job tells it",
            "--repository . bakes the repository in this directory",
        );
    };
    let asked = source.reference.is_some() || source.commit.is_some();
    let wanted = if of_ci && !asked {
        Wanted { reference: ci.reference.clone(), commit: ci.commit }
    } else {
        Wanted { reference: source.reference, commit: source.commit }
    };
    Ok((repository, wanted))
}

/// What the CI system clones the job's repository with, if it is this one: the same host, port, path and protocol. GitLab's
/// job token gets into other projects only where these allow it, so it is not sent there unasked.
fn job_login(location: &Location, ci: &Ci, parse: ParseLocation) -> Option<Login> {
    let (own, _) = parse(ci.repository.as_ref()?).ok()?;
    let remote = matches!(location, Location::Remote(_)) && matches!(own, Location::Remote(_));
    let same = remote && location.canonical().ok()? == own.canonical().ok()?;
    ci.login.clone().filter(|_| same)
}

fn access(
    settings: settings::Credentials,
    url_login: Option<Login>,
    location: &Location,
    ci: &Ci,
    environment: &Environment,
) -> Result<Access> {
    let token = match (environment.get(TOKEN_VARIABLE), &settings.git_token_file) {
        (Some(token), _) => Some(clean_token(token, TOKEN_VARIABLE)?),
        (None, Some(file)) => Some(read_token(file)?),
        (None, None) => None,
    };
    let user = settings.git_user;
    let login = match token {
        Some(password) => {
            let user = user.unwrap_or_else(|| token_user(&password, location, ci, environment).to_owned());
            Some(Login { user, password })
        }
        None => url_login,
    };
    Ok(Access { login, ssh_key: settings.ssh_key, known_hosts: settings.known_hosts, silence: None })
}

/// The user name that the git host wants beside a token. GitHub, GitLab (for access tokens), Azure and Gitea take any;
/// GitLab's job tokens and Bitbucket Cloud's access tokens need theirs (gitlab-org/gitlab#550508, Bitbucket's "Using access
/// tokens").
fn token_user(token: &str, location: &Location, ci: &Ci, environment: &Environment) -> &'static str {
    let host = match location {
        Location::Remote(url) => url.host_str().unwrap_or_default(),
        Location::Local(_) => "",
    };
    let job_token = ci.system == Some(System::GitLab) && environment.get("CI_JOB_TOKEN").map(str::trim) == Some(token);
    match host {
        _ if job_token => "gitlab-ci-token",
        "bitbucket.org" => "x-token-auth",
        _ => "x-access-token",
    }
}

fn read_token(path: &Path) -> Result<String> {
    let cannot = || format!("--git-token-file: cannot read {}", path.display());
    let mut text = String::new();
    let file = std::fs::File::open(path).or_fail(Kind::Usage, cannot)?;
    file.take(TOKEN_FILE_MAX).read_to_string(&mut text).or_fail(Kind::Usage, cannot)?;
    clean_token(&text, "--git-token-file")
}

/// A token without the line end that editors and `echo` leave. Never shown, not even when it is wrong.
fn clean_token(text: &str, place: &str) -> Result<String> {
    let token = text.trim();
    if token.is_empty() || token.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return refuse(format!("{place}: what it holds is no token"), "a token is one line without spaces");
    }
    Ok(token.to_owned())
}

/// `doctor`.
pub fn doctor(settings: settings::Doctor) -> Result<Doctor> {
    let settings::Doctor { r#for, json, storage, volume, fleet, refresh, kept } = settings;
    let store = with_volume(store(storage)?, &volume);
    let examined = match r#for.unwrap_or_default() {
        settings::Purpose::Bake => Examined::Bake,
        settings::Purpose::Rollout => Examined::Rollout(Box::new(rollout::fleet(fleet, refresh, &Default::default())?)),
        settings::Purpose::Prune => {
            Examined::Prune { parameter: kept.ssm_parameter, include_shared: kept.include_shared.unwrap_or(false) }
        }
    };
    if store.ec2().is_none() && examined != Examined::Bake {
        return refuse("--for is for EC2: the local store asks nobody for permission", "leave --for or --store local out");
    }
    let volume_name = volume.volume_name.unwrap_or_else(|| DEFAULT_VOLUME_NAME.into());
    let default_mount_point = || Path::new("/code").join(&volume_name);
    Ok(Doctor {
        examined,
        store,
        volume_id: volume.volume_id,
        volume_size_gib: volume.volume_size,
        mount_point: mount_point(volume.mount_point.unwrap_or_else(default_mount_point))?,
        volume_name,
        after: volume.after.unwrap_or_default(),
        state_dir: volume.state_dir.unwrap_or_else(|| DEFAULT_STATE_DIR.into()),
        json: json.unwrap_or(false),
    })
}

/// `restore`.
pub fn restore(settings: settings::Restore) -> Result<Restore> {
    let settings::Restore { snapshot_id: snapshot, mount_point: path, detach, mut storage } = settings;
    storage.device.get_or_insert_with(|| DEFAULT_RESTORE_DEVICE.into());
    let store = store(storage)?;
    let mount_point = path.map(mount_point).transpose()?;
    let action = match (detach.unwrap_or(false), snapshot, mount_point) {
        (true, None, None) => return refuse("restore --detach: which one is not said", "give --mount-point or --snapshot-id"),
        (true, snapshot, mount_point) => RestoreAction::Detach { snapshot, mount_point },
        (false, Some(snapshot), Some(mount_point)) => RestoreAction::Mount { snapshot, mount_point },
        (false, None, _) => return refuse("restore: --snapshot-id is not given", "ebs-bake list shows the snapshots"),
        (false, _, None) => return refuse("restore: --mount-point is not given", "give an empty directory, such as /mnt/chef"),
    };
    Ok(Restore { store, action })
}

/// `cleanup`.
pub fn cleanup(settings: settings::Cleanup) -> Result<Cleanup> {
    Ok(Cleanup { store: store(settings.storage)? })
}
