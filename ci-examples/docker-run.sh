#!/bin/sh
# Runs ebs-bake with Docker on an EC2 instance, from any CI system or by hand. Every argument is the program's:
#
#   EBS_BAKE_REPOSITORY=https://git.example.com/infra/chef-repo ./docker-run.sh bake --ref main
#
# IMAGE      what `docker build` made, or its name in your registry [default: ebs-bake]
# CONTAINER  the container's name, for `docker stop -t 60` [default: ebs-bake-<number of the process>]
#
# Variables of ebs-bake, of AWS and of the CI systems are handed on by name, so that no value is an argument, which others on the host
# could read. Files that they name (with an absolute path) can be read in the container. What attaches nothing, such as `rollout`, has
# no privileges and is the caller's user. docs/ci.md has a whole job.
set -eu

names=$(awk 'BEGIN {
  some = "^(EBS_BAKE|AWS|CI|BUILD|BUILDKITE|CIRCLE|SYSTEM|CODEBUILD|DRONE)_[A-Za-z0-9_]+$"
  jenkins = "^(JENKINS_URL|GIT_(URL|URL_1|COMMIT|BRANCH|LOCAL_BRANCH)|BRANCH_NAME|TAG_NAME|CHANGE_ID)$"
  others = "^(CI|GITLAB_CI|BUILDKITE|CIRCLECI|TF_BUILD|DRONE|(http|https|all|no)_proxy|(HTTP|HTTPS|ALL|NO)_PROXY)$"
  for (name in ENVIRON) if (name ~ some || name ~ jenkins || name ~ others) print "--env=" name
}')
command=${1:-}
set -- "${IMAGE:-ebs-bake}" "$@"
for file in "${AWS_CA_BUNDLE:-}" "${AWS_CONFIG_FILE:-}" "${AWS_SHARED_CREDENTIALS_FILE:-}" "${AWS_WEB_IDENTITY_TOKEN_FILE:-}" \
  "${EBS_BAKE_CONFIG:-}" "${EBS_BAKE_GIT_TOKEN_FILE:-}" "${EBS_BAKE_KNOWN_HOSTS:-}" "${EBS_BAKE_SSH_KEY:-}"; do
  [ -z "$file" ] || set -- "--volume=$file:$file:ro" "$@"
done

# `exec`: a signal reaches the client, which hands it on to the container. No -t: a client with a terminal leaves its container behind.
case $command in
  rollout | list | prune)
    # shellcheck disable=SC2086 # a list of words
    exec docker run --rm --name "${CONTAINER:-ebs-bake-$$}" --user "$(id -u):$(id -g)" --cap-drop ALL --network host $names "$@" ;;
esac
# shellcheck disable=SC2086
exec docker run --rm --name "${CONTAINER:-ebs-bake-$$}" \
  --cap-drop ALL --cap-add SYS_ADMIN --cap-add MKNOD --cap-add CHOWN --cap-add DAC_OVERRIDE --cap-add FOWNER \
  --device-cgroup-rule 'b 259:* rwm' --security-opt apparmor=unconfined --network host \
  $names "$@"
