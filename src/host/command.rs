//! The one place that starts other programs.
