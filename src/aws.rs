//! AWS: clients made when they are needed first, and calls whose failures are values.

pub mod api;
pub mod failure;
