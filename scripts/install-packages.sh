#!/bin/sh
# Installs the Debian or Ubuntu packages that a job needs and that are not there yet.
# Usage: install-packages.sh (run|build|test)...
set -eu

packages=
for job in "$@"; do
    case $job in
        run) packages="$packages e2fsprogs ca-certificates" ;;
        build) packages="$packages gcc libc6-dev cmake make perl git" ;;
        # python3 counts blocks; the others are what the tests compare with, or talk to.
        test)
            packages="$packages e2fsprogs xfsprogs btrfs-progs openssh-server openssl python3 python3-venv git rsync"
            # libFuzzer is in C++.
            packages="$packages g++"
            # Docker's engine, unless there is one of Docker's own packages, and what a base image is made with.
            packages="$packages debootstrap debian-archive-keyring"
            [ -x /usr/bin/dockerd ] || packages="$packages docker.io"
            command -v npm >/dev/null || packages="$packages npm"
            # The examples for CI systems: Groovy runs the Jenkinsfile, jq the one for CodeBuild.
            packages="$packages default-jre-headless groovy jq"
            # A virtual machine, whose kernel a test unpacks: it is not installed.
            packages="$packages qemu-system-x86 busybox-static xz-utils zstd"
            ;;
        *) echo "install-packages.sh: no job is called $job" >&2; exit 2 ;;
    esac
done

missing=
for package in $packages; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" -ne 0 ]; then
    as_root=sudo
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "installing:$missing" >&2
install() {
    $as_root apt-get update || return
    case "$missing " in
        # Newer releases have the client and its builder in packages of their own.
        *" docker.io "*) missing="$missing $(apt-cache pkgnames docker- | grep -xE 'docker-(cli|buildx)' | tr '\n' ' ')" ;;
    esac
    # shellcheck disable=SC2086 # a list of words
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing
}
if ! install >"$log" 2>&1; then
    cat "$log" >&2
    exit 1
fi
