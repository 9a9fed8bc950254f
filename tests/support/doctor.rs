//! What `doctor --json` told.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::collections::BTreeMap;

use serde_json::Value;

use super::ec2::Ended;

/// What `doctor --json` told.
#[derive(Debug)]
pub struct Told {
    pub ended: Ended,
    pub checks: BTreeMap<String, Value>,
}

impl Told {
    pub fn of(ended: Ended) -> Told {
        let value: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
        assert_eq!(value["version"], 1);
        let named = |check: &Value| (check["name"].as_str().unwrap().to_owned(), check.clone());
        let checks: BTreeMap<_, _> = value["checks"].as_array().unwrap().iter().map(named).collect();
        assert_eq!(checks.len(), value["checks"].as_array().unwrap().len(), "a name stands twice");
        Told { ended, checks }
    }

    /// The names of the checks that came to this.
    pub fn with(&self, outcome: &str) -> Vec<&str> {
        self.checks.iter().filter(|(_, check)| check["outcome"] == outcome).map(|(name, _)| name.as_str()).collect()
    }

    /// The program ended with this code, and these checks failed.
    #[track_caller]
    pub fn failed(&self, code: i32, names: &[&str]) {
        assert_eq!((self.ended.code, self.with("failure")), (code, names.to_vec()), "{self:#?}");
        let said = format!("{} of {} checks failed", names.len(), self.checks.len());
        assert!(names.is_empty() || self.ended.stderr.contains(&said), "{}", self.ended.stderr);
    }

    /// The check says all of this, in its detail or its hint.
    #[track_caller]
    pub fn says(&self, name: &str, words: &[&str]) {
        let check = self.checks[name].to_string();
        for word in words {
            assert!(check.contains(word), "{word:?} is not said: {check}");
        }
    }
}
