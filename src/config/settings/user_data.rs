//! `user-data`: the options, and what their values may be. Names and paths end up in a shell script, in JSON and in Chef's
//! configuration, which is Ruby: they have characters that mean nothing anywhere.

use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use git2::Oid;

use crate::config::values;
use crate::fleet::user_data::Format;

/// `user-data`.
#[derive(Debug, Clone, Default, Args)]
pub struct UserData {
    /// What is printed.
    #[command(flatten)]
    pub output: Output,
    /// Which volume.
    #[command(flatten)]
    pub node: Node,
    /// How Chef is run.
    #[command(flatten)]
    pub chef: Chef,
}

/// What is printed.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "What to print")]
pub struct Output {
    /// The format of the script: script, mime, base64 or gzip [default: script]
    #[arg(long, value_enum, value_name = "FORMAT", hide_possible_values = true)]
    pub format: Option<Format>,
    /// Print the line for /etc/fstab of an image rather than the script
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_name = "BOOL", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub fstab: Option<bool>,
}

/// Which volume a node boots from.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Volume of a node")]
pub struct Node {
    /// Name of the volume, also its label [default: chef]
    #[arg(long, value_name = "NAME", value_parser = values::volume_name)]
    pub volume_name: Option<String>,
    /// The device name in the block device mapping [default: /dev/sdk]
    #[arg(long, value_name = "NAME", value_parser = values::device)]
    pub device: Option<String>,
    /// Where the node mounts it [default: /chef]
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    pub mount_point: Option<String>,
    /// How long the device may take to appear [default: 2m; --fstab: 30s]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub device_timeout: Option<Duration>,
    /// Boot from this commit only, as a full SHA [default: any]
    #[arg(long, value_name = "SHA", value_parser = values::commit)]
    pub expect_commit: Option<Oid>,
    /// Boot from this repository only [default: any]
    #[arg(long, value_name = "URL", value_parser = values::text)]
    pub expect_repository: Option<String>,
}

/// How Chef is run.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Chef")]
pub struct Chef {
    /// The role of the node
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub role: Option<String>,
    /// Chef's environment [default: Chef's own, _default]
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub environment: Option<String>,
    /// Where the chef-repo is in the repository [default: its root]
    #[arg(long, value_name = "DIR", value_parser = inside)]
    pub chef_path: Option<String>,
    /// A directory of cookbooks in it; may be repeated [default: those with a usual name]
    #[arg(long, value_name = "DIR", value_parser = directories)]
    pub cookbook_path: Option<Vec<Paths>>,
    /// Name or path of Chef's program [default: the first of chef-solo, chef-client, cinc-solo and cinc-client]
    #[arg(long, value_name = "PROGRAM", value_parser = program)]
    pub chef: Option<String>,
    /// Accept the licence that Chef has from version 15 on: accept, accept-silent or accept-no-persist [default: not]
    #[arg(long, value_name = "HOW", value_parser = license)]
    pub chef_license: Option<String>,
    /// How often Chef is run at most, until it ends well [default: 3]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub attempts: Option<u32>,
    /// The pause between two runs [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub retry_pause: Option<Duration>,
    /// Run this with sh when the node is ready [default: nothing]
    #[arg(long, value_name = "CMD", value_parser = values::command)]
    pub on_success: Option<String>,
    /// Run this with sh when the node failed [default: nothing]
    #[arg(long, value_name = "CMD", value_parser = values::command)]
    pub on_failure: Option<String>,
}

/// Paths of one value: a line each.
pub type Paths = Vec<String>;

/// The longest file name is 255 bytes, `.json` included.
const NAME_MAX: usize = 250;

/// The name of a role or an environment: Chef's own rule, without the letters that ASCII lacks (chef, `lib/chef/role.rb` and
/// `lib/chef/environment.rb`).
fn name(value: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
    if (1..=NAME_MAX).contains(&value.len()) && value.bytes().all(allowed) {
        return Ok(value.to_owned());
    }
    Err(format!("{value:?} is not a name of letters, digits, '-' and '_'"))
}

fn is_plain(part: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._@+-".contains(&b);
    !matches!(part, "" | "." | "..") && part.bytes().all(allowed)
}

const PLAIN: &str = "of letters, digits, '.', '_', '@', '+' and '-', without '..'";

fn absolute(value: &str) -> Result<String, String> {
    let path = value.strip_prefix('/').map(|path| path.strip_suffix('/').unwrap_or(path));
    match path {
        Some(path) if path.split('/').all(is_plain) => Ok(format!("/{path}")),
        _ => Err(format!("{value:?} is not an absolute path {PLAIN}")),
    }
}

/// A directory of the repository, without a slash at its end; `.` for the root.
fn inside(value: &str) -> Result<String, String> {
    let parts: Vec<&str> = value.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if value.is_empty() || value.starts_with('/') || !parts.iter().all(|part| is_plain(part)) {
        return Err(format!("{value:?} is not a relative path {PLAIN}"));
    }
    Ok(if parts.is_empty() { ".".to_owned() } else { parts.join("/") })
}

fn directories(value: &str) -> Result<Paths, String> {
    values::lines(value, inside)
}

fn program(value: &str) -> Result<String, String> {
    if is_plain(value) && !value.starts_with('-') { Ok(value.to_owned()) } else { absolute(value) }
}

/// The values of `CHEF_LICENSE` (Chef documentation, "Accepting the Chef License").
fn license(value: &str) -> Result<String, String> {
    match value {
        "accept" | "accept-silent" | "accept-no-persist" => Ok(value.to_owned()),
        _ => Err(format!("{value:?} is not one of accept, accept-silent, accept-no-persist")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What no name and no path may have, wherever it stands.
    const HOSTILE: [&str; 12] = ["", "a b", "a;b", "$(id)", "`id`", "a'b", "a\"b", "#{id}", "a\nb", "a\\b", "käse", "*"];

    #[test]
    fn names_are_those_that_chef_allows() {
        for good in ["web", "Web_1-x", "_default", "-"] {
            assert_eq!(name(good).as_deref(), Ok(good));
        }
        for bad in HOSTILE.into_iter().chain(["a.b", "a/b", "role[web]", &"a".repeat(251)]) {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn paths_have_plain_characters_and_stay_where_they_are() {
        assert_eq!(absolute("/chef/"), Ok("/chef".to_owned()));
        assert_eq!(absolute("/srv/chef-1.x").as_deref(), Ok("/srv/chef-1.x"));
        for (value, path) in [("infra/chef", "infra/chef"), ("./a//b/./c/", "a/b/c"), (".", "."), ("./", ".")] {
            assert_eq!(inside(value).as_deref(), Ok(path));
        }
        for bad in HOSTILE.into_iter().chain(["/", "//", "/a//b", "/a/../b", "/.", "../x", "a/.."]) {
            assert!(absolute(bad).is_err(), "{bad:?}");
            assert!(inside(bad).is_err(), "{bad:?}");
        }
        assert!(absolute("chef").is_err() && absolute("/a/./b").is_err());
        assert_eq!(directories("cookbooks\n\nvendor/cookbooks\n"), Ok(vec!["cookbooks".into(), "vendor/cookbooks".into()]));
    }

    #[test]
    fn programs_are_names_or_absolute_paths() {
        for good in ["chef-solo", "/opt/chef/bin/chef-client"] {
            assert_eq!(program(good).as_deref(), Ok(good));
        }
        for bad in HOSTILE.into_iter().chain(["-x", "bin/chef-solo", "chef-solo -x"]) {
            assert!(program(bad).is_err(), "{bad:?}");
        }
        assert!(license("accept").is_ok() && license("yes").is_err());
    }
}
