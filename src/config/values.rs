//! What a value must look like: one parser for each shape, the same for flags, environment and file.

use std::time::Duration;

use git2::Oid;
use jiff::SignedDuration;

use super::CopyTo;
use crate::key::SubmoduleMode;

pub mod chef;

/// The longest label that ext4 has room for, in bytes.
const LABEL_MAX: usize = 16;
/// The largest volume that EBS has (gp3), in GiB.
const VOLUME_MAX_GIB: u32 = 65_536;

/// A name, a path or a command: anything but nothing, and no control characters.
pub fn text(value: &str) -> Result<String, String> {
    if value.is_empty() {
        return Err("a value is needed, it is empty".into());
    }
    if value.chars().any(char::is_control) {
        // Not repeated: a repository's URL may have a password in it.
        return Err("it has control characters".into());
    }
    Ok(value.to_owned())
}

/// A shell command: may have several lines.
pub fn command(value: &str) -> Result<String, String> {
    if value.trim().is_empty() || value.contains('\0') {
        return Err("a command is needed, it is empty".into());
    }
    Ok(value.to_owned())
}

/// The name of a volume: becomes the filesystem's label and a directory's name.
pub fn volume_name(value: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let begins_well = value.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if begins_well && value.len() <= LABEL_MAX && value.bytes().all(allowed) {
        return Ok(value.to_owned());
    }
    Err(format!("{value:?} is not 1 to {LABEL_MAX} letters, digits, '.', '_' or '-', beginning with a letter or digit"))
}

/// The size of a volume in GiB.
pub fn size_gib(value: &str) -> Result<u32, String> {
    let size = value.parse().ok().filter(|size| (1..=VOLUME_MAX_GIB).contains(size));
    size.ok_or_else(|| format!("{value:?} is not a whole number of GiB from 1 to {VOLUME_MAX_GIB}"))
}

/// A duration with its unit: `90s`, `10m`, `1h30m`.
pub fn duration(value: &str) -> Result<Duration, String> {
    let parsed = value.parse::<SignedDuration>().ok();
    let positive = parsed.and_then(|duration| Duration::try_from(duration).ok());
    positive.ok_or_else(|| format!("{value:?} is not a duration such as 90s, 10m or 2h"))
}

/// A name without spaces, as AWS gives them to regions, zones, types and keys.
pub fn word(value: &str) -> Result<String, String> {
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:/".contains(&b)) {
        return Ok(value.to_owned());
    }
    Err(format!("{value:?} is not a name of letters, digits, '-', '_', '.', ':' and '/'"))
}

/// The ID of an instance.
pub fn instance_id(value: &str) -> Result<String, String> {
    let digits = value.strip_prefix("i-").unwrap_or_default();
    if (8..=17).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Ok(value.to_owned());
    }
    Err(format!("{value:?} is not an ID of the form i- and 8 to 17 hexadecimal digits"))
}

/// A device name for EC2: `/dev/sdf` to `/dev/sdp`, or one of `/dev/xvd…` (EC2 User Guide, "Device names for volumes").
pub fn device(value: &str) -> Result<String, String> {
    let letters = value.strip_prefix("/dev/sd").or_else(|| value.strip_prefix("/dev/xvd")).unwrap_or_default();
    if (1..=2).contains(&letters.len()) && letters.bytes().all(|b| b.is_ascii_lowercase()) {
        return Ok(value.to_owned());
    }
    Err(format!("{value:?} is not a device name such as /dev/sdk or /dev/xvdk"))
}

/// Tags of one value: a line each.
pub type TagLines = Vec<(String, String)>;

/// `key=value`, a line each, within what EC2 takes (EC2 User Guide, "Tag restrictions").
pub fn tags(value: &str) -> Result<TagLines, String> {
    let lines = value.lines().filter(|line| !line.trim().is_empty());
    let tags: TagLines = lines.map(tag).collect::<Result<_, _>>()?;
    if tags.is_empty() { Err("a tag is needed, it is empty".into()) } else { Ok(tags) }
}

fn tag(line: &str) -> Result<(String, String), String> {
    let (key, value) = line.split_once('=').ok_or_else(|| format!("{line:?} is not KEY=VALUE"))?;
    if key.is_empty() || key.chars().count() > 128 || value.chars().count() > 256 || line.chars().any(char::is_control) {
        return Err(format!("{line:?}: a key has 1 to 128 characters, a value at most 256, without control characters"));
    }
    match ["aws:", "ebs-bake:"].iter().find(|prefix| key.to_ascii_lowercase().starts_with(**prefix)) {
        Some(prefix) => Err(format!("{key:?}: keys that begin with {prefix} are not yours to set")),
        None => Ok((key.to_owned(), value.to_owned())),
    }
}

/// Copies of one value: a line each.
pub type Copies = Vec<CopyTo>;

/// `region` or `region,key`, a line each.
pub fn copies(value: &str) -> Result<Copies, String> {
    lines(value, |line| {
        let (region, key) = line.split_once(',').map_or((line, None), |(region, key)| (region, Some(key)));
        let kms_key = key.map(|key| word(key.trim())).transpose()?;
        Ok(CopyTo { region: word(region.trim())?, kms_key })
    })
}

/// Accounts of one value: a line each.
pub type Accounts = Vec<String>;

/// IDs of AWS accounts, a line each.
pub fn accounts(value: &str) -> Result<Accounts, String> {
    lines(value, |line| match line.len() == 12 && line.bytes().all(|b| b.is_ascii_digit()) {
        true => Ok(line.to_owned()),
        false => Err(format!("{line:?} is not an account ID of 12 digits")),
    })
}

/// Lines that are not blank; at least one.
pub(super) fn lines<T>(value: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    let lines = value.lines().map(str::trim).filter(|line| !line.is_empty());
    let values: Vec<T> = lines.map(parse).collect::<Result<_, _>>()?;
    if values.is_empty() { Err("a value is needed, it is empty".into()) } else { Ok(values) }
}

/// Names of one value: a line each.
pub type Names = Vec<String>;

/// Names of Auto Scaling groups, a line each: up to 255 characters of nearly any kind (Auto Scaling API reference).
pub fn names(value: &str) -> Result<Names, String> {
    lines(value, |line| match line.chars().count() <= 255 {
        true => text(line),
        false => Err(format!("{line:?} has more than 255 characters")),
    })
}

/// The ID or the name of a launch template (EC2 API reference, CreateLaunchTemplate).
pub fn launch_template(value: &str) -> Result<String, String> {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"().-/_".contains(&b);
    if (3..=128).contains(&value.len()) && value.bytes().all(is_allowed) {
        return Ok(value.to_owned());
    }
    Err(format!("{value:?} is not an ID or a name of 3 to 128 letters, digits, '(', ')', '.', '-', '/' and '_'"))
}

/// What names of launch configurations begin with; commit and content follow it.
pub fn configuration_prefix(value: &str) -> Result<String, String> {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if (1..=128).contains(&value.len()) && value.bytes().all(is_allowed) {
        return Ok(value.to_owned());
    }
    Err(format!("{value:?} is not 1 to 128 letters, digits, '.', '_' and '-'"))
}

/// A whole number that is not 0.
pub fn at_least_one(value: &str) -> Result<usize, String> {
    value.parse().ok().filter(|number| *number > 0).ok_or_else(|| format!("{value:?} is not a whole number from 1"))
}

/// Percentages of one value.
pub type Checkpoints = Vec<u8>;

/// Rising percentages up to 100, separated by commas: a refresh that ended before would leave machines as they are.
pub fn checkpoints(value: &str) -> Result<Checkpoints, String> {
    let wrong = || format!("{value:?} is not a row of rising percentages up to 100, such as 10,50,100");
    let numbers: Option<Checkpoints> = value.split(',').map(|number| number.trim().parse().ok()).collect();
    let numbers = numbers.ok_or_else(wrong)?;
    let rises = numbers.windows(2).all(|pair| pair[0] < pair[1]);
    if rises && numbers[0] > 0 && numbers.last() == Some(&100) { Ok(numbers) } else { Err(wrong()) }
}

/// The name of a parameter (Systems Manager API reference, PutParameter).
pub fn parameter(value: &str) -> Result<String, String> {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.-/".contains(&b);
    let bare = value.trim_start_matches('/').to_ascii_lowercase();
    if bare.is_empty() || value.len() > 1011 || !value.bytes().all(is_allowed) {
        return Err(format!("{value:?} is not a name of letters, digits, '_', '.', '-' and '/'"));
    }
    if bare.starts_with("aws") || bare.starts_with("ssm") {
        return Err(format!("{value:?}: names that begin with aws or ssm are not yours to set"));
    }
    Ok(value.to_owned())
}

/// A commit's full SHA.
pub fn commit(value: &str) -> Result<Oid, String> {
    let full = value.len() == 40 && value.bytes().all(|b| b.is_ascii_hexdigit());
    let oid = full.then(|| Oid::from_str(value).ok()).flatten();
    oid.ok_or_else(|| format!("{value:?} is not a commit's full SHA of 40 hexadecimal digits"))
}

/// Which submodules; the words of actions/checkout work too.
pub fn submodules(value: &str) -> Result<SubmoduleMode, String> {
    match value {
        "no" | "false" => Ok(SubmoduleMode::No),
        "yes" | "true" => Ok(SubmoduleMode::Yes),
        "recursive" => Ok(SubmoduleMode::Recursive),
        _ => Err(format!("{value:?} is not one of no, yes, recursive")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volume_names_fit_a_label_and_a_path() {
        for good in ["chef", "a", "Chef_2.x-y", "0123456789abcdef"] {
            assert_eq!(volume_name(good).as_deref(), Ok(good));
        }
        for bad in ["", ".", "..", "-x", "a/b", "a b", "0123456789abcdefg", "käse", "a\n"] {
            assert!(volume_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn durations_need_a_unit_and_a_sign_of_sense() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for bad in ["", "90", "-1s", "ten minutes", "10x", "1e9h", "99999999999999999999h"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn commits_are_full_shas() {
        let sha = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(commit(sha).map(|oid| oid.to_string()).as_deref(), Ok(sha));
        assert_eq!(commit(&sha.to_uppercase()).map(|oid| oid.to_string()).as_deref(), Ok(sha));
        for bad in ["", "HEAD", "0123456", &sha[1..], "0123456789abcdef0123456789abcdef0123456g"] {
            assert!(commit(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sizes_are_those_that_a_store_can_make() {
        assert_eq!(size_gib("8"), Ok(8));
        for bad in ["", "0", "-1", "8GiB", "65537", "4294967296"] {
            assert!(size_gib(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_ec2_is_told_is_checked_before() {
        assert!(instance_id("i-0123456789abcdef0").is_ok() && instance_id("0123456789abcdef0").is_err());
        for good in ["/dev/sdk", "/dev/xvdk", "/dev/xvdbb"] {
            assert_eq!(device(good).as_deref(), Ok(good));
        }
        for bad in ["", "sdk", "/dev/sd", "/dev/sdk1", "/dev/nvme1n1", "/dev/../sdk", "/dev/sdabc"] {
            assert!(device(bad).is_err(), "{bad:?}");
        }
        assert!(word("arn:aws:kms:eu-central-1:123456789012:key/0-1").is_ok() && word("a b").is_err() && word("").is_err());
    }

    #[test]
    fn what_is_published_is_checked_before() {
        let copy = |region: &str, key: Option<&str>| CopyTo { region: region.into(), kms_key: key.map(str::to_owned) };
        assert_eq!(
            copies("eu-west-1\n\nus-west-2,alias/chef"),
            Ok(vec![copy("eu-west-1", None), copy("us-west-2", Some("alias/chef"))])
        );
        for bad in ["", "eu west", ",key", "eu-west-1,", "eu-west-1,a key"] {
            assert!(copies(bad).is_err(), "{bad:?}");
        }
        assert_eq!(accounts(" 123456789012\n"), Ok(vec!["123456789012".to_owned()]));
        assert!(accounts("12345678901").is_err() && accounts("all").is_err() && accounts("").is_err());
        for good in ["/chef/snapshot", "chef.snapshot-id_1"] {
            assert_eq!(parameter(good).as_deref(), Ok(good));
        }
        for bad in ["", "/", "/aws/x", "ssm-x", "a b", "a\nb"] {
            assert!(parameter(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_rolled_out_to_is_checked_before() {
        assert_eq!(names("web\n\n api (eu) \n"), Ok(vec!["web".to_owned(), "api (eu)".to_owned()]));
        assert!(names("").is_err() && names(&"x".repeat(256)).is_err());
        assert!(launch_template("lt-0123456789abcdef0").is_ok() && launch_template("chef (prod)").is_err());
        assert!(configuration_prefix("chef-web").is_ok() && configuration_prefix("").is_err());
        assert_eq!(at_least_one("3"), Ok(3));
        assert!(at_least_one("0").is_err() && at_least_one("-1").is_err());
        assert_eq!(checkpoints("10, 50,100"), Ok(vec![10, 50, 100]));
        for bad in ["", "10", "50,10,100", "0,100", "100,101", "10,,100", "10,10,100", "a"] {
            assert!(checkpoints(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn tags_are_lines() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(tags("a=b=c\n\nteam=\n"), Ok(vec![pair("a", "b=c"), pair("team", "")]));
        for bad in ["", "a", "=b", "aws:x=y", "ebs-bake:key=x", "EBS-BAKE:key=x", "a=\u{7}"] {
            assert!(tags(bad).is_err(), "{bad:?}");
        }
        assert!(tags(&format!("{}=x", "k".repeat(129))).is_err() && tags(&format!("k={}", "x".repeat(257))).is_err());
    }

    #[test]
    fn submodules_accept_booleans_too() {
        assert_eq!(submodules("true"), Ok(SubmoduleMode::Yes));
        assert_eq!(submodules("false"), Ok(SubmoduleMode::No));
        assert_eq!(submodules("recursive"), Ok(SubmoduleMode::Recursive));
        assert!(submodules("maybe").is_err());
    }
}
