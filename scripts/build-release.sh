#!/bin/sh
# Builds the program as it is shipped, optimised and static, and prints its path. Anything that ships or shows it builds it so.
set -eu
cd "$(dirname "$0")/.."

# Static, so that it runs in any container and on any distribution. The target is named because cargo then spares what rustc
# loads while it compiles, which cannot be static.
target=$(rustc -vV | sed -n 's/^host: //p')
export RUSTFLAGS="${RUSTFLAGS:+$RUSTFLAGS }-C target-feature=+crt-static"
cargo build --locked --release --target "$target" >&2

directory=$(cargo metadata --locked --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
echo "$directory/$target/release/ebs-bake"
