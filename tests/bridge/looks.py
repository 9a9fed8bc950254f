"""EC2's Describe actions: what moto lists, in the states that the bridge keeps, filtered and cut to pages as EC2 does."""

import copy

import describe
import protocol
import rules
from amis import Amis
from protocol import Ec2Error, content, element, text
from upstream import tree

# moto's only account; signatures are not checked and nothing is shared.
ACCOUNT = "123456789012"


class Looks:
    """For a class with a `world`."""

    def __init__(self, world):
        self.world = world
        self.amis = Amis(world)
        # Region → what Describe calls saw before the last change.
        self._before = {}

    def _remember(self, region):
        self._before[region] = {
            "volumes": [copy.deepcopy(item) for it, item in self.world.listed_volumes(region) if not it.hidden],
            "snapshots": [copy.deepcopy(item) for it, item in self.world.listed_snapshots(region) if not it.hidden],
        }

    def describe_volumes(self, request, effect):
        ids = request.listed("VolumeId")
        for volume_id in ids:
            rules.identifier(volume_id, "vol-", "volumes")
        listed = self.world.listed_volumes(request.region)
        if effect.get("stale") and request.region in self._before:
            listed = [(None, item) for item in self._before[request.region]["volumes"]]

        def seen(volume):
            volume.life.seen()
            if volume.attachment:
                volume.attachment.machine.seen()
                if volume.attachment.appearing:
                    volume.attachment.appearing.seen()

        known = describe.VOLUME_FILTERS
        return self._describe(request, effect, "volumes", "volumeSet", "volume", ids, listed, known, seen)

    def describe_snapshots(self, request, effect):
        ids = request.listed("SnapshotId")
        for snapshot_id in ids:
            rules.identifier(snapshot_id, "snap-", "snapshots")
        if request.listed("RestorableBy"):
            raise Ec2Error("UnsupportedOperation", "the bridge does not model who may restore a snapshot")
        listed = self.world.listed_snapshots(request.region)
        if effect.get("stale") and request.region in self._before:
            listed = [(None, item) for item in self._before[request.region]["snapshots"]]
        # API DescribeSnapshots: "account IDs, self, and amazon". Nothing here is Amazon's.
        owners = {ACCOUNT if owner == "self" else owner for owner in request.listed("Owner")}
        if owners:
            listed = [it for it in listed if text(it[1], "ownerId") in owners]
        known = describe.SNAPSHOT_FILTERS
        return self._describe(
            request, effect, "snapshots", "snapshotSet", "snapshot", ids, listed, known, lambda it: it.life.seen()
        )

    def describe_images(self, request, effect):
        ids = request.listed("ImageId")
        listed = [(None, item) for item in self.amis.listed(request.region, request.listed("Owner") or ["self"])]
        return self._describe(
            request, effect, "images", "imagesSet", "image", ids, listed, describe.IMAGE_FILTERS, lambda _: None
        )

    def describe_modifications(self, request, effect):
        ids = request.listed("VolumeId")
        root = self.world.upstream.call(request.region, "DescribeVolumesModifications")
        # API: "the most recent volume modification request".
        latest = {text(item, "volumeId"): item for item in root.findall("volumeModificationSet/item")}
        self.world.settle()
        listed = []
        for volume_id, item in latest.items():
            volume = self.world.volumes.get(volume_id)
            if volume and volume.modifications and (not ids or volume_id in ids):
                self._show_modification(volume, item)
                listed.append((volume, item))
        # What EC2 says of an ID without a modification is not documented; none is listed here.
        known = describe.MODIFICATION_FILTERS
        return self._describe(
            request, effect, "modifications", "volumeModificationSet", None, (), listed, known,
            lambda it: it.modifications[-1].machine.seen(),
        )

    def _describe(self, request, effect, kind, container, resource, ids, listed, known, seen):
        """One page of those that match. What matches but for its state is seen, and so goes on."""
        filters = request.filters()
        describe.check_filters(filters, known)
        size = describe.page_size(request, kind, ids, self.world.limits["page_size"])
        listed = [it for it in listed if not self._is_hidden(it[0])]
        there = {text(item, f"{resource}Id") for _, item in listed}
        for resource_id in ids:
            rules.exists(resource_id if resource_id in there else None, resource, resource_id)
        rules.dry_run(request)
        if ids:
            listed = [it for it in listed if text(it[1], f"{resource}Id") in ids]
        lasting = {name: values for name, values in filters.items() if name not in describe.STATE_FILTERS}
        for record, item in listed:
            if record is not None and describe.matches(item, lasting, known):
                seen(record)
        items = [copy.deepcopy(item) for _, item in listed]
        for item in items:
            override(item, resource, effect.get("override", {}))
        found, token = describe.page([it for it in items if describe.matches(it, filters, known)], size, request.get("NextToken"))
        children = [element(container, found)]
        if token:
            children.append(element("nextToken", content=token))
        return protocol.success(request.action, children)

    def _is_hidden(self, record):
        """Not to be seen yet: EC2 is eventually consistent. Every look counts."""
        hidden = getattr(record, "hidden", None)
        if hidden is None:
            return False
        if hidden.is_over(self.world.clock.now()):
            record.hidden = None
            return False
        hidden.seen()
        return True

    def describe_instances(self, request, _effect):
        if request.listed("InstanceId") and request.get("MaxResults"):
            # API DescribeInstances, `MaxResults`.
            message = "The parameter instancesSet cannot be used with the parameter maxResults"
            raise Ec2Error("InvalidParameterCombination", message)
        for instance_id in request.listed("InstanceId"):
            rules.identifier(instance_id, "i-", "instanceId")
            rules.exists(self.world.instance(request.region, instance_id), "instance", instance_id)
        rules.dry_run(request)
        # Filters are moto's here: one that it lacks is an InternalError.
        root = tree(self.world.upstream.forward(request.method, request.path, request.headers, request.body))
        self.world.settle()
        attached = [it for it in self.world.volumes.values() if it.attachment]
        for item in root.findall("reservationSet/item/instancesSet/item"):
            instance_id = text(item, "instanceId")
            mapping = protocol.put(item, "blockDeviceMapping", None)
            mapping.extend(_mapping(it) for it in attached if it.attachment.instance == instance_id)
        return protocol.success("DescribeInstances", content(root))


def _mapping(volume):
    attachment = volume.attachment
    # API EbsInstanceBlockDevice, `status`: attaching | attached | detaching | detached.
    status = "detaching" if attachment.busy else attachment.state
    values = {"volumeId": volume.id, "status": status, "attachTime": attachment.time, "deleteOnTermination": "false"}
    ebs = element("ebs", [element(name, content=value) for name, value in values.items()])
    return element("item", [element("deviceName", content=attachment.device), ebs])


def override(item, resource, overrides):
    """Fields of one answer, by path; `None` empties an element."""
    for resource_id in ("*", text(item, f"{resource}Id")):
        for path, value in overrides.get(resource_id, {}).items():
            found = item.findall(path) or ([protocol.put(item, path, None)] if "/" not in path else [])
            for child in found:
                if value is None:
                    child.clear()
                else:
                    child.text = str(value)

