"""What tests tell the bridge, and ask of it: JSON under `/_bridge/`. README.md describes each."""

import json

from imds import Metadata
from protocol import text
from states import SpecError


class Control:
    def __init__(self, bridge):
        self.bridge = bridge
        self.world = bridge.world
        self.metadata = {}
        self._routes = {
            ("POST", "reset"): self.reset,
            ("POST", "hosts"): self.launch,
            ("POST", "machines"): self.machine,
            ("POST", "imds"): self.imds,
            ("POST", "faults"): lambda spec: {"ids": self.bridge.faults.add(spec)},
            ("GET", "faults"): lambda _: [rule.describe() for rule in self.bridge.faults.rules],
            ("DELETE", "faults"): lambda _: self.bridge.faults.clear(),
            ("POST", "timing"): lambda spec: self.world.timing.set(spec),
            ("POST", "clock"): self.clock,
            ("POST", "limits"): self.limits,
            ("POST", "settle"): self.settle,
            ("GET", "calls"): lambda _: self.bridge.log.describe(),
            ("DELETE", "calls"): lambda _: self.bridge.log.clear(),
            ("GET", "state"): lambda _: self.state(),
            ("POST", "devices"): self.devices,
            ("POST", "states"): self.states,
            ("POST", "write"): self.write,
            ("POST", "call"): self.call,
        }

    def handle(self, method, path, body):
        """(status, JSON value)"""
        route = self._routes.get((method, path))
        if route is None:
            return 404, {"error": f"no {method} {path}"}
        try:
            spec = json.loads(body) if body else {}
            value = route(spec)
            return 200, {} if value is None else value
        except (SpecError, KeyError, TypeError, ValueError) as error:
            return 400, {"error": f"{type(error).__name__}: {error}"}

    def settle(self, _):
        self.world.settle(force=True)
        self.bridge.fleet.refreshes.settle(force=True)

    def reset(self, _):
        """As after the start."""
        self.stop()
        self.world.reset()
        self.bridge.templates.reset()
        self.bridge.cloud.reset()
        self.bridge.fleet.reset()
        self.bridge.faults.clear()
        self.bridge.log.clear()

    def stop(self):
        for metadata in self.metadata.values():
            metadata.stop()
        self.metadata.clear()

    def launch(self, spec):
        """`{zone, layout, instance_store, instance_type}`, or `{instance_id, region, …}` for an instance that is there."""
        zone = spec.get("zone", "us-east-1a")
        region = spec.get("region", zone[:-1])
        instance_id = spec.get("instance_id") or self._run(region, zone, spec.get("instance_type", "m5.large"))
        layout = spec.get("layout", "nitro")
        if layout not in ("nitro", "xen", "machine"):
            raise SpecError(f"no such layout: {layout}")
        host = self.world.host(region, instance_id, layout, spec.get("instance_store", 0))
        if instance_id not in self.metadata:
            instance = self.world.instance(region, instance_id)
            self.metadata[instance_id] = Metadata(instance, lambda: self.world.clock)
        return self._host(host, region)

    def _run(self, region, zone, instance_type):
        params = {
            "ImageId": "ami-12345678", "MinCount": "1", "MaxCount": "1", "InstanceType": instance_type,
            "Placement.AvailabilityZone": zone,
        }
        root = self.world.upstream.call(region, "RunInstances", params)
        return text(root, "instancesSet/item/instanceId")

    def _host(self, host, region):
        metadata = self.metadata.get(host.instance_id)
        return {
            "instance_id": host.instance_id,
            "zone": host.zone,
            "region": region,
            "layout": host.layout,
            "sysfs": host.sys,
            "dev": host.dev,
            "imds": metadata.url if metadata else None,
        }

    def machine(self, spec):
        """`{instance_id, monitor, slots}`: the machine was started and shall have its disks."""
        self.world.hosts[spec["instance_id"]].connect(spec["monitor"], spec["slots"])

    def imds(self, spec):
        """`{instance_id, mode, role, credentials}`"""
        self.metadata[spec.pop("instance_id")].set(**spec)

    def clock(self, spec):
        """`{advance, rate}`"""
        clock = self.world.clock
        if "rate" in spec:
            clock.set_rate(float(spec["rate"]))
        clock.advance(float(spec.get("advance", 0)))
        self.world.settle()
        return {"now": clock.now()}

    def limits(self, spec):
        unknown = set(spec) - set(self.world.limits)
        if unknown:
            raise SpecError(f"no such limit: {', '.join(sorted(unknown))}; there are {', '.join(self.world.limits)}")
        self.world.limits.update(spec)

    def state(self):
        """Everything that is there, in every region that was called."""
        world = self.world
        for region in {it.region for it in [*world.volumes.values(), *world.snapshots.values()]}:
            world.listed_volumes(region)
        return {
            "volumes": {it.id: self._volume(it) for it in world.volumes.values()},
            "snapshots": {
                it.id: {
                    "state": it.life.state, "size": it.size, "volume": it.volume, "region": it.region, "copy": it.is_copy,
                    "image": world.images.snapshot(it.id),
                }
                for it in world.snapshots.values()
            },
            "hosts": {
                it.instance_id: {
                    "zone": it.zone, "layout": it.layout, "sysfs": it.sys,
                    "disks": {key: disk.name(it.layout) for key, disk in it.disks.items()},
                }
                for it in world.hosts.values()
            },
            "loops": {key: {"node": loop.node, "dev": loop.numbers} for key, loop in world.images.loops.items()},
        }

    def _volume(self, volume):
        attachment = volume.attachment
        loop = self.world.images.loops.get(volume.id)
        return {
            "state": volume.state,
            "region": volume.region,
            "image": self.world.images.volume(volume.id),
            "size": self.world.image_size(volume.id),
            "device": loop and {"node": loop.node, "dev": loop.numbers},
            "attachment": attachment and {
                "instance": attachment.instance, "device": attachment.device, "state": attachment.state, "time": attachment.time,
            },
        }

    def devices(self, spec):
        """`{volume, …}`: what is wrong with its disk."""
        self.world.change_disk(spec.pop("volume"), spec)

    def states(self, spec):
        """`{id: state}`: the states that resources are in from now on."""
        for resource_id, state in spec.items():
            record = self.world.volumes.get(resource_id) or self.world.snapshots.get(resource_id)
            if record is None:
                raise SpecError(f"no {resource_id}")
            record.life.jump(state)

    def write(self, spec):
        """`{volume, offset, hex}`: writes to a volume past everything."""
        self.world.images.write(spec["volume"], spec["offset"], bytes.fromhex(spec["hex"]))

    def call(self, spec):
        """`{action, params, region, service}`: a call by somebody else: no faults, not in the log, all that takes time done."""
        params = {"Action": spec["action"], **spec.get("params", {})}
        answer = self.bridge.call_as_other(spec.get("service", "ec2"), spec.get("region", "us-east-1"), params)
        return {"status": answer.status, "code": answer.code, "body": answer.body.decode()}

