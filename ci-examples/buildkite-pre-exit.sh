#!/bin/sh
# The hook .buildkite/hooks/pre-exit of buildkite.yml's repository. It runs after every job, also a cancelled one: if the bake did not
# succeed, a container that lost its client is stopped, and what it may have left is removed.
set -eu
if [ "${BUILDKITE_STEP_KEY:-}" != bake ] || [ "${BUILDKITE_COMMAND_EXIT_STATUS:-}" = 0 ]; then
  exit 0
fi
docker stop -t 60 "ebs-bake-$BUILDKITE_JOB_ID" || true
exec docker run --rm \
  --cap-drop ALL --cap-add SYS_ADMIN --cap-add MKNOD --cap-add CHOWN --cap-add DAC_OVERRIDE --cap-add FOWNER \
  --device-cgroup-rule 'b 259:* rwm' --security-opt apparmor=unconfined --network host \
  "$IMAGE" cleanup
