//! `user-data`: the script that boots a node from a baked volume (`docs/boot.md`), as cloud-init and EC2 take it.

use std::time::Duration;

use crate::error::{Error, Kind, Result};

mod format;
mod shell;

/// The script; between the marks it has settings that Rust code replaces.
const SCRIPT: &str = include_str!("user_data/boot.sh");
const BEGIN: &str = "# settings: begin\n";
const END: &str = "# settings: end\n";

/// What EC2 takes, in bytes before they are encoded as Base64 (EC2 User Guide, "Run commands when you launch an EC2 instance
/// with user data input").
pub const LIMIT: usize = 16 * 1024;

/// The options of a node's mount: the same as the script has.
const MOUNT_OPTIONS: &str = "ro,noatime,nosuid,nodev";

/// How the script is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// As it is
    #[default]
    Script,
    /// As the part of a MIME archive, to which others can be added
    Mime,
    /// Base64, as EC2's API takes it
    Base64,
    /// Compressed: bytes, no text
    Gzip,
}

/// `user-data`, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserData {
    /// The line of an image's `/etc/fstab`.
    Fstab(Fstab),
    /// The script, in this format.
    Script(Box<Boot>, Format),
}

/// How an image mounts the volume by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fstab {
    /// The label of the filesystem.
    pub volume_name: String,
    /// An absolute path of plain characters.
    pub mount_point: String,
    /// How long systemd waits for the device.
    pub timeout: Duration,
}

/// How a node boots. Names and paths have plain characters only: they are written into Chef's configuration too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// The role that the node has.
    pub role: String,
    /// Chef's environment.
    pub environment: Option<String>,
    /// The volume's name: the label of its filesystem.
    pub volume_name: String,
    /// The device name in the instance's block device mapping.
    pub device: String,
    /// An absolute path.
    pub mount_point: String,
    /// How long to wait for the device.
    pub device_timeout: Duration,
    /// The directory of the chef-repo in the repository, if it is not the repository.
    pub chef_path: Option<String>,
    /// Where cookbooks are, below that directory; those that exist are used.
    pub cookbook_paths: Vec<String>,
    /// The name or path of Chef's program.
    pub chef: Option<String>,
    /// The acceptance of Chef's licence.
    pub chef_license: Option<String>,
    /// How often Chef is run before that counts as failed.
    pub attempts: u32,
    /// The pause between two runs.
    pub retry_pause: Duration,
    /// The only commit to boot from.
    pub expect_commit: Option<String>,
    /// The canonical URL of the only repository to boot from.
    pub expect_repository: Option<String>,
    /// A shell command for the end.
    pub on_success: Option<String>,
    /// A shell command for the other end.
    pub on_failure: Option<String>,
}

/// The bytes for stdout.
///
/// # Errors
/// `Usage` for user data that is larger than EC2 takes.
pub fn render(user_data: &UserData) -> Result<Vec<u8>> {
    let (boot, format) = match user_data {
        UserData::Fstab(fstab) => return Ok(fstab.line().into_bytes()),
        UserData::Script(boot, format) => (boot, *format),
    };
    let script = boot.script();
    let data = match format {
        Format::Script | Format::Base64 => script.into_bytes(),
        Format::Mime => format::mime(&script).into_bytes(),
        Format::Gzip => format::gzip(script.as_bytes()),
    };
    if data.len() > LIMIT {
        let message = format!("the user data has {} bytes, and EC2 takes {LIMIT}", data.len());
        let hint = match format {
            Format::Gzip => "shorten --on-success and --on-failure: they can call a script of the image",
            _ => "--format gzip makes it smaller, and cloud-init takes it",
        };
        return Err(Error::new(Kind::Usage, message).hint(hint));
    }
    Ok(if format == Format::Base64 { format::base64(&data).into_bytes() } else { data })
}

impl Fstab {
    fn line(&self) -> String {
        let Fstab { volume_name, mount_point, timeout } = self;
        let seconds = seconds(*timeout);
        let options = format!("{MOUNT_OPTIONS},nofail,x-systemd.device-timeout={seconds}s");
        format!("LABEL={volume_name} {mount_point} auto {options} 0 0\n")
    }
}

impl Boot {
    /// The script with these settings in it.
    pub fn script(&self) -> String {
        let (before, rest) = SCRIPT.split_once(BEGIN).expect("the script has the first mark");
        let (_, after) = rest.split_once(END).expect("the script has the second mark");
        let settings = self.settings().map(|(name, value)| format!("{name}={}\n", shell::quoted(&value)));
        format!("{before}{BEGIN}{}{END}{after}", settings.concat())
    }

    /// The script's variables, in its order.
    fn settings(&self) -> [(&'static str, String); 16] {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        // As it stands in the manifest.
        let quoted = serde_json::to_string(&text(&self.expect_repository)).expect("a string has a JSON form");
        let repository = &quoted[1..quoted.len() - 1];
        [
            ("role", self.role.clone()),
            ("environment", text(&self.environment)),
            ("volume_name", self.volume_name.clone()),
            ("device", self.device.clone()),
            ("mount_point", self.mount_point.clone()),
            ("device_timeout", seconds(self.device_timeout).to_string()),
            ("chef_path", text(&self.chef_path)),
            ("cookbook_paths", self.cookbook_paths.join(" ")),
            ("chef", text(&self.chef)),
            ("chef_license", text(&self.chef_license)),
            ("attempts", self.attempts.to_string()),
            ("retry_pause", seconds(self.retry_pause).to_string()),
            ("expect_commit", text(&self.expect_commit)),
            ("expect_repository", repository.to_owned()),
            ("on_success", text(&self.on_success)),
            ("on_failure", text(&self.on_failure)),
        ]
    }
}

/// Whole seconds, not less than was said.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
