//! What names and paths of Chef must look like. They end up in a shell script, in JSON and in Chef's configuration, which is Ruby: they have
//! characters that mean nothing anywhere.

use super::lines;

/// Names or paths of one value: a line each.
pub type Lines = Vec<String>;

/// The longest file name is 255 bytes, `.json` included.
const NAME_MAX: usize = 250;

/// The name of a role or an environment: Chef's own rule, without the letters that ASCII lacks (chef, `lib/chef/role.rb` and
/// `lib/chef/environment.rb`).
pub fn name(value: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
    if (1..=NAME_MAX).contains(&value.len()) && value.bytes().all(allowed) {
        return Ok(value.to_owned());
    }
    Err(format!("{value:?} is not a name of letters, digits, '-' and '_'"))
}

/// Names of roles, a line each.
pub fn names(value: &str) -> Result<Lines, String> {
    lines(value, name)
}

fn is_plain(part: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._@+-".contains(&b);
    !matches!(part, "" | "." | "..") && part.bytes().all(allowed)
}

const PLAIN: &str = "of letters, digits, '.', '_', '@', '+' and '-', without '..'";

/// A path from the root on.
pub fn absolute(value: &str) -> Result<String, String> {
    let path = value.strip_prefix('/').map(|path| path.strip_suffix('/').unwrap_or(path));
    match path {
        Some(path) if path.split('/').all(is_plain) => Ok(format!("/{path}")),
        _ => Err(format!("{value:?} is not an absolute path {PLAIN}")),
    }
}

/// A directory of the repository, without a slash at its end; empty for the root.
pub fn inside(value: &str) -> Result<String, String> {
    let parts: Vec<&str> = value.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if value.is_empty() || value.starts_with('/') || !parts.iter().all(|part| is_plain(part)) {
        return Err(format!("{value:?} is not a relative path {PLAIN}"));
    }
    Ok(parts.join("/"))
}

/// Directories of the repository, a line each.
pub fn directories(value: &str) -> Result<Lines, String> {
    lines(value, inside)
}

/// A program's name or path.
pub fn program(value: &str) -> Result<String, String> {
    if is_plain(value) && !value.starts_with('-') { Ok(value.to_owned()) } else { absolute(value) }
}

/// The values of `CHEF_LICENSE` (Chef documentation, "Accepting the Chef License").
pub fn license(value: &str) -> Result<String, String> {
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
    fn names_may_be_several_lines() {
        assert_eq!(names("web\ndb-1_x\n"), Ok(vec!["web".into(), "db-1_x".into()]));
        assert!(names("").is_err() && names("web\nweb server").is_err());
    }

    #[test]
    fn paths_have_plain_characters_and_stay_where_they_are() {
        assert_eq!(absolute("/chef/"), Ok("/chef".to_owned()));
        assert_eq!(absolute("/srv/chef-1.x").as_deref(), Ok("/srv/chef-1.x"));
        for (value, path) in [("infra/chef", "infra/chef"), ("./a//b/./c/", "a/b/c"), (".", ""), ("./", "")] {
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
