"""Fast snapshot restore, which moto lacks: on or off for each snapshot and zone, at once.

API = https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_<Action>.html
STATES = https://docs.aws.amazon.com/ebs/latest/userguide/view-fsr-enabled-snapshots.html
GUIDE = https://docs.aws.amazon.com/ebs/latest/userguide/manage-fsr-enable.html
"""

import describe
import protocol
import rules
from protocol import element

# API DescribeFastSnapshotRestores, `MaxResults`.
LARGEST_PAGE = 200


class Restores:
    def __init__(self, world):
        self.world = world
        self.reset()

    def reset(self):
        # (region, snapshot, zone) → state, one of STATES.
        self._states = {}

    def actions(self):
        return {
            "EnableFastSnapshotRestores": self.enable,
            "DisableFastSnapshotRestores": self.disable,
            "DescribeFastSnapshotRestores": self.describe,
        }

    def enable(self, request, _effect):
        return self._set(request, "enabled", {})

    def disable(self, request, effect):
        """Which ones EC2 does not disable is not documented: those that a fault says."""
        return self._set(request, "disabled", effect.get("unsuccessful", {}))

    def _set(self, request, state, error):
        rules.required(request, "AvailabilityZone.1", "SourceSnapshotId.1")
        there = {snapshot.id for snapshot, _ in self.world.listed_snapshots(request.region)}
        done, failed = [], []
        for snapshot_id in request.listed("SourceSnapshotId"):
            rules.exists(snapshot_id if snapshot_id in there else None, "snapshot", snapshot_id)
        rules.dry_run(request)
        for snapshot_id in request.listed("SourceSnapshotId"):
            for zone in request.listed("AvailabilityZone"):
                if error:
                    failed.append(_error(snapshot_id, zone, error))
                    continue
                self._states[request.region, snapshot_id, zone] = state
                done.append(_item(snapshot_id, zone, state))
        return protocol.success(request.action, [element("successful", done), element("unsuccessful", failed)])

    def describe(self, request, _effect):
        filters = request.filters()
        describe.check_filters(filters, describe.RESTORE_FILTERS)
        size = request.integer("MaxResults")
        rules.within(size, (0, LARGEST_PAGE), "maxResults")
        rules.dry_run(request)
        items = [_item(snapshot_id, zone, state) for (region, snapshot_id, zone), state in self._states.items() if region == request.region]
        items = [item for item in items if describe.matches(item, filters, describe.RESTORE_FILTERS)]
        cap = self.world.limits["page_size"] or LARGEST_PAGE
        page, token = describe.page(items, min(size or LARGEST_PAGE, cap), request.get("NextToken"))
        answer = [element("fastSnapshotRestoreSet", page)]
        return protocol.success(request.action, answer + ([element("nextToken", content=token)] if token else []))

    def forget(self, snapshot_id):
        """GUIDE: "When you delete a snapshot that you own, fast snapshot restore is automatically disabled"."""
        self._states = {key: state for key, state in self._states.items() if key[1] != snapshot_id}


def _item(snapshot_id, zone, state):
    values = {"snapshotId": snapshot_id, "availabilityZone": zone, "state": state}
    return element("item", [element(name, content=value) for name, value in values.items()])


def _error(snapshot_id, zone, error):
    told = element("error", [element(name, content=error.get(name)) for name in ("code", "message")])
    state = element("item", [element("availabilityZone", content=zone), told])
    return element("item", [element("snapshotId", content=snapshot_id), element("fastSnapshotRestoreStateErrorSet", [state])])
