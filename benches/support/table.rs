//! Settings, and what is printed.

use std::path::Path;
use std::process::Command;

use jiff::Timestamp;

/// One comparison.
pub struct Row {
    what: String,
    theirs: String,
    ours: String,
    ratio: Option<f64>,
    /// What is required, and whether it was reached.
    required: String,
    reached: bool,
}

impl Row {
    /// Milliseconds; at most `limit` × theirs is required.
    pub fn times(what: String, theirs: f64, ours: f64, limit: f64) -> Row {
        Self::compared(what, format!("{theirs:.0} ms"), format!("{ours:.1} ms"), ours / theirs, limit)
    }

    /// Numbers of blocks.
    pub fn blocks(what: impl Into<String>, theirs: f64, ours: f64, limit: f64) -> Row {
        Self::compared(what.into(), format!("{theirs:.1}"), format!("{ours:.1}"), ours / theirs, limit)
    }

    fn compared(what: String, theirs: String, ours: String, ratio: f64, limit: f64) -> Row {
        let (ratio, required) = (Some(ratio), format!("≤ {limit:.2} ×"));
        Row { what, theirs, ours, ratio, required, reached: ratio <= Some(limit) }
    }

    /// Memory in MiB, which has a limit of its own.
    pub fn memory(what: impl Into<String>, theirs: f64, ours: f64, limit: f64) -> Row {
        let (theirs, required) = (format!("{theirs:.0} MiB"), format!("≤ {limit:.0} MiB"));
        Row { what: what.into(), theirs, ours: format!("{ours:.0} MiB"), ratio: None, required, reached: ours <= limit }
    }

    /// A figure that is told but not required.
    #[must_use]
    pub fn for_information(mut self) -> Row {
        self.required = String::new();
        self
    }
}

/// A Markdown table.
pub fn render(rows: &[Row]) -> String {
    let mut text = "| | git or script | ebs-bake | ratio | required | reached |\n|---|--:|--:|--:|--:|---|\n".to_owned();
    for Row { what, theirs, ours, ratio, required, reached } in rows {
        let ratio = ratio.map_or(String::new(), |ratio| format!("**{ratio:.2}**"));
        let reached = match (required.as_str(), reached) {
            ("", _) => "",
            (_, true) => "yes",
            (_, false) => "**no**",
        };
        text += &format!("| {what} | {theirs} | {ours} | {ratio} | {required} | {reached} |\n");
    }
    text
}

/// An environment variable, or its default.
pub fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// What it was measured on.
pub fn machine(scratch: &Path) -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("\t: unknown");
    let model = model.trim_start_matches(['\t', ' ', ':']);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory: u64 = memory.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or_default();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let filesystem = first_line(Command::new("findmnt").args(["-no", "FSTYPE", "-T"]).arg(scratch));
    let git = first_line(Command::new("git").arg("--version"));
    let mkfs = first_line(Command::new("mkfs.ext4").arg("-V"));
    format!(
        "{date}; {cores} cores ({model}), {memory:.1} GiB of memory; Linux {kernel}; {git}; {mkfs}; ebs-bake {version}; \
         everything in sparse files on {filesystem}.\n",
        date = &Timestamp::now().to_string()[..10],
        memory = memory as f64 / f64::from(1 << 20),
        kernel = kernel.trim(),
        version = env!("CARGO_PKG_VERSION"),
    )
}

fn first_line(command: &mut Command) -> String {
    let Ok(output) = command.output() else { return "unknown".to_owned() };
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&text).lines().next().unwrap_or("unknown").trim().to_owned()
}
