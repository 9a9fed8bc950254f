#!/bin/sh
# Cargo's RUSTC_WORKSPACE_WRAPPER: compiles this workspace's crates for libFuzzer, as cargo-fuzz would, with the stable compiler. What they
# depend on is taken as `cargo test` compiled it: the SDK of EC2 is most of an hour's work to instrument, and is not what is tried here.
rustc=$1
shift
exec "$rustc" "$@" --cfg fuzzing -Cdebug-assertions=on -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares
