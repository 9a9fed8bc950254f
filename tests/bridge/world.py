"""What the bridge knows beyond moto: the states that resources are in, their images and devices.

moto is asked for everything else each time, so whatever it did by itself (an Auto Scaling group's volumes) is seen too.
"""

import os
import time
from dataclasses import dataclass, field

import protocol
import rules
from devices import GIB, Images
from faults import check_device
from hotplug import MachineHost
from protocol import text
from states import Clock, Hold, Machine, SpecError, Timing
from sysfs import EBS_MODEL, INSTANCE_STORE_MODEL, Host


@dataclass
class Attachment:
    """Of a volume to an instance; there is none when it is detached."""

    instance: str
    device: str
    time: str
    machine: Machine
    detaching: bool = False
    force: bool = False
    # Detaching, but a filesystem on it is mounted.
    busy: bool = False
    # From `attached` until the kernel has the disk.
    appearing: Machine | None = None
    # What faults say of the disk.
    disk: dict = field(default_factory=dict)

    @property
    def state(self):
        return "busy" if self.busy else self.machine.state


@dataclass
class Modification:
    machine: Machine
    time: float
    original_size: int
    target_size: int


@dataclass
class Volume:
    id: str
    region: str
    created: str
    life: Machine
    attachment: Attachment | None = None
    modifications: list = field(default_factory=list)
    last_snapshot: float | None = None
    hidden: Hold | None = None

    @property
    def state(self):
        return "in-use" if self.attachment else self.life.state

    @property
    def modifying(self):
        return bool(self.modifications) and not self.modifications[-1].machine.done


@dataclass
class Snapshot:
    id: str
    region: str
    size: int
    started: str
    life: Machine
    # The ID that it is listed with.
    volume: str
    is_copy: bool = False
    hidden: Hold | None = None


class World:
    def __init__(self, directory, upstream):
        self.directory = directory
        self.upstream = upstream
        self.images = Images(directory)
        self.hosts = {}
        self.reset_settings()
        self.volumes = {}
        self.snapshots = {}

    def reset_settings(self):
        self.clock = Clock()
        self.timing = Timing()
        self.limits = {
            "snapshot_interval": rules.SNAPSHOT_INTERVAL,
            # `None`: by the volume's type.
            "concurrent_snapshots": None,
            "pending_snapshots": rules.PENDING_SNAPSHOTS,
            "page_size": None,
        }

    def reset(self):
        for host in self.hosts.values():
            host.destroy()
        self.hosts.clear()
        self.volumes.clear()
        self.snapshots.clear()
        self.images.reset()
        self.upstream.reset()
        self.reset_settings()

    def timestamp(self):
        """Now, as EC2 writes it, by the simulated clock's advances."""
        now = time.time() + self.clock.offset()
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"

    def machine(self, states, kinds, spec=None):
        """`spec`: how long the first state is held, if a fault says so."""
        holds = [self.timing.hold(kind, spec if number == 0 else None) for number, kind in enumerate(kinds)]
        return Machine(states, [Hold(hold.polls, hold.seconds) for hold in holds], self.clock.now())

    # Instances

    def instance(self, region, instance_id):
        """What moto knows of an instance, or `None`."""
        params = {"Filter.1.Name": "instance-id", "Filter.1.Value.1": instance_id}
        root = self.upstream.call(region, "DescribeInstances", params)
        for item in root.findall("reservationSet/item/instancesSet/item"):
            return {
                "id": instance_id,
                "region": region,
                "zone": text(item, "placement/availabilityZone"),
                "state": text(item, "instanceState/name"),
                "root": text(item, "rootDeviceName"),
                "type": text(item, "instanceType"),
                "image": text(item, "imageId"),
                "address": text(item, "privateIpAddress"),
                "devices": [text(it, "deviceName") for it in item.findall("blockDeviceMapping/item")],
            }
        return None

    def host(self, region, instance_id, layout="nitro", instance_store=0):
        """The instance's tree of disks, made when it is first asked for."""
        host = self.hosts.get(instance_id)
        if host is None:
            instance = self.instance(region, instance_id)
            rules.exists(instance, "instance", instance_id)
            kind = MachineHost if layout == "machine" else Host
            host = self.hosts[instance_id] = kind(f"{self.directory}/hosts", instance_id, instance["zone"], layout)
            for volume, _ in self.listed_volumes(region):
                attachment = volume.attachment
                if attachment and attachment.instance == instance_id and attachment.machine.state == "attached":
                    self._plug(volume)
            for number in range(instance_store):
                key = f"instance-store-{instance_id}-{number}"
                self.images.create(key, 1)
                host.add(key, self.images.attach(key, host), None, INSTANCE_STORE_MODEL, f"/dev/sd{'bcde'[number]}")
        return host

    def forget_terminated(self, region):
        """Takes the disks away from instances that are gone."""
        root = self.upstream.call(region, "DescribeInstances")
        alive = {
            text(item, "instanceId")
            for item in root.findall("reservationSet/item/instancesSet/item")
            if text(item, "instanceState/name") not in ("shutting-down", "terminated")
        }
        for volume in self.volumes.values():
            if volume.region == region and volume.attachment and volume.attachment.instance not in alive:
                self._unplug(volume)
        self.listed_volumes(region)
        for host in [it for it in self.hosts.values() if it.zone.startswith(region) and it.instance_id not in alive]:
            # What is left are its instance store disks.
            for key in host.disks:
                self.images.delete_volume(key)
            host.destroy()
            del self.hosts[host.instance_id]

    # Volumes and snapshots

    def listed_volumes(self, region):
        """(volume, element) of all, with the states they are in."""
        self.settle()
        root = self.upstream.call(region, "DescribeVolumes")
        listed = [(self._volume(region, item), item) for item in root.findall("volumeSet/item")]
        there = {volume.id for volume, _ in listed}
        for gone in [it.id for it in self.volumes.values() if it.region == region and it.id not in there]:
            self._forget(gone)
        for volume, item in listed:
            self._show_volume(volume, item)
        return listed

    def _volume(self, region, item):
        """The record of a volume; one that moto made by itself is ready at once."""
        volume_id = text(item, "volumeId")
        volume = self.volumes.get(volume_id)
        if volume is None:
            volume = Volume(volume_id, region, text(item, "createTime"), Machine(["available"], [], 0))
            self.volumes[volume_id] = volume
            self.images.create(volume_id, int(text(item, "size")), text(item, "snapshotId"))
            attached = item.find("attachmentSet/item")
            if attached is not None:
                instance, device, when = (text(attached, name) for name in ("instanceId", "device", "attachTime"))
                volume.attachment = Attachment(instance, device, when, Machine(["attached"], [], 0))
                volume.attachment.appearing = Machine(["present"], [], 0)
        return volume

    def _show_volume(self, volume, item):
        protocol.put(item, "status", volume.state)
        protocol.put(item, "createTime", volume.created)
        if item.find("multiAttachEnabled") is None:
            protocol.put(item, "multiAttachEnabled", "false")
        # https://docs.aws.amazon.com/ebs/latest/userguide/general-purpose.html: gp3's baseline.
        if text(item, "volumeType") == "gp3" and item.find("throughput") is None:
            protocol.put(item, "throughput", "125")
        # Size increases take effect once the modification reaches `optimizing`:
        # https://docs.aws.amazon.com/ebs/latest/userguide/monitoring-volume-modifications.html
        if volume.modifying and volume.modifications[-1].machine.state == "modifying":
            protocol.put(item, "size", str(volume.modifications[-1].original_size))
        kept = text(item, "attachmentSet/item/deleteOnTermination", "false")
        attachments = protocol.put(item, "attachmentSet", None)
        if volume.attachment:
            attachments.append(attachment_element(volume, "item", kept))

    def listed_snapshots(self, region):
        """(snapshot, element) of all, with the states they are in."""
        self.settle()
        root = self.upstream.call(region, "DescribeSnapshots")
        listed = []
        for item in root.findall("snapshotSet/item"):
            snapshot_id = text(item, "snapshotId")
            snapshot = self.snapshots.get(snapshot_id)
            if snapshot is None:
                life = Machine(["completed"], [], 0)
                size, started, volume = (text(item, name) for name in ("volumeSize", "startTime", "volumeId"))
                snapshot = Snapshot(snapshot_id, region, int(size), started, life, volume)
                self.snapshots[snapshot_id] = snapshot
            self._show_snapshot(snapshot, item)
            listed.append((snapshot, item))
        return listed

    def _show_snapshot(self, snapshot, item):
        protocol.put(item, "status", snapshot.life.state)
        percent = snapshot.life.percent(self.clock.now())
        protocol.put(item, "progress", f"{percent}%" if snapshot.life.state != "error" else "0%")
        protocol.put(item, "startTime", snapshot.started)
        protocol.put(item, "volumeSize", str(snapshot.size))
        protocol.put(item, "volumeId", snapshot.volume)

    def _forget(self, volume_id):
        volume = self.volumes.pop(volume_id)
        if volume.attachment:
            self._unplug(volume)
        self.images.delete_volume(volume_id)

    # Time

    def settle(self, force=False):
        """Lets everything whose time has come go on; `force`: everything."""
        now = self.clock.now()
        if force:
            for record in [*self.volumes.values(), *self.snapshots.values()]:
                record.hidden = None
        for volume in list(self.volumes.values()):
            for _ in volume.life.settle(now, force):
                pass
            for modification in volume.modifications:
                for state in modification.machine.settle(now, force):
                    if state == "optimizing":
                        self._grow(volume, modification.target_size)
            if volume.attachment:
                self._settle_attachment(volume, now, force)
        for snapshot in self.snapshots.values():
            for _ in snapshot.life.settle(now, force):
                pass

    def _settle_attachment(self, volume, now, force):
        attachment = volume.attachment
        if attachment.detaching:
            loop = self.images.loops.get(volume.id)
            # API DetachVolume: mounted, it is "stuck in the busy state while detaching".
            hold = loop.hold() if loop is not None and not attachment.force else None
            attachment.busy = hold == "busy"
            if hold is None:
                for _ in attachment.machine.settle(now, force):
                    self._unplug(volume)
            return
        for _ in attachment.machine.settle(now, force):
            hold = self.timing.hold("device.appearing").begin(now)
            attachment.appearing = Machine(["absent", "present"], [hold], now)
        if attachment.appearing:
            for _ in attachment.appearing.settle(now, force):
                self._plug(volume)

    def _plug(self, volume):
        attachment = volume.attachment
        host = self.host(volume.region, attachment.instance)
        if volume.id not in host.disks:
            loop = self.images.attach(volume.id, host)
            host.add(volume.id, loop, volume.id.replace("-", ""), EBS_MODEL, attachment.device)
            self._apply(volume.id, host, attachment.disk)

    def _unplug(self, volume):
        host = self.hosts.get(volume.attachment.instance)
        if host:
            host.remove(volume.id)
        self.images.fail_reads(volume.id, False)
        self.images.detach(volume.id)
        volume.attachment = None

    def _grow(self, volume, size):
        if size > self.image_size(volume.id):
            self.images.grow(volume.id, size)
        if volume.attachment and volume.attachment.instance in self.hosts:
            self.hosts[volume.attachment.instance].render()

    def image_size(self, volume_id):
        """In GiB."""
        return os.path.getsize(self.images.volume(volume_id)) // GIB

    # Faults of devices

    def change_disk(self, volume_id, spec):
        """What is wrong with the disk from now on."""
        check_device(spec)
        volume = self.volumes.get(volume_id)
        if volume is None or not volume.attachment:
            raise SpecError(f"{volume_id} is not attached")
        volume.attachment.disk.update(spec)
        host = self.hosts.get(volume.attachment.instance)
        if host and volume_id in host.disks:
            self._apply(volume_id, host, spec)

    def _apply(self, volume_id, host, spec):
        disk = host.disks[volume_id]
        for name in ("present", "serial", "model", "size", "namespace", "controller", "link_to"):
            if name in spec:
                setattr(disk, name, spec[name])
        if spec.get("partition_table"):
            # A disk label with one Linux partition: https://uefi.org/specs/UEFI/2.10/05_GUID_Partition_Table_Format.html
            entry = bytes([0, 0, 2, 0, 0x83, 0, 0, 0]) + (2048).to_bytes(4, "little") + (4096).to_bytes(4, "little")
            self.images.write(volume_id, 446, entry + bytes(48) + b"\x55\xaa")
        if "eio" in spec:
            self.images.fail_reads(volume_id, spec["eio"])
        host.render()


def attachment_element(volume, name, delete_on_termination="false"):
    attachment = volume.attachment
    values = {
        "volumeId": volume.id,
        "instanceId": attachment.instance,
        "device": attachment.device,
        "status": attachment.state,
        "attachTime": attachment.time,
        "deleteOnTermination": delete_on_termination,
    }
    return protocol.element(name, [protocol.element(key, content=value) for key, value in values.items()])
