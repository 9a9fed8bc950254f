#!/bin/sh
# Makes the root filesystem of the nodes that tests boot: a minimal Debian with cloud-init and what Debian has of Chef, which is its
# configuration. Usage: root.sh DIRECTORY
set -eu
cd "$1"
# What debootstrap mounts goes with its namespace, also when it fails. It does not see who provides what python3-cryptography needs.
unshare --mount debootstrap --variant=minbase --include=busybox,cloud-init,python3-cffi-backend,ruby,ruby-chef-config \
    trixie root http://deb.debian.org/debian >log 2>&1 || { tail -n 40 log >&2 && exit 1; }
rm -rf log root/var/cache/apt/archives/*.deb root/var/lib/apt/lists/* root/usr/share/doc root/usr/share/man root/usr/share/locale
