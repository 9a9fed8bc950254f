#!/bin/sh
# Starts a node in the namespaces of this process: its root is the first directory with what the node writes, in the second, over it.
# Usage: start.sh ROOT NODE COMMAND...
set -eu
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/files,workdir=$2/work" "$2/root"
cd "$2/root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs run
# Only what a test puts into it: this machine has other disks.
mount -t tmpfs -o mode=755 tmpfs dev
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 666 dev/urandom c 1 9
hostname node
shift 2
exec chroot . "$@"
