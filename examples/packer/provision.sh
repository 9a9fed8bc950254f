#!/bin/sh
# Makes a Debian or Ubuntu machine one whose image boots from a volume of ebs-bake. Runs as root; running it again changes nothing.
set -eu
: "${CINC_VERSION:?the version of Cinc Client}"
export DEBIAN_FRONTEND=noninteractive

# A fresh instance is not itself before cloud-init is done.
! command -v cloud-init >/dev/null || cloud-init status --wait >/dev/null || [ $? -eq 2 ]

# The udev rules that give an NVMe device the name of its mapping: /dev/sdk.
apt-get update -q
apt-get install -q -y --no-install-recommends amazon-ec2-utils ca-certificates curl

# Cinc's installer verifies the checksum of the package that it downloads.
if ! command -v cinc-client >/dev/null; then
    curl --fail --silent --show-error --location --proto =https --output /tmp/install-cinc.sh https://omnitruck.cinc.sh/install.sh
    bash /tmp/install-cinc.sh -v "$CINC_VERSION"
    rm /tmp/install-cinc.sh
fi

# What `ebs-bake user-data --fstab` prints. An instance without the volume boots all the same.
line='LABEL=chef /chef auto ro,noatime,nosuid,nodev,nofail,x-systemd.device-timeout=30s 0 0'
mkdir -p /chef
grep -qxF "$line" /etc/fstab || echo "$line" >>/etc/fstab

# Instances of the image are new ones.
if command -v cloud-init >/dev/null; then
    cloud-init clean --logs --machine-id
fi
apt-get clean
