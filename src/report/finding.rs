//! What a check found in the repository's files.

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// It does not work.
    Error,
    /// It works, but hardly as it was meant.
    Warning,
}

impl Severity {
    /// The stable name in machine-readable output.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// One thing that was found. They are sorted by what matters, then by place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// From the root of the repository.
    pub file: String,
    /// From 1, where there is one.
    pub line: Option<u32>,
    /// One sentence without a final stop.
    pub message: String,
}

impl Finding {
    /// `roles/web.json:3`
    pub fn place(&self) -> String {
        match self.line {
            Some(line) => format!("{}:{line}", self.file),
            None => self.file.clone(),
        }
    }
}
