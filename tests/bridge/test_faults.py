"""Every fault 1–27 that tests of the EC2 store inject, as a client sees it; and the metadata service."""

import http.client
import json
import os
import subprocess
import threading
import unittest
import urllib.error
import urllib.request
from urllib.parse import urlparse

from botocore.exceptions import ConnectionClosedError, ReadTimeoutError
from harness import BridgeTest, read


class Calls(BridgeTest):
    def fault(self, action, effect, **more):
        self.bridge.post("faults", {"action": action, "effect": effect, **more})

    def tagged(self):
        return [{"ResourceType": "snapshot", "Tags": [{"Key": "run", "Value": "1"}]}]

    def test_01_and_02_the_answer_is_lost_and_the_snapshot_not_seen_for_a_while(self):
        self.bridge.post("clock", {"rate": 0})
        volume = self.volume()
        self.fault("CreateSnapshot", {"drop-after": True, "hide": {"seconds": 30}})
        with self.assertRaises(ConnectionClosedError):
            self.snapshot(volume, TagSpecifications=self.tagged())

        def found():
            return self.ec2.describe_snapshots(Filters=[{"Name": "tag:run", "Values": ["1"]}])["Snapshots"]

        self.assertEqual(found(), [])
        self.bridge.post("clock", {"advance": 30})
        self.assertEqual(len(found()), 1)

    def test_03_the_answer_is_late(self):
        volume = self.volume()
        self.fault("CreateSnapshot", {"delay": 5})
        with self.assertRaises(ReadTimeoutError):
            self.bridge.client(read_timeout=0.2).create_snapshot(VolumeId=volume)
        self.assertEqual(len(self.ec2.describe_snapshots()["Snapshots"]), 1)

    def test_04_to_06_errors_as_often_as_wanted(self):
        volume = self.volume()
        error = {"code": "SnapshotCreationPerVolumeRateExceeded", "message": "Wait."}
        self.fault("CreateSnapshot", {"error": error}, times=3)
        self.fault("DescribeVolumes", {"error": {"status": 503, "code": "Unavailable", "message": "Busy."}}, nth=2, times=0)
        for _ in range(3):
            self.refused("SnapshotCreationPerVolumeRateExceeded", lambda: self.snapshot(volume), "Wait.")
        self.snapshot(volume)
        self.ec2.describe_volumes()
        for _ in range(5):
            self.refused("Unavailable", self.ec2.describe_volumes)
        self.bridge.control("DELETE", "faults")
        self.ec2.describe_volumes()

    def test_08_a_volume_goes_to_error(self):
        self.timing({"polls": 1})
        self.fault("CreateVolume", {"becomes": "error"})
        volume = self.volume()
        self.assertEqual([self.look(volume)["State"] for _ in range(2)], ["creating", "error"])
        self.refused("IncorrectState", lambda: self.snapshot(volume))
        self.ec2.delete_volume(VolumeId=volume)

    def test_09_states_run_backwards(self):
        volume, host = self.volume(), self.host()
        self.attach(volume, host)
        gone = {volume: {"status": "available", "attachmentSet": None}}
        self.fault("DescribeVolumes", {"override": gone}, nth=2)
        seen = [self.look(volume) for _ in range(3)]
        self.assertEqual([it["State"] for it in seen], ["in-use", "available", "in-use"])
        self.assertEqual([len(it["Attachments"]) for it in seen], [1, 0, 1])

    def test_09_a_look_sees_what_was_before_the_last_change(self):
        volume, host = self.volume(), self.host()
        self.fault("DescribeVolumes", "stale")
        self.attach(volume, host)
        self.assertEqual([self.look(volume)["State"] for _ in range(2)], ["available", "in-use"])

    def test_11_stuck_in_attaching_and_given_up(self):
        volume, host = self.volume(), self.host()
        self.fault("AttachVolume", {"takes": "never"})
        self.attach(volume, host)
        self.assertEqual({self.look(volume)["Attachments"][0]["State"] for _ in range(9)}, {"attaching"})
        self.assertIsNone(self.disk(host, volume))
        self.ec2.detach_volume(VolumeId=volume)
        self.assertEqual(self.look(volume)["State"], "available")

    def test_15_only_these_credentials_have_expired(self):
        expired = {"code": "RequestExpired", "message": "Request has expired."}
        self.fault("*", {"error": expired}, access_key="AKIAOLD", nth=2, times=0)
        old = self.bridge.client(key="AKIAOLD")
        old.describe_volumes()
        self.refused("RequestExpired", old.describe_volumes)
        self.ec2.describe_volumes()

    def test_16_a_multi_attach_volume(self):
        made = self.ec2.create_volume(AvailabilityZone="us-east-1a", Size=4, VolumeType="io2", Iops=100, MultiAttachEnabled=True)
        self.assertIs(self.look(made["VolumeId"])["MultiAttachEnabled"], True)

    def test_25_somebody_else_moves_the_volume_meanwhile(self):
        volume, one, other = self.volume(), self.host(), self.host()
        self.attach(volume, one)
        before = self.look(volume)["Attachments"][0]
        for action, params in (
            ("DetachVolume", {"VolumeId": volume}),
            ("AttachVolume", {"VolumeId": volume, "InstanceId": other["instance_id"], "Device": "/dev/sdk"}),
            ("DetachVolume", {"VolumeId": volume}),
            ("AttachVolume", {"VolumeId": volume, "InstanceId": one["instance_id"], "Device": "/dev/sdk"}),
        ):
            self.assertEqual(self.bridge.post("call", {"action": action, "params": params})["status"], 200)
        after = self.look(volume)["Attachments"][0]
        self.assertEqual(before["InstanceId"], after["InstanceId"])
        self.assertLess(before["AttachTime"], after["AttachTime"])
        self.assertNotIn("DetachVolume", self.bridge.get("calls")["counts"])

    def test_what_cannot_be_is_refused(self):
        for wrong in (
            {"action": "x"}, {"action": "x", "effect": "explode"}, {"action": "x", "effect": {"device": {"colour": 1}}},
            {"action": "x", "effect": {"takes": 3}}, {"action": "x", "effect": "drop", "often": 2},
        ):
            with self.assertRaises(urllib.error.HTTPError) as caught:
                self.bridge.post("faults", wrong)
            caught.exception.close()


class Disks(BridgeTest):
    def attached(self, **device):
        """A volume whose disk has this fault from the start, and its host."""
        host, volume = self.host(), self.volume()
        self.bridge.post("faults", {"action": "AttachVolume", "effect": {"device": device}})
        self.attach(volume, host)
        self.assertEqual(self.look(volume)["Attachments"][0]["State"], "attached")
        return host, volume

    def change(self, volume, **device):
        self.bridge.post("devices", {"volume": volume, **device})

    def test_18_it_never_appears(self):
        host, volume = self.attached(present=False)
        self.assertEqual(os.listdir(f"{host['sysfs']}/block"), ["nvme0n1"])
        self.change(volume, present=True)
        self.assertIsNotNone(self.disk(host, volume))

    def test_19_a_stale_link(self):
        host, volume = self.attached(link_to="nvme0n1")
        link = f"{host['dev']}/disk/by-id/nvme-Amazon_Elastic_Block_Store_{volume.replace('-', '')}"
        self.assertEqual(os.readlink(link), "../../nvme0n1")

    def test_20_the_serial_is_another_or_cannot_be_read(self):
        host, volume = self.attached(serial="vol0123456789abcdef0")
        self.assertIsNone(self.disk(host, volume))
        serial = f"{host['sysfs']}/block/nvme1n1/device/serial"
        self.assertEqual(read(serial), "vol0123456789abcdef0")
        self.change(volume, serial=False)
        with self.assertRaises(IsADirectoryError):
            read(serial)
        self.change(volume, serial=None)
        self.assertFalse(os.path.exists(serial))

    def test_22_and_23_another_namespace_and_no_size(self):
        host, volume = self.attached(namespace=2, size=0)
        self.assertEqual(os.path.basename(self.disk(host, volume)), "nvme1n2")
        self.assertEqual(read(self.disk(host, volume), "size"), "0")
        self.change(volume, size=None)
        self.assertEqual(read(self.disk(host, volume), "size"), str(1 << 21))

    def test_24_reads_fail(self):
        host, volume = self.host(), self.volume()
        self.bridge.post("write", {"volume": volume, "offset": 1024, "hex": "c0ffee"})
        self.bridge.post("faults", {"action": "AttachVolume", "effect": {"device": {"eio": True}}})
        self.attach(volume, host)
        with open(self.node(volume), "rb", buffering=0) as device:
            with self.assertRaises(OSError):
                device.read(4096)
            self.change(volume, eio=False)
            self.assertEqual(device.read(4096)[1024:1027], bytes.fromhex("c0ffee"))

    def test_26_a_partition_table(self):
        _, volume = self.attached(partition_table=True)
        kind = subprocess.run(["blkid", "-p", "-s", "PTTYPE", "-o", "value", self.node(volume)], check=True, capture_output=True)
        self.assertEqual(kind.stdout, b"dos\n")


class MetadataService(BridgeTest):
    def ask(self, host, method, path, **headers):
        connection = http.client.HTTPConnection(urlparse(host["imds"]).netloc, timeout=0.5)
        self.addCleanup(connection.close)
        connection.request(method, f"/latest/{path}", headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.read().decode()

    def token(self, host, seconds="60"):
        return self.ask(host, "PUT", "api/token", X_aws_ec2_metadata_token_ttl_seconds=seconds)

    def get(self, host, path, token):
        return self.ask(host, "GET", path, X_aws_ec2_metadata_token=token)

    def test_it_tells_who_asks_only_with_a_token(self):
        host = self.host(zone="eu-west-1b")
        self.assertEqual(self.ask(host, "GET", "meta-data/instance-id")[0], 401)
        self.assertEqual([self.ask(host, "PUT", "api/token")[0], self.token(host, "0")[0], self.token(host, "21601")[0]], [400] * 3)
        status, token = self.token(host)
        self.assertEqual(status, 200)
        self.assertEqual(self.get(host, "meta-data/instance-id", token), (200, host["instance_id"]))
        self.assertEqual(self.get(host, "meta-data/placement/availability-zone", token), (200, "eu-west-1b"))
        self.assertEqual(self.get(host, "meta-data/placement/", token), (200, "availability-zone\nregion"))
        document = json.loads(self.get(host, "dynamic/instance-identity/document", token)[1])
        self.assertEqual((document["region"], document["instanceId"]), ("eu-west-1", host["instance_id"]))
        self.assertEqual(self.get(host, "meta-data/nothing", token)[0], 404)
        self.assertEqual(self.get(self.host(), "meta-data/instance-id", token)[0], 401)
        self.bridge.post("clock", {"advance": 60})
        self.assertEqual(self.get(host, "meta-data/instance-id", token)[0], 401)

    def test_15_it_hands_out_credentials_of_a_role(self):
        host = self.host()
        token = self.token(host)[1]
        self.assertEqual(self.get(host, "meta-data/iam/security-credentials/", token)[0], 404)
        credentials = {"Code": "Success", "AccessKeyId": "ASIA1"}
        self.bridge.post("imds", {"instance_id": host["instance_id"], "role": "baker", "credentials": credentials})
        self.assertEqual(self.get(host, "meta-data/iam/security-credentials/", token), (200, "baker"))
        self.assertEqual(json.loads(self.get(host, "meta-data/iam/security-credentials/baker", token)[1]), credentials)

    def test_51_seen_from_a_container_and_otherwise_out_of_reach(self):
        host = self.host()

        def mode(name):
            self.bridge.post("imds", {"instance_id": host["instance_id"], "mode": name})

        mode("hop-limit")
        with self.assertRaises(TimeoutError):
            self.token(host)
        self.assertEqual(self.ask(host, "GET", "meta-data/instance-id")[0], 401)
        mode("disabled")
        self.assertEqual(self.token(host)[0], 403)
        mode("refuse")
        with self.assertRaises(ConnectionRefusedError):
            self.token(host)
        mode("reachable")
        self.assertEqual(self.token(host)[0], 200)


class Together(BridgeTest):
    def test_two_hosts_contend_for_one_volume_and_one_has_it(self):
        volume, hosts = self.volume(), [self.host(), self.host()]
        results = []

        def attach(host):
            try:
                results.append(self.attach(volume, host)["InstanceId"])
            except Exception as error:
                results.append(error.response["Error"]["Code"])

        threads = [threading.Thread(target=attach, args=(host,)) for host in hosts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(results.count("VolumeInUse"), 1)
        winner = self.look(volume)["Attachments"][0]["InstanceId"]
        self.assertIn(winner, results)


if __name__ == "__main__":
    unittest.main()
