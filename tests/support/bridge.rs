//! The bridge (`tests/bridge`): EC2 with real block devices, for tests. `tests/bridge/README.md` describes what it takes.
//!
//! Starting one takes seconds, so those that a test has done with are kept for the next ones of the same program.

#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(clippy::unwrap_used, reason = "test helpers")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::tools;

/// How long a control call may take. Launching the first host lets moto load its tables.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(120);
/// How long the bridge may take to clean up before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// The states that `Bridge::timing` takes, but for `device.appearing`.
pub const STATES: [&str; 6] =
    ["volume.creating", "volume.attaching", "volume.detaching", "volume.modifying", "volume.optimizing", "snapshot.pending"];

static IDLE: Mutex<Vec<Bridge>> = Mutex::new(Vec::new());

/// A running bridge, with moto behind it. Dropped or orphaned, it ends and takes its devices and files with it.
pub struct Bridge {
    process: Child,
    /// For `AWS_ENDPOINT_URL`.
    pub api: String,
    /// Where images and trees are.
    pub directory: PathBuf,
}

/// What the bridge prints when it is ready.
#[derive(Deserialize)]
struct Ready {
    api: String,
    state: PathBuf,
}

/// An instance: whose disks are in a sysfs tree of its own, and who it is in its metadata service.
#[derive(Debug, Clone, Deserialize)]
pub struct Host {
    pub instance_id: String,
    pub zone: String,
    pub region: String,
    /// What `/sys` is on it.
    pub sysfs: PathBuf,
    /// What `/dev` is on it, as far as udev's links go.
    pub dev: PathBuf,
    /// For `AWS_EC2_METADATA_SERVICE_ENDPOINT`.
    pub imds: String,
}

/// Everything that is there.
#[derive(Debug, Clone, Deserialize)]
pub struct State {
    pub volumes: BTreeMap<String, VolumeState>,
    pub snapshots: BTreeMap<String, SnapshotState>,
    pub hosts: BTreeMap<String, HostState>,
    /// Volume ID → attached loop device; instance store disks and root volumes are here too.
    pub loops: BTreeMap<String, DeviceState>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct VolumeState {
    /// `creating`, `available`, `in-use`, `error`
    pub state: String,
    pub region: String,
    pub image: PathBuf,
    /// In GiB.
    pub size: u64,
    pub device: Option<DeviceState>,
    pub attachment: Option<AttachmentState>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct AttachmentState {
    pub instance: String,
    /// The name EC2 was told.
    pub device: String,
    /// `attaching`, `attached`, `detaching`, `busy`
    pub state: String,
    pub time: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct DeviceState {
    pub node: PathBuf,
    /// `major:minor`
    pub dev: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct SnapshotState {
    /// `pending`, `completed`, `error`
    pub state: String,
    /// In GiB.
    pub size: u64,
    pub volume: String,
    pub region: String,
    /// Made by CopySnapshot.
    pub copy: bool,
    pub image: PathBuf,
}

#[derive(Debug, Clone, Deserialize)]
pub struct HostState {
    pub zone: String,
    /// Volume ID → the kernel's name.
    pub disks: BTreeMap<String, String>,
}

/// The calls of AWS that the bridge has answered.
#[derive(Debug, Clone, Deserialize)]
pub struct Calls {
    pub calls: Vec<Call>,
    /// Action → how often.
    pub counts: BTreeMap<String, usize>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Call {
    pub service: String,
    pub action: String,
    pub region: String,
    pub access_key: String,
    pub params: BTreeMap<String, Value>,
    pub status: u16,
    /// The error code; empty if it succeeded.
    pub code: String,
    /// The effects of the fault that hit it.
    pub fault: Vec<String>,
}

/// A bridge that one test has for itself; afterwards others may have it.
pub struct Lease(Option<Bridge>);

impl Deref for Lease {
    type Target = Bridge;

    fn deref(&self) -> &Bridge {
        self.0.as_ref().expect("there until it is dropped")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let bridge = self.0.take().expect("dropped once");
        // A test that failed may have left it in any state.
        if !std::thread::panicking() {
            IDLE.lock().unwrap().push(bridge);
        }
    }
}

impl Bridge {
    /// A bridge as after its start.
    pub fn lease() -> Lease {
        let idle = IDLE.lock().unwrap().pop();
        let bridge = match idle {
            Some(bridge) => {
                bridge.reset();
                bridge
            }
            None => Bridge::start(),
        };
        Lease(Some(bridge))
    }

    /// One that nobody else gets.
    pub fn start() -> Bridge {
        let mut process =
            Command::new(python()).arg(source().join("bridge.py")).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Ready =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("the bridge did not start: {error}: {line:?}"));
        Bridge { process, api: ready.api, directory: ready.state }
    }

    /// One call of the control API; must succeed.
    pub fn control<T: DeserializeOwned>(&self, method: &str, path: &str, body: &Value) -> T {
        let (status, answer) = self.exchange(method, path, &body.to_string());
        assert_eq!(status, 200, "{method} {path} {body}: {answer}");
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{method} {path}: {error}: {answer}"))
    }

    fn post(&self, path: &str, body: Value) {
        let _: Value = self.control("POST", path, &body);
    }

    /// The status and body that one HTTP request is answered with.
    fn exchange(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let address = self.api.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(CONTROL_TIMEOUT)).unwrap();
        let length = body.len();
        let head = format!(
            "{method} /_bridge/{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP: {answer:?}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or_else(|| panic!("no HTTP: {head:?}")), body.to_owned())
    }

    /// As after the start: nothing is there, no faults, no calls, default timing.
    pub fn reset(&self) {
        self.post("reset", json!({}));
    }

    /// Launches an instance with Nitro's disks in this zone.
    pub fn host(&self, zone: &str) -> Host {
        self.launch(json!({ "zone": zone }))
    }

    /// Launches an instance: `zone`, `layout` (`nitro`, `xen`), `instance_store` (how many disks), `instance_type`.
    pub fn launch(&self, spec: Value) -> Host {
        self.control("POST", "hosts", &spec)
    }

    /// How an instance's metadata service behaves: `mode`, `role`, `credentials`.
    pub fn imds(&self, host: &Host, mut spec: Value) {
        spec["instance_id"] = json!(host.instance_id);
        self.post("imds", spec);
    }

    /// The next call of this action has this effect.
    pub fn fault(&self, action: &str, effect: Value) {
        self.rule(json!({ "action": action, "effect": effect }));
    }

    /// A rule in full: `action`, `nth`, `times` (0: always), `match`, `access_key`, `region`, `effect`.
    pub fn rule(&self, rule: Value) {
        self.post("faults", rule);
    }

    /// Takes all rules away.
    pub fn clear_faults(&self) {
        let _: Value = self.control("DELETE", "faults", &json!({}));
    }

    /// How long states are held: state → `{"polls": n}`, `{"seconds": s}` or `"never"`.
    pub fn timing(&self, specs: Value) {
        self.post("timing", specs);
    }

    /// Holds all states so many looks.
    pub fn polls(&self, polls: u32) {
        self.timing(STATES.iter().map(|state| ((*state).to_owned(), json!({ "polls": polls }))).collect());
    }

    /// Lets the simulated clock go on.
    pub fn advance(&self, seconds: f64) {
        self.post("clock", json!({ "advance": seconds }));
    }

    /// `snapshot_interval`, `concurrent_snapshots`, `pending_snapshots`, `page_size`.
    pub fn limits(&self, limits: Value) {
        self.post("limits", limits);
    }

    /// Everything that takes time is done.
    pub fn settle(&self) {
        self.post("settle", json!({}));
    }

    /// What is wrong with a volume's disk from now on.
    pub fn disk(&self, volume: &str, mut spec: Value) {
        spec["volume"] = json!(volume);
        self.post("devices", spec);
    }

    /// A volume or snapshot is in this state from now on.
    pub fn set_state(&self, id: &str, state: &str) {
        self.post("states", json!({ id: state }));
    }

    /// Writes to a volume past every filesystem.
    pub fn write(&self, volume: &str, offset: u64, bytes: &[u8]) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.post("write", json!({ "volume": volume, "offset": offset, "hex": hex }));
    }

    /// A call of EC2 by somebody else: without faults, not logged, all that takes time done. Must succeed; returns the answer's XML.
    pub fn ec2(&self, region: &str, action: &str, params: &[(&str, &str)]) -> String {
        self.call("ec2", region, action, params)
    }

    /// The same of any service that has XML.
    pub fn call(&self, service: &str, region: &str, action: &str, params: &[(&str, &str)]) -> String {
        let params: BTreeMap<_, _> = params.iter().copied().collect();
        let call = json!({ "service": service, "action": action, "region": region, "params": params });
        let answer: Value = self.control("POST", "call", &call);
        assert_eq!(answer["status"], 200, "{action} {params:?}: {}", answer["body"]);
        answer["body"].as_str().unwrap().to_owned()
    }

    /// The calls so far.
    pub fn calls(&self) -> Calls {
        self.control("GET", "calls", &json!({}))
    }

    /// Begins to count calls anew.
    pub fn clear_calls(&self) {
        let _: Value = self.control("DELETE", "calls", &json!({}));
    }

    /// What is there now.
    pub fn state(&self) -> State {
        self.control("GET", "state", &json!({}))
    }

    /// The environment of a program that runs on this host, with credentials that nobody checks.
    pub fn environment(&self, host: &Host) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", self.api.clone()),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", host.imds.clone()),
            ("AWS_ACCESS_KEY_ID", "AKIABRIDGE".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "not-checked".to_owned()),
        ]
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // The end of its standard input is its sign to clean up.
        drop(self.process.stdin.take());
        let deadline = Instant::now() + STOP_TIMEOUT;
        while let Ok(None) = self.process.try_wait() {
            if Instant::now() > deadline {
                let _ = self.process.kill();
                let _ = self.process.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Where the bridge's program is.
pub fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bridge")
}

/// The Python that has the bridge's requirements.
pub fn python() -> PathBuf {
    tools::python_environment(&source().join("requirements.txt")).join("bin/python")
}
