//! Mounting, and unmounting for real.
