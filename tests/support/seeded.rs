//! Property tests and draws whose cases are the same in every run.

#![allow(dead_code, reason = "each test program uses its own part")]

use proptest::prelude::{Rng, Strategy};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

/// Tries the cases of a strategy; more of them with `PROPTEST_CASES`.
#[track_caller]
pub fn always<T: std::fmt::Debug>(strategy: impl Strategy<Value = T>, test: impl Fn(T) -> Result<(), TestCaseError>) {
    let config = Config { failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)).run(&strategy, test).unwrap();
}

/// Random numbers that are the same for a seed.
pub fn random(seed: u64) -> TestRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}

/// A number below the limit.
pub fn below(rng: &mut TestRng, limit: u64) -> u64 {
    rng.next_u64() % limit
}
