#!/bin/sh
# Bakes a repository on the embedded block store twice (the second time it is found, not baked), then mounts the snapshot and
# shows what is in it. Usage: demo.sh [URL or path of a git repository]. Leaves nothing behind but the compiled program.
set -eu
cd "$(dirname "$0")/.."

repository=${1:-.}
scripts/install-packages.sh run build
command -v cargo >/dev/null || { echo "Rust is missing: see https://rustup.rs" >&2; exit 1; }
program=$(scripts/build-release.sh)

as_root=
if [ "$(id -u)" -ne 0 ]; then
    as_root=sudo
fi
directory=$(mktemp -d)
cleanup() {
    $as_root "$program" restore --detach --mount-point "$directory/mnt" --local-dir "$directory/store" >/dev/null 2>&1 || true
    $as_root rm -rf "$directory/store"
    $as_root rmdir "$directory/mnt" 2>/dev/null || true
    rmdir "$directory"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

step() {
    if [ -t 2 ]; then printf '\n\033[1m%s\033[0m\n' "$*" >&2; else printf '\n%s\n' "$*" >&2; fi
}
# The CI variables of a surrounding job must not decide what the demo bakes.
bake() {
    $as_root env -i PATH="$PATH" HOME="$HOME" "$program" bake --store local --local-dir "$directory/store" \
        --repository "$repository"
}

step "1. Bake $repository"
snapshot=$(bake)
step "2. Bake it again: the snapshot is there already"
again=$(bake)
[ "$snapshot" = "$again" ]
step "3. The snapshots of the store"
$as_root "$program" list --local-dir "$directory/store" >&2
step "4. What is in $snapshot"
$as_root "$program" restore --snapshot-id "$snapshot" --mount-point "$directory/mnt" --local-dir "$directory/store" >&2
ls -A "$directory/mnt" >&2
step "Its manifest (.ebs-bake.json)"
cat "$directory/mnt/.ebs-bake.json" >&2
step "Done"
echo "$snapshot"
