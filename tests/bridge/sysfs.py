"""What a host's kernel shows of its disks: a sysfs tree for each instance, whose `dev` files name real loop devices.

NVMe (Nitro): https://docs.aws.amazon.com/ebs/latest/userguide/identify-nvme-ebs-device.html: the serial number is the volume
ID without its dash, the model "Amazon Elastic Block Store"; instance store volumes have "Amazon EC2 NVMe Instance Storage".
Xen: https://docs.aws.amazon.com/ebs/latest/userguide/device_naming.html: `/dev/sdk` is the kernel's `xvdk`.
"""

import contextlib
import os
import shutil
import stat

from devices import Loop

EBS_MODEL = "Amazon Elastic Block Store"
INSTANCE_STORE_MODEL = "Amazon EC2 NVMe Instance Storage"


class Disk:
    """A disk as the tree shows it; faults change what is shown, never the device."""

    def __init__(self, controller, loop, serial, model, device):
        self.controller = controller
        self.loop = loop
        # `None`: there is none; `False`: reading it fails.
        self.serial = serial
        self.model = model
        # The name EC2 was told.
        self.device = device
        self.namespace = 1
        # In bytes, if not the device's.
        self.size = None
        self.present = True
        # The kernel's name that the by-id link points at, if not this disk's.
        self.link_to = None

    def shown_size(self):
        return self.loop.size() if self.size is None else self.size

    def name(self, layout):
        if layout == "xen":
            return xen_name(self.device)
        if layout == "machine":
            return self.loop.slot or ""
        return f"nvme{self.controller}n{self.namespace}"


def xen_name(device):
    """`/dev/sdk` → `xvdk`"""
    name = device.removeprefix("/dev/")
    return "xvd" + name[2:] if name.startswith("sd") else name


class Host:
    """An instance's tree of disks, in `<directory>/{sys,dev}`."""

    def __init__(self, directory, instance_id, zone, layout):
        self.instance_id = instance_id
        self.zone = zone
        self.layout = layout
        self.directory = os.path.join(directory, instance_id)
        self.sys = os.path.join(self.directory, "sys")
        self.dev = os.path.join(self.directory, "dev")
        # Volume ID (or another key) → disk.
        self.disks = {}
        # Kernel name → what is shown of it now.
        self._shown = {}
        self.render()

    def add(self, key, loop, serial, model, device):
        """A disk appears, under the lowest free number."""
        used = {disk.controller for disk in self.disks.values()}
        controller = next(number for number in range(len(used) + 1) if number not in used)
        disk = self.disks[key] = Disk(controller, loop, serial, model, device)
        self.render()
        return disk

    def attach(self, image, nodes):
        """The image as a device of this instance."""
        return Loop(image, nodes)

    def remove(self, key):
        if self.disks.pop(key, None):
            self.render()

    def render(self):
        """Shows the disks as they are: what changed is written beside the old and then swapped, so a reader sees a disk whole or
        not at all."""
        block = os.path.join(self.sys, "block")
        os.makedirs(block, exist_ok=True)
        os.makedirs(os.path.join(self.dev, "disk", "by-id"), exist_ok=True)
        wanted = {disk.name(self.layout): disk for disk in self.disks.values() if disk.present}
        for name in os.listdir(block):
            if name not in wanted:
                os.unlink(os.path.join(block, name))
                del self._shown[name]
        for name, disk in wanted.items():
            what = (disk.loop.numbers, disk.shown_size(), disk.serial, disk.model, disk.controller)
            if self._shown.get(name) != what:
                self._show(block, name, disk)
                self._shown[name] = what
        self._sweep(block)
        self._links(wanted)

    def _show(self, block, name, disk):
        # The directories of one name are numbered; the link in `block` is replaced in one step.
        generation = 0
        while os.path.exists(parent := os.path.join(self.sys, "devices", f"{name}.{generation}")):
            generation += 1
        target = (self._xen if self.layout == "xen" else self._nvme)(parent, name, disk)
        link = os.path.join(block, name)
        staged = os.path.join(self.sys, f".{name}")
        os.symlink(os.path.relpath(target, block), staged)
        os.replace(staged, link)

    def _nvme(self, parent, name, disk):
        controller = os.path.join(parent, "nvme", f"nvme{disk.controller}")
        directory = self._disk(os.path.join(controller, name), disk)
        _write(os.path.join(directory, "nsid"), f"{disk.namespace}\n")
        _write(os.path.join(controller, "model"), f"{disk.model}\n")
        if disk.serial is False:
            # A read of it fails, whoever reads.
            os.mkdir(os.path.join(controller, "serial"))
        elif disk.serial is not None:
            _write(os.path.join(controller, "serial"), f"{disk.serial}\n")
        os.symlink("..", os.path.join(directory, "device"))
        return directory

    def _xen(self, parent, name, disk):
        # linux/Documentation/admin-guide/devices.txt: 202 block, 16 minors to a disk.
        vbd = os.path.join(parent, f"vbd-{(202 << 8) + 16 * (ord(name[3]) - ord('a'))}")
        directory = self._disk(os.path.join(vbd, "block", name), disk)
        _write(os.path.join(vbd, "devtype"), "vbd\n")
        driver = os.path.join(self.sys, "bus", "xen", "drivers", "vbd")
        os.makedirs(driver, exist_ok=True)
        os.symlink(os.path.relpath(driver, vbd), os.path.join(vbd, "driver"))
        os.symlink("../..", os.path.join(directory, "device"))
        return directory

    def _disk(self, directory, disk):
        os.makedirs(directory)
        _write(os.path.join(directory, "dev"), f"{disk.loop.numbers}\n")
        if disk.loop.sequence:
            _write(os.path.join(directory, "diskseq"), f"{disk.loop.sequence}\n")
        _write(os.path.join(directory, "size"), f"{disk.shown_size() // 512}\n")
        _write(os.path.join(directory, "ro"), "0\n")
        return directory

    def _sweep(self, block):
        devices = os.path.join(self.sys, "devices")
        used = {os.path.realpath(os.path.join(block, name)) for name in os.listdir(block)}
        for name in os.listdir(devices) if os.path.isdir(devices) else []:
            path = os.path.realpath(os.path.join(devices, name))
            if not any(user.startswith(path + os.sep) for user in used):
                shutil.rmtree(path)

    def _links(self, wanted):
        """The devices' nodes, and what udev's rules make of the serials."""
        for name in os.listdir(self.dev):
            if not os.path.isdir(os.path.join(self.dev, name)):
                os.unlink(os.path.join(self.dev, name))
        for name, disk in wanted.items():
            # Where no nodes can be made nothing but a script misses them.
            with contextlib.suppress(PermissionError):
                os.mknod(os.path.join(self.dev, name), stat.S_IFBLK | 0o600, disk.loop.device)
        folder = os.path.join(self.dev, "disk", "by-id")
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        for name, disk in wanted.items():
            if self.layout == "nitro" and disk.serial:
                link = f"nvme-{disk.model.replace(' ', '_')}_{disk.serial}"
                os.symlink(f"../../{disk.link_to or name}", os.path.join(folder, link))

    def destroy(self):
        shutil.rmtree(self.directory, ignore_errors=True)


def _write(path, content):
    with open(path, "w", encoding="ascii") as file:
        file.write(content)
