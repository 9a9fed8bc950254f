"""Instance refreshes, which moto does not have.

API = https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_<Action>.html
GUIDE = https://docs.aws.amazon.com/autoscaling/ec2/userguide/asg-instance-refresh.html and the pages below it
"""

import uuid
from dataclasses import dataclass

import describe
from protocol import Ec2Error, element, text
from query import below, nested, source_of, success
from states import Machine

DESIRED = "DesiredConfiguration."
PREFERENCES = "Preferences."
ACTIVE = ("Pending", "InProgress", "Cancelling", "RollbackInProgress", "Baking")
# API RefreshPreferences.
HEALTHY = {"MinHealthyPercentage": (0, 100), "MaxHealthyPercentage": (100, 200)}
# API DescribeInstanceRefreshes, `MaxRecords`.
PAGE = (50, 100)
ENDS = ("Successful", "Failed", "Cancelled", "RollbackSuccessful", "RollbackFailed")


@dataclass
class Refresh:
    id: str
    region: str
    group: str
    params: dict
    machine: Machine
    started: str
    reason: str
    ended: str = ""


class Refreshes:
    def __init__(self, owner):
        self.fleet = owner
        self.world = owner.world
        self._all = []

    def start(self, request, effect):
        name = request.get("AutoScalingGroupName")
        group = self.fleet.group(request.region, name)
        desired = below(request.params, DESIRED)
        self._check(request, group, desired)
        # API StartInstanceRefresh, InstanceRefreshInProgress.
        if self._active(request.region, name):
            message = "An Instance Refresh is already in progress and blocks the execution of this Instance Refresh."
            raise Ec2Error("InstanceRefreshInProgress", message)
        end = effect.get("becomes", "Successful")
        states = ["Pending", "InProgress", end]
        kinds = ["refresh.pending", "refresh.in-progress"]
        rolls_back = end.startswith("Rollback") or (end == "Failed" and request.params.get("Preferences.AutoRollback") == "true")
        if rolls_back:
            # GUIDE, instance-refresh-rollback: "automatically reverses what was deployed if the instance refresh fails".
            states[2:] = ["RollbackInProgress", "RollbackFailed" if end == "RollbackFailed" else "RollbackSuccessful"]
            kinds.append("refresh.rolling-back")
        machine = self.world.machine(states, kinds, effect.get("takes"))
        made = Refresh(
            str(uuid.uuid4()), request.region, name, dict(request.params), machine, self.world.timestamp(), effect.get("reason", "")
        )
        self._all.append(made)
        self.settle()
        return success("StartInstanceRefresh", [
            element("StartInstanceRefreshResult", [element("InstanceRefreshId", content=made.id)])
        ])

    def _check(self, request, group, desired):
        """API RefreshPreferences; GUIDE. Codes are not documented: ValidationError is what Auto Scaling says of parameters."""
        for name, (least, most) in HEALTHY.items():
            value = request.integer(PREFERENCES + name)
            if value is not None and not least <= value <= most:
                raise Ec2Error("ValidationError", f"{name} must be from {least} to {most}")
        least, most = (request.integer(PREFERENCES + name) for name in HEALTHY)
        if most is not None and (least is None or most - least > 100):
            raise Ec2Error("ValidationError", "MaxHealthyPercentage needs MinHealthyPercentage, at most 100 below it")
        checkpoints = [int(it) for it in request.listed(f"{PREFERENCES}CheckpointPercentages.member")]
        if checkpoints != sorted(set(checkpoints)):
            raise Ec2Error("ValidationError", "CheckpointPercentages must be unique and in ascending order")
        if request.get(f"{PREFERENCES}CheckpointDelay") and not checkpoints:
            raise Ec2Error("ValidationError", "CheckpointDelay needs CheckpointPercentages")
        # GUIDE, asg-instance-refresh-skip-matching: "You cannot use skip matching with a new launch configuration".
        if request.flag(f"{PREFERENCES}SkipMatching") and not desired and text(group, "LaunchConfigurationName"):
            raise Ec2Error("ValidationError", "SkipMatching cannot be used with a launch configuration")
        if request.flag(f"{PREFERENCES}AutoRollback"):
            # GUIDE, instance-refresh-rollback, "Prerequisites".
            now = source_of(group).get("LaunchTemplate.Version", "$Default")
            if not desired or now.startswith("$"):
                raise Ec2Error("ValidationError", "AutoRollback needs a desired configuration and a group with a numbered version")
        self.fleet.version(request.region, desired)

    def forbid_change(self, region, name):
        """As users have published Auto Scaling's answer."""
        if any(below(it.params, DESIRED) for it in self._active(region, name)):
            raise Ec2Error("ValidationError", "An active instance refresh with a desired configuration exists. All configuration options derived from the desired configuration are not available for update while the instance refresh is active.")

    def _active(self, region, name):
        return [it for it in self._all if (it.region, it.group) == (region, name) and it.machine.state in ACTIVE]

    def describe(self, request, _effect):
        name = request.get("AutoScalingGroupName")
        self.fleet.group(request.region, name)
        ids = request.listed("InstanceRefreshIds.member")
        found = [it for it in self._all if (it.region, it.group) == (request.region, name)]
        if ids:
            found = [it for it in found if it.id in ids]
        # API DescribeInstanceRefreshes, the example: the newest first.
        items = [self._element(it) for it in reversed(found)]
        for it in found:
            it.machine.seen()
        size = min(request.integer("MaxRecords") or PAGE[0], PAGE[1], self.world.limits["page_size"] or PAGE[1])
        page, token = describe.page(items, size, request.get("NextToken"))
        result = element("DescribeInstanceRefreshesResult", [element("InstanceRefreshes", page)])
        if token:
            result.append(element("NextToken", content=token))
        return success(request.action, [result])

    def _element(self, refresh):
        state = refresh.machine.state
        percent = {"Successful": 100, "Pending": 0}.get(state, refresh.machine.percent(self.world.clock.now()) % 100)
        values = {
            "InstanceRefreshId": refresh.id,
            "AutoScalingGroupName": refresh.group,
            "Status": state,
            "StatusReason": refresh.reason if state not in ("Pending", "Successful") else "",
            "StartTime": refresh.started,
            "EndTime": refresh.ended,
            "PercentageComplete": str(percent),
        }
        item = element("member", [element(name, content=value) for name, value in values.items() if value])
        for name in (DESIRED, PREFERENCES):
            given = below(refresh.params, name)
            if given:
                item.append(nested(name.rstrip("."), given))
        return item

    def settle(self, force=False):
        for refresh in self._all:
            for state in refresh.machine.settle(self.world.clock.now(), force):
                if state in ENDS:
                    refresh.ended = self.world.timestamp()
                if state == "Successful":
                    self._replace(refresh)

    def _replace(self, refresh):
        """Launches the instances anew: at the end, all at once, and none if the refresh ends otherwise."""
        desired = below(refresh.params, DESIRED)
        if desired:
            # API StartInstanceRefresh, `DesiredConfiguration`: "Once the instance refresh succeeds, … updates the settings".
            self.fleet.call(refresh.region, "UpdateAutoScalingGroup", {"AutoScalingGroupName": refresh.group, **desired})
        group = self.fleet.group(refresh.region, refresh.group)
        source = source_of(group)
        skips = refresh.params.get("Preferences.SkipMatching") == "true"
        with self.fleet.launching(refresh.region, source):
            for item in group.findall("Instances/member"):
                instance = text(item, "InstanceId")
                if not (skips and self.fleet.is_launched_from(instance, source, refresh.region)):
                    params = {"InstanceId": instance, "ShouldDecrementDesiredCapacity": "false"}
                    self.fleet.call(refresh.region, "TerminateInstanceInAutoScalingGroup", params)
        self.world.forget_terminated(refresh.region)
        self.fleet.note_instances(refresh.region)
