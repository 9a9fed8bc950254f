//! What a bake or a rollout hands on: to files for the next step of the pipeline, in every format that CI systems read.

use std::collections::hash_map::RandomState;
use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{PhaseRecord, escape, summary};
use crate::error::{Error, Kind, Result};
use crate::fleet::RolledOut;
use crate::step;
use crate::storage::{SnapshotId, VolumeId};

#[cfg(test)]
mod tests;
#[cfg(test)]
pub use tests::example;

/// The version of the JSON object; raised when a field changes its meaning or goes.
pub const VERSION: u32 = 1;
/// GitLab refuses an env file of this size (`Ci::ParseDotenvArtifactService` in gitlab-org/gitlab).
const ENV_SIZE: usize = 5 * 1024;

/// The result of a bake, and of a rollout.
#[derive(Debug, Clone, PartialEq)]
pub struct Outputs {
    /// The snapshot that has the commit.
    pub snapshot_id: SnapshotId,
    /// The volume that the snapshot was taken of, if the store knows.
    pub volume_id: Option<VolumeId>,
    /// Full SHA.
    pub commit: String,
    /// The full ref name that was asked for, if there was one.
    pub reference: Option<String>,
    /// Canonical URL, without credentials.
    pub repository: String,
    /// What identifies the content.
    pub key: String,
    /// It was there already.
    pub reused: bool,
    /// The store's name.
    pub store: String,
    /// Where the store is in regions.
    pub region: Option<String>,
    /// Of the volume, in GiB.
    pub size_gib: u32,
    /// Blocks of 512 KiB that differ from the parent's, if the store tells.
    pub changed_blocks: Option<u64>,
    /// Region and ID of copies.
    pub copies: Vec<(String, SnapshotId)>,
    /// The parameter that has the ID.
    pub ssm_parameter: Option<String>,
    /// What it was rolled out to, if it was.
    pub rollout: Option<RolledOut>,
    /// Of the whole run.
    pub duration: Duration,
    /// In their order.
    pub phases: Vec<PhaseRecord>,
}

/// Where results are written; `None`: not there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutputFiles {
    /// `--output-json`.
    pub json: Option<PathBuf>,
    /// `--output-env`.
    pub env: Option<PathBuf>,
    /// `$GITHUB_OUTPUT`.
    pub github_output: Option<PathBuf>,
    /// `$GITHUB_STEP_SUMMARY`.
    pub step_summary: Option<PathBuf>,
}

/// `eu-west-1=snap-… us-west-2=snap-…`
fn in_words(pairs: &Map<String, Value>) -> String {
    let pair = |(name, value): (&String, &Value)| format!("{name}={}", value.as_str().unwrap_or_default());
    pairs.iter().map(pair).collect::<Vec<_>>().join(" ")
}

/// `{"eu-west-1": "snap-…"}`; `Null` without any.
fn object<T: Display>(pairs: &[(String, T)]) -> Value {
    let pair = |(name, value): &(String, T)| (name.clone(), value.to_string().into());
    if pairs.is_empty() { Value::Null } else { Value::Object(pairs.iter().map(pair).collect()) }
}

/// Seconds with three decimals.
pub fn rounded_seconds(duration: Duration) -> f64 {
    duration.as_millis() as f64 / 1000.0
}

impl Outputs {
    /// Name and value of all outputs but the phases, in their stable order; `Null` for what is not known.
    fn fields(&self) -> Vec<(&'static str, Value)> {
        let rollout = self.rollout.as_ref();
        vec![
            ("snapshot-id", self.snapshot_id.as_str().into()),
            ("volume-id", self.volume_id.as_ref().map(VolumeId::as_str).into()),
            ("commit", self.commit.as_str().into()),
            ("ref", self.reference.as_deref().into()),
            ("repository", self.repository.as_str().into()),
            ("key", self.key.as_str().into()),
            ("reused", self.reused.into()),
            ("store", self.store.as_str().into()),
            ("region", self.region.as_deref().into()),
            ("size-gib", self.size_gib.into()),
            ("changed-blocks", self.changed_blocks.into()),
            ("copies", object(&self.copies)),
            ("ssm-parameter", self.ssm_parameter.as_deref().into()),
            ("launch-template-id", rollout.and_then(|it| it.template.as_ref()).map(|(id, _)| id.as_str()).into()),
            ("launch-template-version", rollout.and_then(|it| it.template.as_ref()).map(|(_, number)| *number).into()),
            ("launch-configurations", object(rollout.map(|it| &it.configurations[..]).unwrap_or_default())),
            ("instance-refreshes", object(rollout.map(|it| &it.refreshes[..]).unwrap_or_default())),
            ("previous-snapshot-id", rollout.and_then(|it| it.previous.as_ref()).map(SnapshotId::as_str).into()),
            ("duration-seconds", rounded_seconds(self.duration).into()),
        ]
    }

    /// The same as text, for formats without types; what is not known is not there.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.fields().into_iter().filter_map(|(name, value)| match value {
            Value::Null => None,
            Value::String(text) => Some((name, text)),
            Value::Object(pairs) => Some((name, in_words(&pairs))),
            other => Some((name, other.to_string())),
        })
    }

    /// The JSON object: `version`, the outputs, `phases`.
    pub fn to_value(&self) -> Value {
        let mut object = Map::from_iter([("version".to_owned(), VERSION.into())]);
        object.extend(self.fields().into_iter().map(|(name, value)| (name.to_owned(), value)));
        let phase = |record: &PhaseRecord| {
            json!({
                "phase": record.phase,
                "started-seconds": rounded_seconds(record.started),
                "seconds": rounded_seconds(record.elapsed),
                "change": record.change,
                "detail": record.detail,
            })
        };
        object.insert("phases".to_owned(), self.phases.iter().map(phase).collect());
        Value::Object(object)
    }

    /// The content of `--output-json`.
    pub fn to_json(&self) -> String {
        format!("{:#}\n", self.to_value())
    }

    /// The content of `--output-env`: `SNAPSHOT_ID=snap-…`. Values are escaped ([`escape::env_value`]) so that no reader
    /// expands or runs anything in them. Where all are too much for GitLab the longest are left out.
    pub fn to_env(&self) -> String {
        let line = |(name, value): (&str, String)| {
            format!("{}={}\n", name.to_ascii_uppercase().replace('-', "_"), escape::env_value(&value))
        };
        let mut lines: Vec<String> = self.texts().map(line).collect();
        while lines.iter().map(String::len).sum::<usize>() >= ENV_SIZE {
            let longest = lines.iter().map(String::len).max();
            lines.retain(|line| Some(line.len()) != longest);
        }
        lines.concat()
    }

    /// What is appended to `$GITHUB_OUTPUT`. The delimiter cannot be guessed, so no value can end its own block.
    pub fn to_github_output(&self) -> String {
        let random = || RandomState::new().build_hasher().finish();
        let delimiter = format!("ebs-bake-{:016x}{:016x}", random(), random());
        let block = |(name, value)| format!("{name}<<{delimiter}\n{value}\n{delimiter}\n");
        self.texts().map(block).collect()
    }

    /// Writes all files. All are tried; the first failure is returned.
    pub fn write(&self, files: &OutputFiles) -> Result<()> {
        let write = |path: &Option<PathBuf>, name: &str, write: &dyn Fn(&Path) -> io::Result<()>| match path {
            Some(path) => step::around(format_args!("writing {name}"), || write(path)).map_err(|cause| {
                let message = format!("snapshot {} is good, but {name} {} cannot be written", self.snapshot_id, path.display());
                Error::new(Kind::Cleanup, message).because(cause)
            }),
            None => Ok(()),
        };
        let results = [
            write(&files.json, "--output-json", &|path| replace(path, &self.to_json())),
            write(&files.env, "--output-env", &|path| replace(path, &self.to_env())),
            write(&files.github_output, "$GITHUB_OUTPUT", &|path| append(path, &self.to_github_output())),
            write(&files.step_summary, "$GITHUB_STEP_SUMMARY", &|path| append(path, &summary::markdown(self))),
        ];
        results.into_iter().collect()
    }
}

impl OutputFiles {
    /// Says in the step summary what went wrong and how far the run came. That it cannot be said is no second error.
    pub fn write_failure(&self, error: &Error, phases: &[PhaseRecord]) {
        if let Some(path) = &self.step_summary {
            let _ = append(path, &summary::failure(error, phases));
        }
    }

    /// Whether all can be written: before a volume is rented or hours are spent. Leaves nothing behind.
    pub fn check_writable(&self) -> Result<()> {
        let files = [
            (&self.json, "--output-json"),
            (&self.env, "--output-env"),
            (&self.github_output, "$GITHUB_OUTPUT"),
            (&self.step_summary, "$GITHUB_STEP_SUMMARY"),
        ];
        for (path, name) in files {
            let Some(path) = path else { continue };
            check(path).map_err(|cause| {
                let error = Error::new(Kind::Usage, format!("{name}: {} cannot be written", path.display()));
                error.because(cause).hint("its directory must exist and be writable")
            })?;
        }
        Ok(())
    }
}

/// Replaces a file in one step, so that no reader sees half of it. What cannot be replaced (a file that is bind-mounted
/// into a container, one in a directory without write permission) is overwritten in place; devices, pipes and the open
/// files below `/dev` and `/proc` are written to as they are.
fn replace(path: &Path, content: &str) -> io::Result<()> {
    let special = fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
    if special || path.starts_with("/dev") || path.starts_with("/proc") {
        return append(path, content);
    }
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if temporary(path).and_then(|file| persist(file, path, content)).is_ok() {
        return Ok(());
    }
    File::create(path)?.write_all(content.as_bytes())
}

/// A temporary file beside `path`, readable as any new file is: the next job may be another user.
fn temporary(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    tempfile::Builder::new().prefix(".ebs-bake-").permissions(fs::Permissions::from_mode(0o666)).tempfile_in(directory_of(path))
}

fn persist(mut file: tempfile::NamedTempFile, path: &Path, content: &str) -> io::Result<()> {
    file.write_all(content.as_bytes())?;
    step::around("replacing an output file", || file.persist(path))?;
    Ok(())
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Other steps have written to the file, and it may be bind-mounted: never replaced.
fn append(path: &Path, content: &str) -> io::Result<()> {
    OpenOptions::new().append(true).create(true).open(path)?.write_all(content.as_bytes())
}

/// Opens nothing that is there: a pipe would wait for its reader, who then would take the check for the end.
fn check(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(_) => Ok(nix::unistd::access(path, nix::unistd::AccessFlags::W_OK)?),
        Err(_) => temporary(path).map(drop),
    }
}
