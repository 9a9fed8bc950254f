#!/bin/bash
# What a good engineer would write instead, with the AWS command line: find or make the volume, attach, mount, update the
# checkout, unmount, snapshot, wait, detach. AWS_* variables and IMDS say where; DEV_ROOT is what udev makes of /dev.
# Usage: ec2_bake.sh URL COMMIT MOUNT_POINT
set -euo pipefail
url=$1 commit=$2 mount_point=$3
name=script

imds() {
    curl -sf -H "X-aws-ec2-metadata-token: $token" "$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest/meta-data/$1"
}
token=$(curl -sf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 300' "$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest/api/token")
instance=$(imds instance-id)
zone=$(imds placement/availability-zone)
export AWS_DEFAULT_REGION=${zone%[a-z]} AWS_DEFAULT_OUTPUT=text AWS_PAGER=

snapshot=$(aws ec2 describe-snapshots --owner-ids self --query 'Snapshots[0].SnapshotId' \
    --filters "Name=tag:commit,Values=$commit" "Name=tag:Name,Values=$name" Name=status,Values=completed)
if [ "$snapshot" != None ]; then
    echo "$snapshot"
    exit
fi

read -r volume state < <(aws ec2 describe-volumes --query 'Volumes[0].[VolumeId,State]' \
    --filters "Name=tag:Name,Values=$name" "Name=availability-zone,Values=$zone")
blank=
if [ "$volume" = None ]; then
    volume=$(aws ec2 create-volume --availability-zone "$zone" --size 8 --volume-type gp3 --query VolumeId \
        --tag-specifications "ResourceType=volume,Tags=[{Key=Name,Value=$name}]")
    aws ec2 wait volume-available --volume-ids "$volume"
    blank=yes state=available
fi

attached=
clean_up() {
    umount "$mount_point" 2>/dev/null || true
    if [ -n "$attached" ]; then
        aws ec2 detach-volume --volume-id "$volume" >/dev/null
    fi
}
trap clean_up EXIT
if [ "$state" = available ]; then
    aws ec2 attach-volume --volume-id "$volume" --instance-id "$instance" --device /dev/sdk >/dev/null
    attached=yes
    aws ec2 wait volume-in-use --volume-ids "$volume"
fi
device=$DEV_ROOT/disk/by-id/nvme-Amazon_Elastic_Block_Store_${volume/-/}
until [ -e "$device" ]; do
    sleep 0.1
done

if [ -n "$blank" ]; then
    mkfs.ext4 -q -L chef "$device"
fi
mkdir -p "$mount_point"
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

snapshot=$(aws ec2 create-snapshot --volume-id "$volume" --query SnapshotId \
    --tag-specifications "ResourceType=snapshot,Tags=[{Key=Name,Value=$name},{Key=commit,Value=$commit}]")
aws ec2 wait snapshot-completed --snapshot-ids "$snapshot"
echo "$snapshot"
