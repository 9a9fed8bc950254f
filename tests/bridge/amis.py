"""AMIs: moto's, with the snapshots that they were registered with, which moto drops.

API = https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_<Action>.html
"""

import protocol
import rules
from protocol import element, text
from upstream import tree


class Amis:
    def __init__(self, world):
        self.world = world
        self.reset()

    def reset(self):
        # AMI → device name and snapshot of each mapping. One without gets a snapshot of its own from moto.
        self._mappings = {}

    def register(self, request, _effect):
        """API RegisterImage: "To register an AMI using a snapshot", its ID is in the mapping."""
        there = {snapshot.id for snapshot, _ in self.world.listed_snapshots(request.region)}
        mappings = []
        for number in protocol.numbers(request.params, "BlockDeviceMapping"):
            device, snapshot_id = (request.get(f"BlockDeviceMapping.{number}.{name}") for name in ("DeviceName", "Ebs.SnapshotId"))
            if snapshot_id:
                rules.exists(snapshot_id if snapshot_id in there else None, "snapshot", snapshot_id)
                mappings.append((device, snapshot_id))
        rules.dry_run(request)
        answer = self.world.upstream.forward(request.method, request.path, request.headers, request.body)
        self._mappings[text(tree(answer), "imageId")] = mappings
        return answer

    def listed(self, region, owners=("self",)):
        """The elements of all, with the mappings that they were registered with."""
        params = {f"Owner.{number}": owner for number, owner in enumerate(owners, 1)}
        items = self.world.upstream.call(region, "DescribeImages", params).findall("imagesSet/item")
        for item in items:
            mappings = self._mappings.get(text(item, "imageId"))
            if mappings:
                shown = protocol.put(item, "blockDeviceMapping", None)
                shown.extend(_mapping(*it) for it in mappings)
        return items

    def users(self, region, snapshot_id):
        """The IDs of the AMIs that have the snapshot."""
        def has(item):
            return any(it.text == snapshot_id for it in item.findall("blockDeviceMapping/item/ebs/snapshotId"))

        return [text(item, "imageId") for item in self.listed(region) if has(item)]


def _mapping(device, snapshot_id):
    ebs = element("ebs", [element("snapshotId", content=snapshot_id)])
    return element("item", [element("deviceName", content=device), ebs])
