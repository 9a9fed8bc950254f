//! Nodes that boot: Debian's own files, with what is written kept apart, in namespaces that end with the boot. Call `needs_root()` first.

#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(clippy::unwrap_used, reason = "test helpers")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ebs_bake::storage::local::LocalStore;
use ebs_bake::storage::{Attachment, BlockStorage, NewVolume, Tags, VolumeId};
use serde_json::Value;

use super::bake::Host;
use super::git_cli::Scratch;
use super::tools::{made_from, run};

/// In seconds: a boot that takes longer hangs.
const LONGEST_BOOT: &str = "180";

/// A machine that is switched off, unless it boots.
pub struct Node {
    directory: tempfile::TempDir,
}

/// How a boot ended.
#[derive(Debug)]
pub struct Booted {
    pub code: i32,
    /// Both streams.
    pub said: String,
    /// `status.json`.
    pub status: Value,
}

impl Node {
    /// With a stand-in for Chef.
    pub fn new() -> Node {
        let node = Node::without_chef();
        node.add_chef("/usr/bin/chef-solo");
        node
    }

    pub fn without_chef() -> Node {
        let directory = tempfile::Builder::new().prefix("ebs-bake-node-").tempdir().unwrap();
        for name in ["files", "work", "root"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        Node { directory }
    }

    pub fn add_chef(&self, program: &str) {
        self.write(program, &fs::read_to_string(tests().join("boot/chef-solo")).unwrap());
    }

    /// Where a file of the node is that it, or we, wrote.
    pub fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join("files").join(file.trim_start_matches('/'))
    }

    /// Writes a file, which can be run.
    pub fn write(&self, file: &str, content: &str) {
        let path = self.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// What a file has; nothing, if it is not there.
    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap_or_default()
    }

    pub fn mode(&self, file: &str) -> u32 {
        fs::metadata(self.path(file)).unwrap().mode() & 0o7777
    }

    /// What Chef was told, a line for each call.
    pub fn chef_calls(&self) -> Vec<String> {
        self.read("/var/log/chef-calls").lines().map(str::to_owned).collect()
    }

    /// Boots: runs these commands in the node's shell. Everything they start and mount is gone afterwards.
    pub fn boot(&self, commands: &str) -> Booted {
        // With their first process all others of the namespaces end.
        let mut command = Command::new("timeout");
        command.args(["--signal", "KILL", LONGEST_BOOT, "unshare"]);
        command.args(["--mount", "--pid", "--uts", "--ipc", "--net", "--fork", "--kill-child", "--propagation", "private"]);
        command.arg(tests().join("boot/start.sh")).arg(root()).arg(self.directory.path());
        command.args(["sh", "-c", &format!("exec 2>&1\n{commands}")]).stdin(Stdio::null());
        let output = command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let status = self.read("/var/lib/ebs-bake-boot/status.json");
        let status = if status.is_empty() { Value::Null } else { serde_json::from_str(&status).expect(&status) };
        Booted { code: output.status.code().unwrap_or(-1), said, status }
    }
}

impl Booted {
    /// It ended well.
    #[track_caller]
    pub fn is_good(&self) -> &Booted {
        assert_eq!((self.code, self.status["state"].as_str()), (0, Some("succeeded")), "{self:#?}");
        self
    }

    /// It ended with this code and said why, to whoever watches and in the status.
    #[track_caller]
    pub fn failed(&self, code: i32, why: &str) -> &Booted {
        assert_eq!((self.code, self.status["state"].as_str()), (code, Some("failed")), "{self:#?}");
        let message = self.status["message"].as_str().unwrap();
        assert!(message.contains(why) && self.said.contains(message), "{why:?} is not in {self:#?}");
        self
    }
}

/// A volume made from a snapshot of a local store, attached to this machine.
pub struct Restored {
    store: LocalStore,
    id: VolumeId,
    device: u64,
}

impl Restored {
    pub fn new(host: &Host, snapshot: &str) -> Restored {
        let store = LocalStore::open(host.path("store")).unwrap();
        let size_gib = 8;
        let new = NewVolume { size_gib, source: Some(snapshot.parse().unwrap()), tags: Tags::new(), token: None };
        let id = block_on(store.create_volume(&new)).unwrap().1.id;
        let Attachment::Here { device, .. } = block_on(store.attach(&id)).unwrap().1 else { panic!("not attached") };
        Restored { store, id, device: fs::metadata(device).unwrap().rdev() }
    }

    /// The command that makes it appear in a node under a name.
    pub fn appears_as(&self, path: &str) -> String {
        appears_as(self.device, path)
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        let detached = block_on(self.store.detach(&self.id, None));
        if !std::thread::panicking() {
            detached.unwrap();
        }
    }
}

/// A repository, its commit, a volume that was made from its snapshot.
pub struct Fixture {
    pub volume: Restored,
    pub commit: String,
    pub url: String,
    snapshot: String,
    // Last: what the volume is made from.
    host: Host,
    _scratch: Scratch,
}

impl Fixture {
    pub fn new() -> Fixture {
        Fixture::with(&[])
    }

    pub fn with(files: &[(&str, &str)]) -> Fixture {
        let (host, scratch) = (Host::new(), Scratch::new());
        let commit = repository(&scratch, files);
        let baked = host.bake(scratch.path("chef")).baked();
        let url = baked.result["repository"].as_str().unwrap().to_owned();
        let volume = Restored::new(&host, &baked.id);
        Fixture { volume, commit, url, snapshot: baked.id, host, _scratch: scratch }
    }

    /// One more volume made from the snapshot.
    pub fn another(&self) -> Restored {
        Restored::new(&self.host, &self.snapshot)
    }

    /// A Nitro instance with Amazon's udev rules.
    pub fn nitro(&self) -> String {
        self.volume.appears_as("/dev/nvme1n1") + "ln -s nvme1n1 /dev/sdk\n" + SERIAL_LINK
    }

    /// One without them.
    pub fn plain_nitro(&self) -> String {
        self.volume.appears_as("/dev/nvme1n1") + SERIAL_LINK
    }

    pub fn xen(&self) -> String {
        self.volume.appears_as("/dev/xvdk")
    }
}

/// What udev of any distribution makes.
const SERIAL_LINK: &str = "mkdir -p /dev/disk/by-id
ln -s ../../nvme1n1 /dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0
ln -s ../../nvme1n1 /dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0_1\n";

/// A node with this script at `/boot-script`.
pub fn node(arguments: &[&str]) -> Node {
    let node = Node::new();
    node.write("/boot-script", &script(&[&["--retry-pause", "0s"], arguments].concat()));
    node
}

/// The command that makes a device appear in a node under a name.
pub fn appears_as(device: u64, path: &str) -> String {
    format!("mknod {path} b {} {}\n", libc::major(device), libc::minor(device))
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// The files that all nodes have.
fn root() -> PathBuf {
    let script = tests().join("boot/root.sh");
    let directory = made_from("boot", &[&script], |directory| {
        fs::create_dir(directory).unwrap();
        run(Command::new(&script).arg(directory));
    });
    directory.join("root")
}

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// A chef-repo with the role `web`, the environment `prod` and two cookbooks, as `chef` in the scratch; its commit.
pub fn repository(scratch: &Scratch, more: &[(&str, &str)]) -> String {
    scratch.repository("chef");
    let files = [
        ("cookbooks/base/recipes/default.rb", "# base\n"),
        ("cookbooks/app/recipes/default.rb", "# app\n"),
        ("roles/web.json", "{\"name\": \"web\", \"run_list\": [\n\"recipe[base]\",\n\"recipe[app]\"\n]}\n"),
        ("environments/prod.json", "{\"name\": \"prod\"}\n"),
    ];
    scratch.commit("chef", &[&files, more].concat())
}

/// What `user-data` prints.
pub fn printed(arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ebs-bake"));
    let output = command.arg("user-data").args(arguments).env_clear().current_dir("/").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// What it prints, where that is text.
pub fn script(arguments: &[&str]) -> String {
    String::from_utf8(printed(arguments)).unwrap()
}
