"""A running bridge for the bridge's own tests, and boto3 as a client that others wrote."""

import functools
import json
import os
import subprocess
import sys
import unittest
import urllib.error
import urllib.request

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

HERE = os.path.dirname(os.path.abspath(__file__))


class Bridge:
    def __init__(self):
        command = [sys.executable, os.path.join(HERE, "bridge.py")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.info = json.loads(self.process.stdout.readline())

    def control(self, method, path, value=None):
        data = None if value is None else json.dumps(value).encode()
        request = urllib.request.Request(f"{self.info['control']}/{path}", data, method=method)
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    def post(self, path, value=None):
        return self.control("POST", path, {} if value is None else value)

    def get(self, path):
        return self.control("GET", path)

    @functools.cache  # Loading the model of EC2 takes most of a second.
    def client(self, service="ec2", region="us-east-1", key="AKIATEST", **options):
        config = Config(retries={"max_attempts": 0}, **options)
        url = self.info["api"]
        return boto3.client(
            service, region_name=region, endpoint_url=url, aws_access_key_id=key, aws_secret_access_key="x", config=config
        )

    def stop(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(60)


@unittest.skipIf(os.geteuid() != 0, "loop devices need root")
class BridgeTest(unittest.TestCase):
    """Each test has the bridge as after its start, with states that are over at once."""

    @classmethod
    def setUpClass(cls):
        cls.bridge = Bridge()
        cls.addClassCleanup(cls.bridge.stop)

    def setUp(self):
        self.bridge.post("reset")
        self.ec2 = self.bridge.client()
        self.timing({"polls": 0})
        self.limits(snapshot_interval=0)

    def timing(self, spec, *kinds):
        kinds = kinds or [
            "volume.creating", "volume.attaching", "volume.detaching", "volume.modifying", "volume.optimizing", "snapshot.pending",
        ]
        self.bridge.post("timing", {kind: spec for kind in kinds})

    def limits(self, **limits):
        self.bridge.post("limits", limits)

    def host(self, **spec):
        return self.bridge.post("hosts", spec)

    def volume(self, size=1, zone="us-east-1a", **more):
        return self.ec2.create_volume(AvailabilityZone=zone, Size=size, VolumeType="gp3", **more)["VolumeId"]

    def attach(self, volume, host, device="/dev/sdk"):
        return self.ec2.attach_volume(VolumeId=volume, InstanceId=host["instance_id"], Device=device)

    def snapshot(self, volume, **more):
        return self.ec2.create_snapshot(VolumeId=volume, **more)["SnapshotId"]

    def look(self, volume):
        return self.ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]

    def look_snapshot(self, snapshot):
        return self.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]

    def state(self):
        return self.bridge.get("state")

    def refused(self, code, call, message=None):
        """The call must fail with this code, and with this in its message."""
        with self.assertRaises(ClientError) as caught:
            call()
        self.assertEqual(caught.exception.response["Error"]["Code"], code)
        if message:
            self.assertIn(message, caught.exception.response["Error"]["Message"])
        return caught.exception.response

    def disk(self, host, volume):
        """The directory of a volume's disk in its host's sysfs, or `None`."""
        block = os.path.join(host["sysfs"], "block")
        for name in os.listdir(block):
            try:
                if read(block, name, "device", "serial") == volume.replace("-", ""):
                    return os.path.join(block, name)
            except OSError:
                continue
        return None

    def node(self, volume):
        return self.state()["volumes"][volume]["device"]["node"]


def read(*path):
    with open(os.path.join(*path), encoding="utf-8") as file:
        return file.read().strip()
