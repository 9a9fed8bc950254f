"""What the bridge does to devices, and that states take their time. Run with the Python of the virtual environment:
python -m unittest discover -s tests/bridge"""

import os
import signal
import subprocess
import time
import unittest
import urllib.request

from harness import Bridge, BridgeTest, read


class Devices(BridgeTest):
    def test_an_attached_volume_is_a_disk_with_its_serial(self):
        host = self.host(zone="us-east-1a")
        volume = self.volume(size=3)
        self.assertEqual(self.attach(volume, host)["State"], "attaching")
        disk = self.disk(host, volume)
        self.assertEqual(os.path.basename(disk), "nvme1n1")
        self.assertEqual(read(disk, "device", "model"), "Amazon Elastic Block Store")
        self.assertEqual(read(disk, "size"), str(3 << 21))
        number = os.stat(self.node(volume)).st_rdev
        self.assertEqual(read(disk, "dev"), f"{os.major(number)}:{os.minor(number)}")
        self.assertTrue(os.path.islink(f"{host['dev']}/disk/by-id/nvme-Amazon_Elastic_Block_Store_{volume.replace('-', '')}"))
        self.ec2.detach_volume(VolumeId=volume)
        self.assertIsNone(self.disk(host, volume))
        self.assertIsNone(self.state()["volumes"][volume]["device"])

    def test_a_host_has_its_root_and_instance_store_disks(self):
        host = self.host(instance_store=1)
        block = f"{host['sysfs']}/block"
        self.assertEqual(sorted(os.listdir(block)), ["nvme0n1", "nvme1n1"])
        self.assertEqual(read(block, "nvme1n1", "device", "model"), "Amazon EC2 NVMe Instance Storage")
        self.assertFalse(os.path.exists(f"{block}/nvme1n1/device/serial"))

    def test_a_xen_host_names_disks_as_the_api_does(self):
        host = self.host(layout="xen")
        volume = self.volume()
        self.attach(volume, host)
        disk = f"{host['sysfs']}/block/xvdk"
        self.assertEqual(os.path.basename(os.path.realpath(f"{disk}/device/driver")), "vbd")
        self.assertIn("vbd-51872", os.path.realpath(disk))
        number = os.stat(self.node(volume)).st_rdev
        self.assertEqual(read(disk, "dev"), f"{os.major(number)}:{os.minor(number)}")

    def test_a_snapshot_has_the_bytes_of_its_moment_on_a_real_filesystem(self):
        host = self.host()
        volume = self.volume()
        self.attach(volume, host)
        node = self.node(volume)
        subprocess.run(["mkfs.ext4", "-q", node, "64M"], check=True)
        debugfs(node, "write /etc/hostname one")
        snapshot = self.snapshot(volume)
        debugfs(node, "write /etc/hostname two")
        image = self.state()["snapshots"][snapshot]["image"]
        self.assertIn("one", debugfs(image, "ls -p /"))
        self.assertNotIn("two", debugfs(image, "ls -p /"))
        # Sparse: no more than was written.
        self.assertLess(os.stat(image).st_blocks * 512, 16 << 20)

        copy = self.ec2.create_volume(AvailabilityZone="us-east-1b", SnapshotId=snapshot, Size=2, VolumeType="gp3")["VolumeId"]
        other = self.host(zone="us-east-1b")
        self.attach(copy, other)
        self.assertIn("one", debugfs(self.node(copy), "ls -p /"))
        self.assertEqual(read(self.disk(other, copy), "size"), str(2 << 21))
        self.assertEqual(self.look(copy)["SnapshotId"], snapshot)

    def test_an_instance_launched_from_a_snapshot_has_its_bytes(self):
        volume = self.volume(size=2)
        self.bridge.post("write", {"volume": volume, "offset": 4096, "hex": "c0ffee"})
        mapping = [{"DeviceName": "/dev/sdk", "Ebs": {"SnapshotId": self.snapshot(volume)}}]
        placement = {"AvailabilityZone": "us-east-1a"}
        run = self.ec2.run_instances(
            ImageId="ami-12345678", MinCount=1, MaxCount=1, Placement=placement, BlockDeviceMappings=mapping
        )["Instances"][0]["InstanceId"]
        host = self.host(instance_id=run, region="us-east-1")
        made = next(it for it, what in self.state()["volumes"].items() if (what["attachment"] or {}).get("device") == "/dev/sdk")
        self.assertEqual(read(self.disk(host, made), "size"), str(2 << 21))
        with open(self.node(made), "rb") as device:
            device.seek(4096)
            self.assertEqual(device.read(3), bytes.fromhex("c0ffee"))

    def test_a_grown_volume_is_larger_once_it_is_optimizing(self):
        host = self.host()
        volume = self.volume()
        self.attach(volume, host)
        self.timing({"polls": 1}, "volume.modifying", "volume.optimizing")
        self.assertEqual(self.ec2.modify_volume(VolumeId=volume, Size=2)["VolumeModification"]["ModificationState"], "modifying")
        self.assertEqual(self.look(volume)["Size"], 1)
        self.refused("IncorrectModificationState", lambda: self.ec2.modify_volume(VolumeId=volume, Size=3))

        def state():
            return self.ec2.describe_volumes_modifications(VolumeIds=[volume])["VolumesModifications"][0]["ModificationState"]

        self.assertEqual([state(), state(), state()], ["modifying", "optimizing", "completed"])
        self.assertEqual(read(self.disk(host, volume), "size"), str(2 << 21))
        with open(self.node(volume), "rb") as device:
            self.assertEqual(device.seek(0, os.SEEK_END), 2 << 30)

    def test_a_mounted_volume_stays_busy_until_it_is_unmounted(self):
        host = self.host()
        volume = self.volume()
        self.attach(volume, host)
        node = self.node(volume)
        subprocess.run(["mkfs.ext4", "-q", node, "64M"], check=True)
        command = ["unshare", "--mount", "sh", "-c", 'mount "$1" /mnt && echo ready && read line', "sh", node]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as mounted:
            self.addCleanup(mounted.kill)
            self.assertEqual(mounted.stdout.readline(), b"ready\n")
            self.ec2.detach_volume(VolumeId=volume)
            self.assertEqual(self.look(volume)["Attachments"][0]["State"], "busy")
            mounted.communicate(b"\n")
        deadline = time.monotonic() + 30
        while self.look(volume)["State"] != "available":
            self.assertLess(time.monotonic(), deadline)
        self.assertIsNone(self.disk(host, volume))

    def test_deleted_things_leave_no_files(self):
        volume = self.volume()
        snapshot = self.snapshot(volume)
        images = [self.state()["volumes"][volume]["image"], self.state()["snapshots"][snapshot]["image"]]
        self.assertTrue(all(map(os.path.exists, images)))
        self.ec2.delete_volume(VolumeId=volume)
        self.ec2.delete_snapshot(SnapshotId=snapshot)
        self.assertFalse(any(map(os.path.exists, images)))
        self.refused("InvalidVolume.NotFound", lambda: self.look(volume))

    def test_a_terminated_instance_lets_go_of_its_volumes(self):
        host = self.host(instance_store=1)
        volume = self.volume()
        self.attach(volume, host)
        self.ec2.terminate_instances(InstanceIds=[host["instance_id"]])
        self.assertEqual(self.look(volume)["State"], "available")
        self.assertEqual(self.state()["loops"], {})
        self.ec2.delete_volume(VolumeId=volume)


class States(BridgeTest):
    def test_each_state_is_seen_as_often_as_it_is_told(self):
        host = self.host()
        self.timing({"polls": 2})
        volume = self.volume()
        self.refused("IncorrectState", lambda: self.attach(volume, host), "is not 'available'")
        self.assertEqual([self.look(volume)["State"] for _ in range(3)], ["creating", "creating", "available"])
        self.attach(volume, host)
        self.assertIsNone(self.disk(host, volume))
        states = [self.look(volume)["Attachments"][0]["State"] for _ in range(3)]
        self.assertEqual(states, ["attaching", "attaching", "attached"])
        self.assertIsNotNone(self.disk(host, volume))
        snapshot = self.snapshot(volume)
        seen = [self.look_snapshot(snapshot) for _ in range(3)]
        self.assertEqual([it["State"] for it in seen], ["pending", "pending", "completed"])
        self.assertEqual([it["Progress"] for it in seen], ["0%", "33%", "100%"])
        self.ec2.detach_volume(VolumeId=volume)
        seen = [self.look(volume) for _ in range(3)]
        self.assertEqual([it["State"] for it in seen], ["in-use", "in-use", "available"])
        self.assertEqual(seen[1]["Attachments"][0]["State"], "detaching")

    def test_a_filter_by_state_does_not_stop_time(self):
        volume = self.volume()
        self.timing({"polls": 1}, "snapshot.pending")
        self.snapshot(volume)
        completed = [{"Name": "status", "Values": ["completed"]}]
        self.assertEqual(len(self.ec2.describe_snapshots(Filters=completed)["Snapshots"]), 0)
        self.assertEqual(len(self.ec2.describe_snapshots(Filters=completed)["Snapshots"]), 1)

    def test_seconds_are_those_of_the_clock(self):
        self.bridge.post("clock", {"rate": 0})
        volume = self.volume()
        self.timing({"seconds": 100}, "snapshot.pending")
        snapshot = self.snapshot(volume)
        self.bridge.post("clock", {"advance": 40})
        self.assertEqual(self.look_snapshot(snapshot)["Progress"], "40%")
        self.bridge.post("clock", {"advance": 60})
        self.assertEqual(self.look_snapshot(snapshot)["State"], "completed")

    def test_a_device_appears_by_itself_when_its_time_has_come(self):
        host = self.host()
        self.timing({"seconds": 0.2}, "device.appearing")
        volume = self.volume()
        self.attach(volume, host)
        self.assertEqual(self.look(volume)["Attachments"][0]["State"], "attached")
        deadline = time.monotonic() + 30
        while self.disk(host, volume) is None:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)

    def test_what_is_never_over_ends_when_it_is_settled(self):
        host = self.host()
        self.timing("never", "volume.attaching")
        volume = self.volume()
        self.attach(volume, host)
        self.bridge.post("clock", {"advance": 1e6})
        self.assertEqual({self.look(volume)["Attachments"][0]["State"] for _ in range(5)}, {"attaching"})
        self.bridge.post("settle")
        self.assertEqual(self.look(volume)["Attachments"][0]["State"], "attached")


@unittest.skipIf(os.geteuid() != 0, "loop devices need root")
class Life(unittest.TestCase):
    def running(self):
        bridge = Bridge()
        self.addCleanup(bridge.process.wait)
        self.addCleanup(bridge.process.kill)
        self.addCleanup(bridge.process.stdout.close)
        host = bridge.post("hosts", {"zone": "us-east-1a"})
        loops = [loop["dev"] for loop in bridge.get("state")["loops"].values()]
        self.assertTrue(loops and os.path.isdir(host["sysfs"]))
        return bridge, loops

    def assert_gone(self, bridge, loops):
        deadline = time.monotonic() + 30
        while os.path.exists(bridge.info["state"]) or any(is_ours(bridge, dev) for dev in loops):
            self.assertLess(time.monotonic(), deadline, "something is left")
            time.sleep(0.02)
        for url in (bridge.info["api"], bridge.info["moto"]):
            with self.assertRaises(OSError):
                urllib.request.urlopen(url, timeout=5)

    def test_ends_with_its_parent(self):
        bridge, loops = self.running()
        bridge.process.stdin.close()
        self.assertEqual(bridge.process.wait(30), 0)
        self.assert_gone(bridge, loops)

    def test_killed_it_leaves_nothing_either(self):
        bridge, loops = self.running()
        bridge.process.send_signal(signal.SIGKILL)
        bridge.process.wait(30)
        bridge.process.stdin.close()
        self.assert_gone(bridge, loops)


def is_ours(bridge, dev):
    try:
        return read("/sys/dev/block", dev, "loop", "backing_file").startswith(bridge.info["state"])
    except OSError:
        return False


def debugfs(image, command):
    return subprocess.run(["debugfs", "-w", "-R", command, image], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    unittest.main()
