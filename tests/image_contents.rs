//! The container image: what is in it, and a bake in a container.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]

mod support {
    pub mod engine;
    pub mod store;
    pub mod tools;
}

use support::engine::Engine;
use support::store::needs_root;

#[test]
fn root_the_image_runs_the_program() {
    if !needs_root() {
        return;
    }
    let engine = Engine::shared();
    let output = engine.docker(&["run", "--rm", engine.image(), "--version"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), concat!("ebs-bake ", env!("CARGO_PKG_VERSION"), "\n"), "{output:?}");
}
