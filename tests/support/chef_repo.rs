//! Small chef-repos, and what is found in them.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::fs;
use std::os::unix::fs::symlink;

use ebs_bake::cancel::Cancel;
use ebs_bake::chef::read::Place;
use ebs_bake::chef::{self, Checked};

/// A chef-repo with these files.
pub struct Repo(pub tempfile::TempDir);

impl Repo {
    pub fn new(files: &[(&str, &str)]) -> Repo {
        let repo = Repo(tempfile::tempdir().unwrap());
        files.iter().for_each(|(path, text)| repo.write(path, text));
        repo
    }

    pub fn path(&self, path: &str) -> std::path::PathBuf {
        self.0.path().join(path)
    }

    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn link(&self, target: &str, path: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    pub fn checked(&self, place: &Place) -> Checked {
        chef::check(self.0.path(), place, &Cancel::new()).unwrap()
    }

    pub fn found(&self) -> Vec<String> {
        shown(&self.checked(&Place::default()))
    }
}

pub fn shown(checked: &Checked) -> Vec<String> {
    checked.findings.iter().map(|it| format!("{} {}: {}", it.severity.name(), it.place(), it.message)).collect()
}

/// What is found in a chef-repo with these files.
pub fn found(files: &[(&str, &str)]) -> Vec<String> {
    Repo::new(files).found()
}

/// A cookbook without a fault, and a role that uses it.
pub const GOOD: [(&str, &str); 3] = [
    ("cookbooks/nginx/metadata.rb", "name 'nginx'\nversion '1.2.3'\n"),
    ("cookbooks/nginx/recipes/default.rb", ""),
    ("roles/web.rb", "name 'web'\nrun_list 'recipe[nginx]'\n"),
];

pub const NONE: [&str; 0] = [];
