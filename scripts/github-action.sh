#!/usr/bin/env bash
# What the steps of action.yml and rollout/action.yml run. All that a user says comes in the environment, and is never part of a script.
# Usage: github-action.sh prepare|bake|rollout|clean-up
set -euo pipefail

# A name for the container, and the image of this very source: another ref of the action is another image.
prepare() {
    echo "container=ebs-bake-$(cat /proc/sys/kernel/random/uuid)" >>"$GITHUB_OUTPUT"
    if ! command -v docker >/dev/null; then
        echo "::error title=ebs-bake::Docker is not installed on this runner"
        exit 3
    fi
    [ -z "${IMAGE:-}" ] || return 0
    cd "$(dirname "$0")/.."
    local digest image
    digest=$(find Dockerfile Cargo.lock Cargo.toml LICENSE scripts src -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum)
    image=ebs-bake:${digest:0:12}
    echo "image=$image" >>"$GITHUB_OUTPUT"
    docker image inspect "$image" >/dev/null 2>&1 || exec docker build --tag "$image" .
}

bake() {
    write_secret EBS_BAKE_SSH_KEY
    write_secret EBS_BAKE_KNOWN_HOSTS
    collect_arguments as_root "${EBS_BAKE_STATE_DIR:-/var/cache/ebs-bake}"
    # The runner signals this process alone: it must become the client, which hands signals on (with a terminal it would not).
    exec docker run --name "$CONTAINER" "${arguments[@]}" "$IMAGE" bake
}

# Attaches nothing.
rollout() {
    collect_arguments as_user
    exec docker run --name "$CONTAINER" "${arguments[@]}" "$IMAGE" rollout
}

# A cancelled step has ten seconds. Then the runner kills the client, and the container goes on, or was made and never started.
clean_up() {
    # Without a name the job was cancelled before it had one.
    [ -n "${CONTAINER:-}" ] || return 0
    docker stop -t 60 "$CONTAINER" >/dev/null 2>&1 || true
    docker rm --force "$CONTAINER" >/dev/null 2>&1 || true
    rm -f "$RUNNER_TEMP/$CONTAINER".*
    if [ "${OUTCOME:-}" = cancelled ]; then
        collect_arguments as_root
        exec docker run "${arguments[@]}" "$IMAGE" cleanup
    fi
}

# Keys come as secrets, which are texts; the program reads files.
write_secret() {
    local text=${!1:-} path=$RUNNER_TEMP/$CONTAINER.$1
    if [[ $text == *[[:space:]]* && ! -e $text ]]; then
        (umask 077 && printf '%s\n' "$text" >"$path")
        printf -v "$1" %s "$path"
    fi
}

# Sets `arguments`: those of `docker run`. Usage: collect_arguments as_root|as_user [DIRECTORY-TO-MOUNT…]
collect_arguments() {
    arguments=(--rm --network host --workdir "$GITHUB_WORKSPACE")
    "$1"
    add_variables
    add_mounts "${@:2}"
    local option
    while IFS= read -r option; do
        [ -z "$option" ] || arguments+=("$option")
    done <<<"${DOCKER_OPTIONS:-}"
}

# What attaching and mounting need.
as_root() {
    home=/root
    if [ "${PRIVILEGED:-}" = true ]; then
        arguments+=(--privileged)
    else
        arguments+=(--cap-drop ALL --cap-add SYS_ADMIN --cap-add MKNOD --cap-add CHOWN --cap-add DAC_OVERRIDE --cap-add FOWNER)
        arguments+=(--security-opt no-new-privileges --security-opt apparmor=unconfined)
        # EBS volumes are NVMe devices (259), on older instances Xen's (202).
        arguments+=(--device-cgroup-rule 'b 259:* rwm' --device-cgroup-rule 'b 202:* rwm')
    fi
}

# No privileges at all. A root without them could not write the runner's files, which are its user's.
as_user() {
    home=${HOME:-/root}
    arguments+=(--user "$(id -u):$(id -g)" --env HOME --cap-drop ALL --security-opt no-new-privileges)
}

# By name: the values of arguments can be read by everybody on the host.
add_variables() {
    local name
    for name in $(compgen -e); do
        case $name in
            EBS_BAKE_* | AWS_* | GITHUB_* | CI | NO_COLOR | CLICOLOR | CLICOLOR_FORCE) ;;
            SSH_AUTH_SOCK | SSL_CERT_FILE | SSL_CERT_DIR | GIT_SSL_CAINFO) ;;
            http_proxy | https_proxy | all_proxy | no_proxy | HTTP_PROXY | HTTPS_PROXY | ALL_PROXY | NO_PROXY) ;;
            *) continue ;;
        esac
        arguments+=(--env "$name")
    done
}

# What the variables name is at the same path in the container. What is in the workspace is there with it.
add_mounts() {
    local name path
    local -A mounts=()
    for name in EBS_BAKE_{CONFIG,GIT_TOKEN_FILE,KNOWN_HOSTS,REPOSITORY,SSH_KEY} SSH_AUTH_SOCK SSL_CERT_{FILE,DIR} GIT_SSL_CAINFO \
        AWS_{CA_BUNDLE,CONFIG_FILE,CONTAINER_AUTHORIZATION_TOKEN_FILE,SHARED_CREDENTIALS_FILE,WEB_IDENTITY_TOKEN_FILE}; do
        path=${!name:-}
        [[ $path != /* || ! -e $path ]] || mounts[$path:$path]=:ro
    done
    for path in "${HOME:-/root}"/.{aws,ssh/known_hosts} /etc/ssh/ssh_known_hosts; do
        [ ! -e "$path" ] || mounts[$path:${path/#"${HOME:-/root}"/$home}]=:ro
    done
    for name in EBS_BAKE_OUTPUT_JSON EBS_BAKE_OUTPUT_ENV; do
        path=${!name:-}
        [[ $path != /*/* ]] || mounts[${path%/*}:${path%/*}]=
    done
    for path in "$GITHUB_WORKSPACE" "$GITHUB_OUTPUT" "${GITHUB_STEP_SUMMARY:-}" "${EBS_BAKE_LOCAL_DIR:-}" "$@"; do
        [[ $path != /* ]] || mounts[$path:$path]=
    done
    for path in "${!mounts[@]}"; do
        arguments+=(--volume "$path${mounts[$path]}")
    done
}

case ${1:-} in
    prepare) prepare ;;
    bake) bake ;;
    rollout) rollout ;;
    clean-up) clean_up ;;
    *) echo "usage: github-action.sh prepare|bake|rollout|clean-up" >&2; exit 2 ;;
esac
