#!/bin/sh
# The hook .buildkite/hooks/pre-exit of buildkite.yml's repository. The agent sources it after every job, also a cancelled one: if the bake
# did not succeed, a container that lost its client is stopped, and what it may have left is removed. The job keeps its exit code.
if [ "${BUILDKITE_STEP_KEY:-}" = bake ] && [ "${BUILDKITE_COMMAND_EXIT_STATUS:-}" != 0 ]; then
  docker stop -t 60 "ebs-bake-$BUILDKITE_JOB_ID" || true
  docker run --rm \
    --cap-drop ALL --cap-add SYS_ADMIN --cap-add MKNOD --cap-add CHOWN --cap-add DAC_OVERRIDE --cap-add FOWNER \
    --device-cgroup-rule 'b 259:* rwm' --security-opt apparmor=unconfined --network host \
    "$IMAGE" cleanup || true
fi
