#!/bin/bash
# What a good engineer would write instead: keep one volume image, attach, mount, update the checkout, unmount, snapshot.
# Usage: bake.sh STORE URL COMMIT MOUNT_POINT
set -euo pipefail
store=$1 url=$2 commit=$3 mount_point=$4
image=$store/volume.img
mkdir -p "$store/snapshots" "$mount_point"
if [ ! -e "$image" ]; then
    truncate -s 8G "$image"
    mkfs.ext4 -q -F -L chef "$image"
fi
device=$(losetup --find --show "$image")
trap 'umount "$mount_point" 2>/dev/null || true; losetup -d "$device"' EXIT
mount "$device" "$mount_point"
if [ ! -d "$mount_point/.git" ]; then
    git init -q "$mount_point"
    git -C "$mount_point" remote add origin "$url"
fi
# Kept under a name: without one git offers nothing to the server, and fetches everything again.
git -C "$mount_point" fetch -q --depth 1 origin "+$commit:refs/remotes/origin/main"
git -C "$mount_point" checkout -q --force --detach "$commit"
git -C "$mount_point" clean -qfdx
umount "$mount_point"
snapshot=$store/snapshots/$commit.img
cp --reflink=auto --sparse=always "$image" "$snapshot.new"
mv "$snapshot.new" "$snapshot"
echo "$snapshot"
