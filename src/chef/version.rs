//! Versions of cookbooks and what is asked of them, by the rules of `Chef::Version` and `Chef::VersionConstraint`.

use std::cmp::Ordering;
use std::fmt;

/// `1.2.3`; `1.2` is `1.2.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Version([u64; 3]);

impl Version {
    /// Two or three numbers; `None` for anything else.
    pub fn parse(text: &str) -> Option<Version> {
        let (version, parts) = numbers(text)?;
        (parts >= 2).then_some(version)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Version([major, minor, patch]) = self;
        write!(f, "{major}.{minor}.{patch}")
    }
}

/// One to three numbers, and how many they are.
fn numbers(text: &str) -> Option<(Version, usize)> {
    let mut version = Version::default();
    let mut parts = 0;
    for part in text.split('.') {
        if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *version.0.get_mut(parts)? = part.parse().unwrap_or(u64::MAX);
        parts += 1;
    }
    Some((version, parts))
}

/// `~> 1.2`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Constraint {
    operator: &'static str,
    version: Version,
    parts: usize,
}

/// The longer ones first: `<=` begins with `<`.
const OPERATORS: [&str; 6] = ["<=", ">=", "~>", "<", ">", "="];

impl Constraint {
    /// What `depends` takes: an operator and one to three numbers, or numbers alone. `None` for anything else, part of which (names of
    /// FreeBSD's versions) Chef takes too.
    pub fn parse(text: &str) -> Option<Constraint> {
        let (operator, version) = match OPERATORS.iter().find(|operator| text.starts_with(**operator)) {
            Some(operator) => (*operator, text[operator.len()..].trim_start_matches(' ')),
            None => ("=", text),
        };
        let (version, parts) = numbers(version)?;
        Some(Constraint { operator, version, parts })
    }

    /// Whether Chef takes it for a constraint of any form, however its version is written; `false` stops Chef.
    pub fn has_form(text: &str) -> bool {
        let operator = OPERATORS.iter().find(|operator| text.starts_with(**operator));
        let version = operator.map_or(text, |operator| text[operator.len()..].trim_start_matches(' '));
        version.bytes().next().is_some_and(|byte| byte.is_ascii_digit()) && (operator.is_some() || !text.contains(' '))
    }

    /// Whether an environment takes it: it wants two or three numbers where `depends` is content with one.
    pub fn fits_environment(&self) -> bool {
        self.parts >= 2
    }

    /// Whether a version will do.
    pub fn allows(&self, version: Version) -> bool {
        let (Version([major, minor, _]), Version([its_major, its_minor, _])) = (self.version, version);
        match (self.operator, version.cmp(&self.version)) {
            ("=", order) => order == Ordering::Equal,
            ("<", order) => order == Ordering::Less,
            (">", order) => order == Ordering::Greater,
            ("<=", order) => order != Ordering::Greater,
            (">=", order) => order != Ordering::Less,
            // `~> 1.2` is any 1.x from 1.2 on, `~> 1.2.3` any 1.2.x from 1.2.3 on.
            (_, order) => order != Ordering::Less && its_major == major && (self.parts < 3 || its_minor == minor),
        }
    }
}
