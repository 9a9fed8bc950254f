#!/bin/sh
# For codebuild-buildspec.yml: bakes, or cleans up, on the EC2 instance INSTANCE_ID, with Systems Manager's Run Command. The snapshot's ID
# comes on stdout. The build's role may call ssm:SendCommand (that instance, AWS-RunShellScript) and ssm:GetCommandInvocation.
# Usage: codebuild-host.sh bake|cleanup
set -eu

# What the build knows of the commit goes before the script, each value quoted for the shell that will read it.
variables=$(jq -nr '[
    "CODEBUILD_BUILD_ID", "CODEBUILD_BUILD_URL", "CODEBUILD_SOURCE_REPO_URL", "CODEBUILD_RESOLVED_SOURCE_VERSION",
    "CODEBUILD_SOURCE_VERSION", "CODEBUILD_WEBHOOK_HEAD_REF"
  ] | map(select(env[.])) | map("export \(.)=\(env[.] | @sh)") | join("\n")')

case $1 in
  # /etc/ebs-bake/git-token is a file of the instance: what Run Command is sent can be read in its history.
  bake) script=$(cat <<'END'
exec docker run --rm --name "ebs-bake-${CODEBUILD_BUILD_ID##*:}" \
  --cap-drop ALL --cap-add SYS_ADMIN --cap-add MKNOD --cap-add CHOWN --cap-add DAC_OVERRIDE --cap-add FOWNER \
  --device-cgroup-rule 'b 259:* rwm' --security-opt apparmor=unconfined --network host \
  --mount type=bind,src=/etc/ebs-bake/git-token,dst=/etc/ebs-bake/git-token,readonly -e EBS_BAKE_GIT_TOKEN_FILE=/etc/ebs-bake/git-token \
  -e CODEBUILD_BUILD_ID -e CODEBUILD_BUILD_URL -e CODEBUILD_SOURCE_REPO_URL -e CODEBUILD_RESOLVED_SOURCE_VERSION \
  -e CODEBUILD_SOURCE_VERSION -e CODEBUILD_WEBHOOK_HEAD_REF \
  ebs-bake bake
END
) ;;
  cleanup) script=$(cat <<'END'
docker stop -t 60 "ebs-bake-${CODEBUILD_BUILD_ID##*:}" || true
exec docker run --rm \
  --cap-drop ALL --cap-add SYS_ADMIN --cap-add MKNOD --cap-add CHOWN --cap-add DAC_OVERRIDE --cap-add FOWNER \
  --device-cgroup-rule 'b 259:* rwm' --security-opt apparmor=unconfined --network host \
  ebs-bake cleanup
END
) ;;
  *) exit 2 ;;
esac

parameters=$(jq -n --arg script "$variables
$script" '{commands: [$script], executionTimeout: ["7200"]}')
command=$(aws ssm send-command --instance-ids "$INSTANCE_ID" --document-name AWS-RunShellScript --parameters "$parameters" \
  --query Command.CommandId --output text)
answer() {
  aws ssm get-command-invocation --instance-id "$INSTANCE_ID" --command-id "$command" --query "$1" --output text
}
# Right after the call it is not known yet.
status=Pending
until case $status in Success | Failed | Cancelled | TimedOut) true ;; *) false ;; esac; do
  sleep 5
  status=$(answer Status)
done
answer StandardErrorContent >&2
answer StandardOutputContent
[ "$status" = Success ]
