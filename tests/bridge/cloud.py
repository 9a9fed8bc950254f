"""EC2's actions: refused where EC2 refuses, passed on to moto, then done to the devices."""

import protocol
import rules
from looks import Looks
from protocol import Answer, Ec2Error, Request, content, element, text
from restores import Restores
from states import Hold
from upstream import tree
from world import Attachment, Modification, Snapshot, Volume, attachment_element

# They change volumes or snapshots in ways that nothing here does to images.
NOT_MIRRORED = {
    "CreateSnapshots", "CopyVolumes", "CreateReplaceRootVolumeTask", "RestoreSnapshotTier", "ModifySnapshotTier",
    "RestoreSnapshotFromRecycleBin", "RestoreVolumeFromRecycleBin",
}
# https://docs.aws.amazon.com/ebs/latest/userguide/ebs-resource-quotas.html
CONCURRENT_COPIES = 20


class Cloud(Looks):
    def __init__(self, world, templates):
        super().__init__(world)
        self.templates = templates
        self.restores = Restores(world)
        self._zones = {}
        self.reset()

    def reset(self):
        # (region, client token) → (parameters, volume ID, answer).
        self._tokens = {}
        self._before.clear()
        self.amis.reset()
        self.restores.reset()
        self._actions = {
            "AttachVolume": self.attach_volume,
            "DetachVolume": self.detach_volume,
            "CreateVolume": self.create_volume,
            "ModifyVolume": self.modify_volume,
            "DeleteVolume": self.delete_volume,
            "CreateSnapshot": self.create_snapshot,
            "CopySnapshot": self.copy_snapshot,
            "DeleteSnapshot": self.delete_snapshot,
            "DescribeVolumes": self.describe_volumes,
            "DescribeSnapshots": self.describe_snapshots,
            "DescribeVolumesModifications": self.describe_modifications,
            "DescribeInstances": self.describe_instances,
            "DescribeImages": self.describe_images,
            "RegisterImage": self.amis.register,
            **self.restores.actions(),
            **self.templates.actions(),
        }

    def handle(self, request: Request, effect, keep_history=False) -> Answer:
        """Answers one EC2 call; refusals are raised."""
        rules.known_parameters(request)
        if request.action in NOT_MIRRORED:
            raise Ec2Error("UnsupportedOperation", f"the bridge does not do {request.action} to images")
        is_look = request.action.startswith("Describe")
        if keep_history and not is_look:
            self._remember(request.region)
        action = self._actions.get(request.action)
        if action:
            answer = action(request, effect)
        else:
            rules.dry_run(request)
            answer = self._forward(request)
        # What is held for no time goes on at once.
        self.world.settle()
        return answer

    def _forward(self, request):
        answer = self.world.upstream.forward(request.method, request.path, request.headers, request.body)
        tree(answer)
        if request.action in ("TerminateInstances", "StopInstances"):
            self.world.forget_terminated(request.region)
        return answer

    def _pass_on(self, request, **changed):
        """The call at moto, with the parameters that it does not get right set."""
        dropped = ("Action", "Version", "ClientToken")
        params = {name: value for name, value in request.params.items() if name not in dropped}
        params.update({name: str(value) for name, value in changed.items()})
        return self.world.upstream.call(request.region, request.action, params)

    # What is there

    def _volume(self, request):
        """The volume of the call, which must be there: record and element."""
        rules.required(request, "VolumeId")
        volume_id = request.get("VolumeId")
        rules.identifier(volume_id, "vol-", "volumeId")
        found = next((it for it in self.world.listed_volumes(request.region) if it[0].id == volume_id), None)
        rules.exists(found, "volume", volume_id)
        return found

    def _snapshot(self, region, snapshot_id):
        rules.identifier(snapshot_id, "snap-", "snapshotId")
        found = next((it for it in self.world.listed_snapshots(region) if it[0].id == snapshot_id), None)
        rules.exists(found, "snapshot", snapshot_id)
        return found

    def _zone_names(self, region):
        if region not in self._zones:
            root = self.world.upstream.call(region, "DescribeAvailabilityZones")
            self._zones[region] = {text(item, "zoneName") for item in root.findall("availabilityZoneInfo/item")}
        return self._zones[region]

    # Attachments

    def attach_volume(self, request, effect):
        rules.required(request, "VolumeId", "InstanceId", "Device")
        volume, item = self._volume(request)
        instance_id, device = request.get("InstanceId"), request.get("Device")
        rules.identifier(instance_id, "i-", "instanceId")
        rules.device_name(device)
        instance = self.world.instance(request.region, instance_id)
        rules.exists(instance, "instance", instance_id)
        rules.dry_run(request)
        if text(item, "multiAttachEnabled") == "true" and volume.attachment:
            raise Ec2Error("UnsupportedOperation", "the bridge attaches a Multi-Attach volume to one instance only")
        names = set(instance["devices"]) | {
            it.attachment.device for it in self.world.volumes.values() if it.attachment and it.attachment.instance == instance_id
        }
        what = {"id": volume.id, "zone": text(item, "availabilityZone"), "state": volume.life.state}
        rules.attach({**what, "attached": volume.attachment is not None}, instance, device, names)
        self._pass_on(request)
        machine = self.world.machine(["attaching", "attached"], ["volume.attaching"], effect.get("takes"))
        disk = dict(effect.get("device", {}))
        volume.attachment = Attachment(instance_id, device, self.world.timestamp(), machine, disk=disk)
        return protocol.success("AttachVolume", list(attachment_element(volume, "item")))

    def detach_volume(self, request, effect):
        volume, _ = self._volume(request)
        rules.dry_run(request)
        attachment = volume.attachment
        known = attachment and {"instance": attachment.instance, "device": attachment.device}
        root_of_running = False
        if attachment:
            instance = self.world.instance(request.region, attachment.instance) or {}
            root_of_running = instance.get("root") == attachment.device and instance.get("state") == "running"
        rules.detach(volume.id, known, request.get("InstanceId"), request.get("Device"), root_of_running)
        if not attachment.detaching:
            self._pass_on(request, InstanceId=attachment.instance)
            attachment.detaching = True
            attachment.machine = self.world.machine(["detaching", "detached"], ["volume.detaching"], effect.get("takes"))
        attachment.force = attachment.force or request.flag("Force")
        return protocol.success("DetachVolume", list(attachment_element(volume, "item")))

    # Volumes

    def create_volume(self, request, effect):
        token = request.get("ClientToken")
        rules.client_token(token)
        wanted = {name: value for name, value in request.params.items() if name not in ("ClientToken", "Version")}
        if token and (request.region, token) in self._tokens and not request.flag("DryRun"):
            before, volume_id, answer = self._tokens[request.region, token]
            rules.same_request(before, wanted)
            return self._created_before(request.region, volume_id, answer)
        rules.tag_specifications(request, "volume")
        snapshot = size = None
        if request.get("SnapshotId"):
            record, _ = self._snapshot(request.region, request.get("SnapshotId"))
            snapshot = {"id": record.id, "state": record.life.state, "size": record.size}
            size = record.size
        rules.create_volume(request, self._zone_names(request.region), snapshot)
        if request.get("AvailabilityZoneId"):
            raise Ec2Error("UnsupportedOperation", "the bridge knows zones by name only")
        rules.dry_run(request)
        # moto takes a snapshot for as large as its volume is now.
        size = request.integer("Size") or size
        root = self._pass_on(request, Size=size, VolumeType=request.get("VolumeType") or "gp2")
        volume_id = text(root, "volumeId")
        life = self.world.machine(["creating", effect.get("becomes", "available")], ["volume.creating"], effect.get("takes"))
        volume = Volume(volume_id, request.region, self.world.timestamp(), life)
        volume.hidden = self._hidden(effect)
        self.world.volumes[volume_id] = volume
        self.world.images.create(volume_id, size, request.get("SnapshotId"))
        protocol.put(root, "status", "creating")
        protocol.put(root, "createTime", volume.created)
        answer = protocol.success("CreateVolume", content(root))
        if token:
            self._tokens[request.region, token] = (wanted, volume_id, answer)
        return answer

    def _created_before(self, region, volume_id, answer):
        """The same result; "the result might contain updated information, such as the current creation status". What comes when
        the volume was deleted meanwhile is not documented: the first answer again."""
        for volume, item in self.world.listed_volumes(region):
            if volume.id == volume_id:
                return protocol.success("CreateVolume", content(item))
        return answer

    def _hidden(self, effect):
        return Hold.parse(effect["hide"]).begin(self.world.clock.now()) if "hide" in effect else None

    def modify_volume(self, request, effect):
        volume, item = self._volume(request)
        rules.dry_run(request)
        now = self.world.clock.now()
        times = [modification.time for modification in volume.modifications]
        size = int(text(item, "size"))
        what = {"id": volume.id, "state": volume.state, "size": size, "type": text(item, "volumeType")}
        rules.modify_volume({**what, "modifying": volume.modifying, "modifications": times}, request, now)
        root = self._pass_on(request)
        kinds = ["volume.modifying", "volume.optimizing"]
        machine = self.world.machine(["modifying", "optimizing", "completed"], kinds, effect.get("takes"))
        volume.modifications.append(Modification(machine, now, size, request.integer("Size") or size))
        modification = root.find("volumeModification")
        self._show_modification(volume, modification)
        return protocol.success("ModifyVolume", [modification])

    def _show_modification(self, volume, item):
        machine = volume.modifications[-1].machine
        protocol.put(item, "modificationState", machine.state)
        protocol.put(item, "progress", str(machine.percent(self.world.clock.now())))
        if not machine.done and item.find("endTime") is not None:
            item.remove(item.find("endTime"))

    def delete_volume(self, request, _effect):
        volume, _ = self._volume(request)
        rules.dry_run(request)
        rules.delete_volume(volume.id, volume.state, volume.attachment and volume.attachment.instance)
        self._pass_on(request)
        # API DeleteVolume: "can remain in the deleting state for several minutes". Whether it is listed then is not said.
        self.world.listed_volumes(request.region)
        return protocol.success("DeleteVolume", [element("return", content="true")])

    # Snapshots

    def create_snapshot(self, request, effect):
        rules.tag_specifications(request, "snapshot")
        volume, item = self._volume(request)
        rules.dry_run(request)
        self.world.listed_snapshots(request.region)
        mine = [it for it in self.world.snapshots.values() if it.region == request.region and not it.is_copy]
        of_volume = sum(it.volume == volume.id and it.life.state in ("pending", "error") for it in mine)
        pending = sum(it.life.state == "pending" for it in mine)
        now = self.world.clock.now()
        what = {"id": volume.id, "state": volume.state, "type": text(item, "volumeType"), "last_snapshot": volume.last_snapshot}
        rules.create_snapshot(what, now, (of_volume, pending), self.world.limits)
        root = self._pass_on(request)
        snapshot_id = text(root, "snapshotId")
        # API CreateSnapshot: what "has been written to your Amazon EBS volume at the time the snapshot command is issued".
        self.world.images.take_snapshot(volume.id, snapshot_id)
        volume.last_snapshot = now
        self._add_snapshot(snapshot_id, request, effect, int(text(item, "size")), volume.id)
        self._show_started(root, snapshot_id)
        return protocol.success("CreateSnapshot", content(root))

    def _add_snapshot(self, snapshot_id, request, effect, size, volume_id, is_copy=False):
        states = ["pending", effect.get("becomes", "completed")]
        life = self.world.machine(states, ["snapshot.pending"], effect.get("takes"))
        snapshot = Snapshot(snapshot_id, request.region, size, self.world.timestamp(), life, volume_id, is_copy)
        snapshot.hidden = self._hidden(effect)
        self.world.snapshots[snapshot_id] = snapshot

    def _show_started(self, root, snapshot_id):
        snapshot = self.world.snapshots[snapshot_id]
        protocol.put(root, "status", "pending")
        # API CreateSnapshot, the example's answer: no progress yet.
        protocol.put(root, "progress", "")
        protocol.put(root, "startTime", snapshot.started)
        protocol.put(root, "volumeSize", str(snapshot.size))

    def copy_snapshot(self, request, effect):
        rules.required(request, "SourceRegion", "SourceSnapshotId")
        rules.tag_specifications(request, "snapshot")
        source, item = self._snapshot(request.get("SourceRegion"), request.get("SourceSnapshotId"))
        rules.dry_run(request)
        # https://docs.aws.amazon.com/ebs/latest/userguide/ebs-copy-snapshot.html: completed snapshots only. ERRORS, IncorrectState.
        if source.life.state != "completed":
            raise Ec2Error("IncorrectState", f"Snapshot is in invalid state - {source.life.state}")
        running = sum(
            it.is_copy and it.region == request.region and it.life.state == "pending" for it in self.world.snapshots.values()
        )
        # ERRORS, ResourceLimitExceeded: "too many snapshot copies in progress".
        if running >= CONCURRENT_COPIES:
            raise Ec2Error("ResourceLimitExceeded", "Too many snapshot copies in progress. The limit is 20 for this destination region.")
        if text(item, "encrypted") == "true" and not rules.is_presigned(request):
            effect = {**effect, "becomes": "error"}
        root = self._pass_on(request)
        snapshot_id = text(root, "snapshotId")
        self.world.images.copy_snapshot(source.id, snapshot_id)
        # API CopySnapshot: "copies have an arbitrary source volume ID".
        self._add_snapshot(snapshot_id, request, effect, source.size, "vol-ffffffff", is_copy=True)
        return protocol.success("CopySnapshot", content(root))

    def delete_snapshot(self, request, _effect):
        rules.required(request, "SnapshotId")
        snapshot, _ = self._snapshot(request.region, request.get("SnapshotId"))
        rules.dry_run(request)
        rules.delete_snapshot(snapshot.id, self.amis.users(request.region, snapshot.id))
        self._pass_on(request)
        self.restores.forget(snapshot.id)
        self.world.images.delete_snapshot(snapshot.id)
        del self.world.snapshots[snapshot.id]
        return protocol.success("DeleteSnapshot", [element("return", content="true")])
