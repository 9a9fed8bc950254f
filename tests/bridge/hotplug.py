"""Instances that are virtual machines (QEMU) with a kernel of their own: an attached volume is an NVMe disk that is plugged into a
PCIe slot while the machine runs, and unplugged when it is detached.

QMP: https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html
"""

import contextlib
import json
import os
import socket
import struct
import time

from sysfs import Host

# Of QEMU's NVMe device, which has no option for it.
QEMU_MODEL = "QEMU NVMe Ctrl"
# How long a kernel may take to let go of a disk until EC2 calls it busy, and is asked again.
LETS_GO_SECONDS = 10.0
# How long one may take on a busy machine.
GONE_SECONDS = 60.0
# Nothing that the monitor is asked takes long.
ANSWER_SECONDS = 20.0


class Off(Exception):
    """The machine does not run."""


class Monitor:
    """QEMU's side of a machine."""

    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(ANSWER_SECONDS)
        self._socket.connect(path)
        # The process that listens there.
        self._process = struct.unpack("3i", self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        self._answers = self._socket.makefile("rb")
        self._next()
        self.call("qmp_capabilities")

    def _next(self):
        line = self._answers.readline()
        if not line:
            raise Off
        return json.loads(line)

    def call(self, command, **arguments):
        """What QEMU answers; what it refuses is a RuntimeError."""
        try:
            self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
            while "event" in (answer := self._next()):
                pass
        except OSError as error:
            raise Off from error
        if "error" in answer:
            raise RuntimeError(f"{command} {arguments}: {answer['error']['desc']}")
        return answer["return"]

    def plug(self, disk, image, serial, model, slot):
        file = {"driver": "file", "filename": image}
        self.call("blockdev-add", **{"driver": "raw", "node-name": disk, "file": file})
        # Its driver shall not see it before it is what it shall be.
        running = self.call("query-status")["running"]
        self.call("stop")
        try:
            self.call("device_add", driver="nvme", id=disk, drive=disk, serial=serial, bus=slot)
            self._set_model(serial, model)
        finally:
            if running:
                self.call("cont")

    def unplug(self, disk):
        """Asks the machine's kernel to let go of it."""
        # It may have been asked already.
        with contextlib.suppress(RuntimeError):
            self.call("device_del", id=disk)

    def remove(self, disk):
        """Whether the machine's kernel has let go of it; then nothing is left of it here."""
        if any(it["name"] == disk for it in self.call("qom-list", path="/machine/peripheral")):
            return False
        try:
            self.call("blockdev-del", **{"node-name": disk})
        except RuntimeError:
            # The device itself is freed a moment later.
            return False
        return True

    def _set_model(self, serial, model):
        """Writes it to where QEMU keeps the controller's answer to Identify: NVM Express Base Specification, "Identify Controller
        Data Structure": 20 bytes of serial number, then 40 of model, both padded with spaces."""
        wanted = serial.encode().ljust(20) + QEMU_MODEL.encode().ljust(40)
        with open(f"/proc/{self._process}/maps", encoding="ascii") as maps, open(f"/proc/{self._process}/mem", "r+b", 0) as memory:
            for line in maps:
                if not line.endswith("[heap]\n"):
                    continue
                start, end = (int(number, 16) for number in line.split(" ", 1)[0].split("-"))
                found = os.pread(memory.fileno(), end - start, start).rfind(wanted)
                if found >= 0:
                    os.pwrite(memory.fileno(), model.encode().ljust(40), start + found + 20)
                    return
        raise RuntimeError(f"QEMU has no disk {serial} of model {QEMU_MODEL}")

    def close(self):
        self._answers.close()
        self._socket.close()


class MachineHost(Host):
    """An instance that is a machine; what disks it has is seen in its own kernel only."""

    def __init__(self, directory, instance_id, zone, layout):
        self.monitor = None
        super().__init__(directory, instance_id, zone, layout)

    def render(self):
        for disk in self.disks.values():
            disk.loop.show((disk.serial or "", disk.model) if disk.present else None)

    def attach(self, image, _nodes):
        return NvmeDisk(self, image)

    def connect(self, path, slots):
        """The machine was started and waits with its kernel until its disks are there."""
        self.power_off()
        self.monitor = Monitor(path)
        self._slots = slots
        for disk in self.disks.values():
            disk.loop.slot = disk.loop.shown = None
        self.render()
        self.monitor.call("cont")

    def power_off(self):
        if self.monitor:
            self.monitor.close()
        self.monitor = None

    def ask(self, question, *arguments):
        """What `Monitor.<question>` answers, or `None` if the machine is off."""
        try:
            return getattr(self.monitor, question)(*arguments) if self.monitor else None
        except Off:
            self.power_off()
            return None

    def free_slot(self):
        used = {disk.loop.slot for disk in self.disks.values()}
        free = [slot for slot in self._slots if slot not in used]
        if not free:
            raise RuntimeError(f"{self.instance_id} has no slot for another disk")
        return free[0]

    def destroy(self):
        self.power_off()
        super().destroy()


class NvmeDisk:
    """What `devices.Loop` is for instances on this machine."""

    # Nobody on this machine sees it as a device.
    numbers = ""
    sequence = None

    def __init__(self, host, image):
        self.host = host
        # Who writes past the machine writes to the image itself.
        self.node = image
        self.name = os.path.basename(image)
        self.slot = None
        # Serial number and model.
        self.shown = None
        self._asked = None

    def show(self, what):
        """It is in a slot as this, if the machine runs, or in none."""
        if what == self.shown or not self.host.monitor:
            return
        self.detach()
        self.shown, self._asked = what, None
        if what:
            self.slot = self.host.free_slot()
            self.host.ask("plug", self.name, self.node, *what, self.slot)

    def size(self):
        return os.path.getsize(self.node)

    def hold(self):
        """Asks the machine's kernel to let go of the disk; what keeps it from that."""
        if self.slot is None or self.host.ask("remove", self.name) is not False:
            self.slot = None
            return None
        now = time.monotonic()
        if self._asked is None:
            self._asked = now
            self.host.ask("unplug", self.name)
        if now - self._asked < LETS_GO_SECONDS:
            return "leaving"
        self._asked = None
        return "busy"

    def detach(self):
        """Waits until the machine's kernel has let go of it, but not for ever."""
        deadline = time.monotonic() + GONE_SECONDS
        while self.hold() and time.monotonic() < deadline:
            time.sleep(0.05)
