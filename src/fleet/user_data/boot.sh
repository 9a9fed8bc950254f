#!/bin/sh
# Boots a node from a volume that ebs-bake baked: waits for it, mounts it read-only and runs Chef from it with a role.
# `ebs-bake user-data` fills in the settings. It is an instance's user data at the first boot and leaves a copy of itself
# for the later ones; running it again does no harm. What came of it is in status.json and the log, whose paths follow.

# shellcheck disable=SC2016 # commands in the settings are text
# settings: begin
role='web'
environment=''
volume_name='chef'
device='/dev/sdk'
mount_point='/chef'
device_timeout='120'
chef_path=''
cookbook_paths='vendor/cookbooks berks-cookbooks cookbooks site-cookbooks'
chef=''
chef_license=''
attempts='3'
retry_pause='30'
expect_commit=''
expect_repository=''
on_success=''
on_failure=''
# settings: end

set -u
umask 022
PATH=${PATH:+$PATH:}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/chef/bin:/opt/cinc/bin
# cloud-init sets none, and Ruby wants one.
[ -n "${HOME-}" ] || HOME=~root
export PATH HOME

state=/var/lib/ebs-bake-boot
log=/var/log/ebs-bake-boot.log
lock=/run/ebs-bake-boot.lock
chef_data=/var/chef
cloud=/var/lib/cloud

message='' source='' commit='' attempt=0 chef_exit='' finished='' mounted='' made_lock=''

now() { date -u +%Y-%m-%dT%H:%M:%SZ; }

# To the console and cloud-init's log, to ours, and to the system's.
say() {
    printf 'ebs-bake: %s\n' "$1"
    printf '%s %s\n' "$(now)" "$1" >>"$log"
    logger -t ebs-bake -- "$1" 2>/dev/null || :
}

# Replaces a file by what stdin has, in one step; for root's eyes only.
put() { (umask 077 && cat >"$1.new") && mv -f "$1.new" "$1"; }

# A JSON string; null for nothing.
json() {
    [ -n "$1" ] || { printf null && return; }
    printf '"%s"' "$(printf '%s' "$1" | tr '\001-\037' ' ' | sed 's/[\\"]/\\&/g')"
}

status() {
    put "$state/status.json" <<END
{
  "version": 1,
  "state": "$1",
  "message": $(json "$message"),
  "role": $(json "$role"),
  "environment": $(json "$environment"),
  "device": $(json "$source"),
  "commit": $(json "$commit"),
  "attempts": $attempt,
  "chef-exit-code": ${chef_exit:-null},
  "started": $(json "$started"),
  "finished": $(json "$finished")
}
END
}

# Ends with an exit code and the reason.
fail() {
    message=$2
    exit "$1"
}

# However it ends.
ended() {
    code=$?
    trap - EXIT HUP INT TERM
    finished=$(now)
    if [ "$code" -eq 0 ]; then
        state_now=succeeded hook=$on_success
    else
        state_now=failed hook=$on_failure
        : "${message:=ended unexpectedly with $code}"
    fi
    status "$state_now"
    say "$state_now: $message"
    if [ -n "$hook" ]; then
        BOOT_STATE=$state_now BOOT_MESSAGE=$message BOOT_ROLE=$role BOOT_ENVIRONMENT=$environment \
            BOOT_COMMIT=$commit sh -c "$hook" </dev/null >>"$log" 2>&1 9>&- || say "the command after it ended with $?"
    fi
    [ -z "$made_lock" ] || rm -rf "$lock.d"
    exit "$code"
}

# Only one at a time. /run is empty after a boot, so that a lock without its owner does not stay.
take_lock() {
    if command -v flock >/dev/null 2>&1; then
        exec 9>"$lock"
        flock -n 9 && return
    else
        owner=$(cat "$lock.d/owner" 2>/dev/null) && ! kill -0 "$owner" 2>/dev/null && rm -rf "$lock.d"
        mkdir "$lock.d" 2>/dev/null && made_lock=1 && echo $$ >"$lock.d/owner" && return
    fi
    echo 'ebs-bake: another run is at work' >&2
    exit 4
}

# cloud-init runs user data at an instance's first boot, and what is in this directory at every boot.
keep_for_later_boots() {
    case $0 in
        "$cloud"/instance/scripts/* | "$cloud"/instances/*/scripts/*) ;;
        *) return ;;
    esac
    cat "$cloud/data/instance-id" 2>/dev/null | put "$state/instance"
    mkdir -p "$cloud/scripts/per-boot"
    copy=$cloud/scripts/per-boot/ebs-bake
    { put "$copy" <"$0" && chmod 700 "$copy"; } || say "later boots will not run this: it cannot be copied to $copy"
}

# Sets source to what is mounted at the mount point.
is_mounted() {
    source=''
    while read -r what where _; do
        [ "$where" != "$mount_point" ] || source=$what
    done </proc/self/mounts
    [ -n "$source" ]
}

# Sets about to what blkid tells of a device, and label to its label. No cache: what was there before is of no interest.
examine() {
    about=$(BLKID_FILE=/dev/null blkid "$1" 2>/dev/null)
    label=$(printf '%s\n' "$about" | sed -n 's/.* LABEL="\([^"]*\)".*/\1/p')
}

# Sets found to the one of these devices that carries the label. 1: there is none; 2: there are several.
pick() {
    carriers=''
    for path; do
        path=$(readlink -f "$path") && [ -b "$path" ] || continue
        case " $carriers " in *" $path "*) continue ;; esac
        examine "$path"
        [ "$label" != "$volume_name" ] || carriers="$carriers${carriers:+ }$path"
    done
    case $carriers in
        '') return 1 ;;
        *' '*)
            why="several devices carry the label $volume_name ($carriers), and nothing tells which of them is $device"
            return 2
            ;;
        *) found=$carriers ;;
    esac
}

# Sets found to the volume's device, or why to the reason that there is none (yet).
look() {
    why="there is neither $device nor a filesystem with the label $volume_name"
    letters=${device#/dev/sd}
    letters=${letters#/dev/xvd}
    # What the instance's mapping names is the volume or nothing is: on Xen the kernel has that name, on Nitro a link of Amazon's
    # udev rules.
    for found in "/dev/sd$letters" "/dev/xvd$letters"; do
        [ -b "$found" ] || continue
        examine "$found"
        case $about in
            *' UUID="'*) [ -n "$label" ] && [ "$label" != "$volume_name" ] || return 0 ;;
            *) label='' ;;
        esac
        why="$found has no filesystem: was its volume made from a snapshot?"
        [ -z "$label" ] || why="$found carries the label $label, not $volume_name"
        return 1
    done
    # Without them, an EBS volume with the label; or anything with the label.
    pick /dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol* && return
    [ $? -eq 1 ] || return 1
    # shellcheck disable=SC2046 # a list of devices
    pick "/dev/disk/by-label/$volume_name" $(BLKID_FILE=/dev/null blkid 2>/dev/null | cut -d: -f1)
}

wait_for_volume() {
    ! command -v udevadm >/dev/null 2>&1 || udevadm settle --timeout=30 2>/dev/null
    # Not the clock, which may be set while we wait.
    read -r up _ </proc/uptime
    deadline=$((${up%.*} + device_timeout))
    said=''
    until is_mounted || look; do
        [ "$why" = "$said" ] || say "waiting for the volume: $why"
        said=$why
        read -r up _ </proc/uptime
        [ "${up%.*}" -lt "$deadline" ] || fail 6 "no volume after $device_timeout s: $why"
        sleep 1
    done
}

mount_volume() {
    [ -d "$mount_point" ] || mkdir -p "$mount_point" || fail 6 "cannot make $mount_point"
    mount_point=$(readlink -f "$mount_point")
    wait_for_volume
    if [ -n "$source" ]; then
        say "$source is mounted at $mount_point already"
        return
    fi
    options=ro,noatime,nosuid,nodev
    examine "$found"
    # All volumes made from one snapshot have one UUID.
    case $about in *' TYPE="xfs"'*) options=$options,nouuid ;; esac
    problem=$(mount -o "$options" "$found" "$mount_point" 2>&1) && mounted=1
    is_mounted || fail 6 "cannot mount $found at $mount_point: $problem" # else it is, by fstab if not by us
    say "$source is mounted at $mount_point now"
}

refuse() {
    [ -z "$mounted" ] || umount "$mount_point"
    fail 6 "$source at $mount_point $1"
}

# A value of the manifest, as it is written there.
field() { sed -n "s/^  \"$1\": \"\(.*\)\",\{0,1\}\$/\1/p; 99q" "$mount_point/.ebs-bake.json" 2>/dev/null; }

check_manifest() {
    commit=$(field commit)
    case $commit in
        '' | *[!0-9a-f]*)
            commit=''
            refuse 'was not baked by ebs-bake: there is no manifest in it'
            ;;
    esac
    [ -z "$expect_commit" ] || [ "$commit" = "$expect_commit" ] || refuse "has commit $commit, not $expect_commit"
    [ -z "$expect_repository" ] || [ "$(field repository)" = "$expect_repository" ] ||
        refuse "has repository $(field repository), not $expect_repository"
    say "$source has commit $commit of $(field repository)"
}

check_content() {
    repository=$mount_point${chef_path:+/$chef_path}
    cookbooks=''
    # Of several copies of a cookbook Chef's local mode takes the first, and here the last one counts.
    for path in $cookbook_paths; do
        [ ! -d "$repository/$path" ] || cookbooks="\"$repository/$path\"${cookbooks:+, }$cookbooks"
    done
    [ -n "$cookbooks" ] || fail 7 "commit $commit has no cookbooks: none of the directories is there: $cookbook_paths"
    [ -n "$(find "$repository/roles/" \( -name "$role.rb" -o -name "$role.json" \) 2>/dev/null)" ] ||
        fail 7 "commit $commit has no role $role"
    case $environment in
        '' | _default) ;;
        *)
            [ -e "$repository/environments/$environment.rb" ] || [ -e "$repository/environments/$environment.json" ] ||
                fail 7 "commit $commit has no environment $environment"
            ;;
    esac
}

# Everything that Chef writes is off the volume, also what is not named here: it goes below chef_repo_path.
write_configuration() {
    mkdir -p "$chef_data/nodes"
    echo "{\"run_list\": [\"role[$role]\"]}" | put "$state/node.json" || fail 6 "cannot write below $state"
    {
        echo '# Written by ebs-bake at every boot.'
        echo "chef_repo_path \"$chef_data\""
        echo "cookbook_path [$cookbooks]"
        # Local mode looks for roles in these directories, not below them.
        echo "role_path Dir.glob(\"$repository/roles/**/\").sort"
        for kind in environment:environments data_bag:data_bags; do
            [ ! -d "$repository/${kind#*:}" ] || echo "${kind%:*}_path \"$repository/${kind#*:}\""
        done
        echo "node_path \"$chef_data/nodes\""
        echo "cache_path \"$chef_data\""
        echo "file_cache_path \"$chef_data/cache\""
        echo "file_backup_path \"$chef_data/backup\""
    } | put "$state/solo.rb" || fail 6 "cannot write below $state"
}

find_chef() {
    for name in ${chef:-chef-solo chef-client cinc-solo cinc-client}; do
        ! program=$(command -v "$name") || return 0
    done
    fail 2 "Chef is not installed: no ${chef:-chef-solo, chef-client, cinc-solo or cinc-client} is found"
}

run_chef() {
    set -- "$program"
    case ${program##*/} in *client*) set -- "$@" --local-mode ;; esac
    set -- "$@" --config "$state/solo.rb" --json-attributes "$state/node.json"
    [ -z "$environment" ] || set -- "$@" --environment "$environment"
    say "attempt $attempt of $attempts: $*"
    # Straight into the file: services that Chef starts may keep it open. And they must not keep the lock.
    lines=$(wc -l <"$log")
    (cd / && exec "$@") </dev/null >>"$log" 2>&1 9>&-
}

converge() {
    [ -z "$chef_license" ] || export CHEF_LICENSE="$chef_license"
    while :; do
        attempt=$((attempt + 1))
        status running
        run_chef
        chef_exit=$?
        # 35 and 37: it ended well, and the node is about to reboot, or should.
        case $chef_exit in 0 | 35 | 37) break ;; esac
        # Not where Ruby was when it could not even start Chef: that is longer than its reason.
        tail -n "+$((lines + 1))" "$log" | sed '/^[[:space:]]*from \//d' | tail -n 30
        case $chef_exit in 172 | 173 | 174) fail 1 "${program##*/} ended with $chef_exit: its licence is not accepted, or its key is missing" ;; esac
        [ "$attempt" -lt "$attempts" ] || fail 1 "${program##*/} ended with $chef_exit in attempt $attempt of $attempts"
        say "${program##*/} ended with $chef_exit; once more in $retry_pause s"
        sleep "$retry_pause"
    done
    message="role $role of commit $commit"
}

main() {
    [ "$(id -u)" -eq 0 ] || { echo 'ebs-bake: root is needed' >&2 && exit 3; }
    case $0 in
        "$cloud"/scripts/per-boot/*)
            # In an image that was made from an instance it is that instance's copy.
            [ "$(cat "$state/instance")" = "$(cat "$cloud/data/instance-id")" ] || exit 0
            ;;
    esac
    take_lock
    [ ! -e "$log" ] || mv -f "$log" "$log.1"
    (umask 077 && mkdir -p "$state" && : >"$log") || exit 6
    started=$(now)
    trap ended EXIT
    trap 'message="ended by a signal"; exit 143' HUP INT TERM
    status waiting
    keep_for_later_boots
    mount_volume
    check_manifest
    check_content
    find_chef
    write_configuration
    converge
}

main
