//! A git repository shaped like a real chef-repo: cookbooks with recipes, attributes, templates and files, roles,
//! environments and data bags; small files with a long tail. The same seed gives the same bytes.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// SplitMix64 (Steele, Lea, Flood 2014): small, seeded, good enough to shape data.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Log-normal: median 1 KB, mean 3 KB, at most 200 KB, as measured on facebook/chef-cookbooks and chef/chef.
    fn size(&mut self) -> usize {
        let unit = |r: &mut Self| (r.next() >> 11) as f64 / (1u64 << 53) as f64;
        let (a, b) = (unit(self).max(1e-12), unit(self));
        let normal = (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos();
        (1024.0 * (1.48 * normal).exp()).clamp(20.0, 200_000.0) as usize
    }
}

const WORDS: [&str; 32] = [
    "node",
    "default",
    "package",
    "service",
    "template",
    "action",
    "install",
    "notifies",
    "restart",
    "immediately",
    "owner",
    "root",
    "group",
    "mode",
    "variables",
    "source",
    "directory",
    "recursive",
    "true",
    "false",
    "not_if",
    "only_if",
    "include_recipe",
    "do",
    "end",
    "if",
    "else",
    "attribute",
    "lambda",
    "class",
    "module",
    "property",
];

fn text(random: &mut Random, size: usize) -> String {
    let mut text = String::with_capacity(size + 80);
    while text.len() < size {
        let indent = "  ".repeat(random.below(4));
        let _ = write!(text, "{indent}");
        for _ in 0..=random.below(8) {
            let _ = write!(text, "{} ", WORDS[random.below(WORDS.len())]);
        }
        let _ = writeln!(text, "'{:x}'", random.next() >> (random.below(6) * 10));
    }
    text
}

fn paths(random: &mut Random, files: usize) -> Vec<String> {
    const KINDS: [&str; 9] = [
        "recipes/{}.rb",
        "recipes/{}.rb",
        "attributes/{}.rb",
        "templates/default/{}.erb",
        "templates/default/{}.conf.erb",
        "files/default/{}",
        "libraries/{}.rb",
        "resources/{}.rb",
        "spec/{}_spec.rb",
    ];
    let mut paths = Vec::with_capacity(files);
    let mut cookbook = 0;
    while paths.len() < files {
        let root = format!("cookbooks/{}_{cookbook:04}", WORDS[cookbook % WORDS.len()]);
        paths.extend(["metadata.rb", "README.md"].map(|name| format!("{root}/{name}")));
        for file in 0..4 + random.below(16) {
            let kind = KINDS[random.below(KINDS.len())];
            paths.push(format!("{root}/{}", kind.replace("{}", &format!("{}_{file}", WORDS[random.below(WORDS.len())]))));
        }
        if cookbook % 3 == 0 {
            paths.push(format!("roles/role_{cookbook}.json"));
            paths.push(format!("data_bags/bag_{}/item_{cookbook}.json", cookbook % 10));
        }
        cookbook += 1;
    }
    paths.truncate(files);
    paths
}

/// What a commit does to a file: most often some lines come and some go in one place, sometimes it is written anew.
fn edited(random: &mut Random, before: Option<&String>) -> String {
    match before {
        Some(before) if random.below(20) < 17 => {
            let at = random.below(before.len());
            let end = (at + random.below(150)).min(before.len());
            let size = 5 + random.below(195);
            format!("{}{}{}", &before[..at], text(random, size), &before[end..])
        }
        _ => {
            let size = random.size();
            text(random, size)
        }
    }
}

/// Makes a bare repository at `path` whose `main` has one commit with `files` files, then `commits` commits that
/// each change 1 to 6 of them. Returns the commits, oldest first.
pub fn make(path: &Path, files: usize, commits: usize, seed: u64) -> Vec<String> {
    let mut random = Random::new(seed);
    let paths = paths(&mut random, files);
    let (mut stream, mut contents) = (Vec::new(), HashMap::new());
    for commit in 0..=commits {
        let when = 1_700_000_000 + commit * 3600;
        let _ = write!(stream, "commit refs/heads/main\ncommitter A <a@example.com> {when} +0000\ndata 8\nc{commit:07}\n");
        let changed: Vec<&String> = match commit {
            0 => paths.iter().collect(),
            _ => (0..=random.below(6)).map(|_| &paths[random.below(paths.len())]).collect(),
        };
        for path in changed {
            let text = edited(&mut random, contents.get(path));
            let _ = write!(stream, "M 100644 inline {path}\ndata {}\n{text}\n", text.len());
            contents.insert(path, text);
        }
    }
    git(&["init", "-q", "--bare", "-b", "main", &path.to_string_lossy()], &[]);
    git(&["-C", &path.to_string_lossy(), "fast-import", "--quiet"], &stream);
    git(&["-C", &path.to_string_lossy(), "repack", "-q", "-a", "-d"], &[]);
    git(&["-C", &path.to_string_lossy(), "update-server-info"], &[]);
    git(&["-C", &path.to_string_lossy(), "config", "uploadpack.allowAnySHA1InWant", "true"], &[]);
    let log = git(&["-C", &path.to_string_lossy(), "rev-list", "--reverse", "main"], &[]);
    log.lines().map(str::to_owned).collect()
}

/// Runs the git command line, hermetically, and returns what it printed.
pub fn git(arguments: &[&str], input: &[u8]) -> String {
    let mut child = Command::new("git")
        .args(arguments)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", "/nonexistent")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("git is installed");
    child.stdin.take().expect("piped").write_all(input).expect("git reads its input");
    let output = child.wait_with_output().expect("git ends");
    assert!(output.status.success(), "git {arguments:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
