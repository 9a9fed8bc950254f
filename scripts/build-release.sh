#!/bin/sh
# Builds the program as it is shipped, optimised and static, and prints its path. Anything that ships or shows it builds it so.
set -eu
cd "$(dirname "$0")/.."

# Static, so that it runs in any container and on any distribution. The target is named because cargo then spares what rustc
# loads while it compiles, which cannot be static.
target=$(rustc -vV | sed -n 's/^host: //p')
export RUSTFLAGS="${RUSTFLAGS:+$RUSTFLAGS }-C target-feature=+crt-static"

# Small: what is left for the last step waits for AWS, for most of its code are calls. Smaller by 2 MB where the tools can: relative
# relocations packed, which a static program applies itself with glibc 2.36 or later, and equal functions kept once, by lld, with
# which rustc links on x86_64.
small="-C opt-level=z -C strip=symbols"
oldest=$(printf '%s\n' 'glibc 2.36' "$(getconf GNU_LIBC_VERSION)" | sort --version-sort | head -n 1)
[ "$oldest" != 'glibc 2.36' ] || small="$small -C link-arg=-Wl,-z,pack-relative-relocs"
case $target in
    x86_64-*) small="$small -C link-arg=-Wl,--icf=safe" ;;
esac
# shellcheck disable=SC2086 # a list of words; they concern the last step alone, so that no dependency is compiled anew
cargo rustc --locked --release --target "$target" --bin ebs-bake -- $small >&2

directory=$(cargo metadata --locked --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
echo "$directory/$target/release/ebs-bake"
