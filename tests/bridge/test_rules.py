"""EC2's refusals, pages, filters and tokens, each through boto3."""

import unittest
import urllib.error
import urllib.request
from urllib.parse import urlencode

from botocore import UNSIGNED
from harness import BridgeTest


class Attaching(BridgeTest):
    def test_a_volume_is_attached_once(self):
        one, other = self.host(), self.host()
        volume = self.volume()
        self.attach(volume, one)
        message = f"{volume} is already attached to an instance"
        self.refused("VolumeInUse", lambda: self.attach(volume, other), message)
        self.refused("VolumeInUse", lambda: self.attach(volume, one), message)
        self.assertEqual(self.look(volume)["Attachments"][0]["InstanceId"], one["instance_id"])

    def test_a_name_is_taken_once_as_long_as_it_is(self):
        host = self.host()
        first, second = self.volume(), self.volume()
        self.attach(first, host)
        message = "Invalid value '/dev/sdk' for unixDevice. Attachment point /dev/sdk is already in use"
        self.refused("InvalidParameterValue", lambda: self.attach(second, host), message)
        self.timing({"polls": 1}, "volume.detaching")
        self.ec2.detach_volume(VolumeId=first)
        self.refused("InvalidParameterValue", lambda: self.attach(second, host), message)
        self.look(first), self.look(first)
        self.attach(second, host)

    def test_zones_must_match(self):
        host = self.host(zone="us-east-1b")
        self.refused("InvalidVolume.ZoneMismatch", lambda: self.attach(self.volume(), host))

    def test_a_terminated_instance_takes_nothing(self):
        host = self.host()
        self.ec2.terminate_instances(InstanceIds=[host["instance_id"]])
        self.refused("IncorrectState", lambda: self.attach(self.volume(), host), "is not 'running'")

    def test_what_is_not_there_is_not_found(self):
        host, volume = self.host(), self.volume()
        self.refused("InvalidVolume.NotFound", lambda: self.attach("vol-0123456789abcdef0", host))
        self.refused("InvalidInstanceID.NotFound", lambda: self.attach(volume, {"instance_id": "i-0123456789abcdef0"}))
        self.refused("InvalidParameterValue", lambda: self.attach("volume", host), "Expected: 'vol-...'")
        self.refused("InvalidInstanceID.Malformed", lambda: self.attach(volume, {"instance_id": "i-x"}))
        self.refused("InvalidParameterValue", lambda: self.attach(volume, host, "/dev/nvme1n1"), "not a valid EBS device name")

    def test_only_what_is_attached_is_detached(self):
        one, other = self.host(), self.host()
        volume = self.volume()
        self.refused("IncorrectState", lambda: self.ec2.detach_volume(VolumeId=volume), "is in the 'available' state")
        self.attach(volume, one)

        def detach(**more):
            return lambda: self.ec2.detach_volume(VolumeId=volume, **more)

        self.refused("InvalidAttachment.NotFound", detach(InstanceId=other["instance_id"]))
        self.refused("InvalidAttachment.NotFound", detach(Device="/dev/sdf"), "as device '/dev/sdf'")
        root = next(it for it, what in self.state()["volumes"].items() if what["attachment"]["device"] == "/dev/sda1")
        self.refused("OperationNotPermitted", lambda: self.ec2.detach_volume(VolumeId=root))
        self.timing("never", "volume.detaching")
        self.assertEqual([detach()()["State"], detach(Force=True)()["State"]], ["detaching", "detaching"])


class Volumes(BridgeTest):
    def test_sizes_and_limits_are_those_of_the_type(self):
        def create(**more):
            return lambda: self.ec2.create_volume(AvailabilityZone="us-east-1a", **more)

        for wrong in (
            {"Size": 0}, {"Size": 65537, "VolumeType": "gp3"}, {"Size": 100, "VolumeType": "st1"}, {"Size": 1, "VolumeType": "gp9"},
            {"Size": 1, "VolumeType": "gp3", "Iops": 2999}, {"Size": 1, "VolumeType": "gp3", "Throughput": 2001},
        ):
            self.refused("InvalidParameterValue", create(**wrong))
        for wrong in (
            {"Size": 1, "VolumeType": "gp2", "Iops": 3000}, {"Size": 1, "VolumeType": "gp3", "MultiAttachEnabled": True},
            {"Size": 1, "VolumeType": "gp3", "VolumeInitializationRate": 100}, {"Size": 1, "VolumeType": "gp2", "Throughput": 125},
            {"Size": 1, "AvailabilityZoneId": "use1-az1"},
        ):
            self.refused("InvalidParameterCombination", create(**wrong))
        self.refused("MissingParameter", create())
        self.refused("MissingParameter", create(Size=4, VolumeType="io2"), "iops")
        self.refused("MissingParameter", lambda: self.ec2.create_volume(Size=1))
        self.refused("InvalidZone.NotFound", lambda: self.volume(zone="us-east-1z"))
        self.assertEqual([it for it in self.state()["volumes"]], [])

    def test_a_volume_that_is_being_created_cannot_be_used(self):
        self.timing("never", "volume.creating")
        volume = self.volume()
        for call in (
            lambda: self.snapshot(volume), lambda: self.ec2.modify_volume(VolumeId=volume, Size=2),
            lambda: self.ec2.delete_volume(VolumeId=volume),
        ):
            self.refused("IncorrectState", call, "is in the 'creating' state")

    def test_a_snapshot_must_be_completed_and_fit(self):
        volume = self.volume(size=2)
        self.timing({"polls": 1}, "snapshot.pending")
        snapshot = self.snapshot(volume)
        self.refused("IncorrectState", lambda: self.volume(2, SnapshotId=snapshot), "Snapshot is in invalid state - pending")
        self.look_snapshot(snapshot), self.look_snapshot(snapshot)
        self.refused("InvalidParameterValue", lambda: self.volume(1, SnapshotId=snapshot), "expect size >= 2GB")
        # As large as the snapshot, whatever became of its volume.
        self.ec2.modify_volume(VolumeId=volume, Size=3)
        self.assertEqual(self.look_snapshot(snapshot)["VolumeSize"], 2)
        made = self.ec2.create_volume(AvailabilityZone="us-east-1a", SnapshotId=snapshot)
        self.assertEqual((made["Size"], made["State"]), (2, "creating"))
        self.refused("InvalidSnapshot.NotFound", lambda: self.volume(2, SnapshotId="snap-0123456789abcdef0"))

    def test_a_client_token_makes_one_volume(self):
        first = self.volume(ClientToken="token")
        self.assertEqual(self.volume(ClientToken="token"), first)
        self.refused("IdempotentParameterMismatch", lambda: self.volume(size=2, ClientToken="token"))
        self.assertNotEqual(self.volume(ClientToken="Token"), first)
        self.refused("InvalidParameterValue", lambda: self.volume(ClientToken="x" * 65))
        self.assertEqual(len(self.ec2.describe_volumes()["Volumes"]), 2)

    def test_a_volume_only_grows_and_not_at_will(self):
        volume = self.volume(size=2)
        self.refused("InvalidParameterValue", lambda: self.ec2.modify_volume(VolumeId=volume, Size=1), "smaller")
        for size in (3, 4, 5, 6):
            self.ec2.modify_volume(VolumeId=volume, Size=size)
        self.refused("VolumeModificationRateExceeded", lambda: self.ec2.modify_volume(VolumeId=volume, Size=7))
        self.bridge.post("clock", {"advance": 24 * 3600})
        self.ec2.modify_volume(VolumeId=volume, Size=7)

    def test_what_is_in_use_is_not_deleted(self):
        host, volume = self.host(), self.volume()
        self.attach(volume, host)
        message = f"Volume {volume} is currently attached to {host['instance_id']}"
        self.refused("VolumeInUse", lambda: self.ec2.delete_volume(VolumeId=volume), message)
        # moto makes a snapshot of its own for an image.
        image = self.ec2.register_image(Name="image", RootDeviceName="/dev/sda1")["ImageId"]
        described = self.ec2.describe_images(ImageIds=[image])["Images"][0]
        snapshot = described["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
        self.refused("InvalidSnapshot.InUse", lambda: self.ec2.delete_snapshot(SnapshotId=snapshot), image)
        self.ec2.deregister_image(ImageId=image)
        self.ec2.delete_snapshot(SnapshotId=snapshot)

    def test_tags_have_limits(self):
        def create(*tags):
            made = [{"Key": key, "Value": value} for key, value in tags]
            return lambda: self.volume(TagSpecifications=[{"ResourceType": "volume", "Tags": made}])

        for wrong in ([("", "v")], [("k" * 129, "")], [("k", "v" * 257)], [("aws:k", "")], [("k", "1"), ("k", "2")]):
            self.refused("InvalidParameterValue", create(*wrong))
        self.refused("TagLimitExceeded", create(*((str(number), "") for number in range(51))), "More than 50")
        other = [{"ResourceType": "snapshot", "Tags": [{"Key": "k", "Value": "v"}]}]
        self.refused("InvalidParameterValue", lambda: self.volume(TagSpecifications=other), "not a valid taggable resource type")
        self.assertEqual(self.look(create(("k" * 128, "ü" * 256))())["Tags"], [{"Key": "k" * 128, "Value": "ü" * 256}])


class Snapshots(BridgeTest):
    def test_there_are_15_seconds_between_snapshots_of_a_volume(self):
        self.bridge.post("clock", {"rate": 0})
        self.limits(snapshot_interval=15)
        volume = self.volume()
        self.snapshot(volume)
        self.snapshot(self.volume())
        self.bridge.post("clock", {"advance": 14})
        self.refused("SnapshotCreationPerVolumeRateExceeded", lambda: self.snapshot(volume))
        self.bridge.post("clock", {"advance": 1})
        self.snapshot(volume)

    def test_pending_snapshots_are_limited(self):
        self.timing("never", "snapshot.pending")
        volume = self.volume()
        for _ in range(5):
            self.snapshot(volume)
        self.refused("ConcurrentSnapshotLimitExceeded", lambda: self.snapshot(volume))
        self.limits(pending_snapshots=6)
        self.snapshot(self.volume())
        self.refused("PendingSnapshotLimitExceeded", lambda: self.snapshot(self.volume()))
        self.bridge.post("settle")
        self.snapshot(volume)

    def test_owners_are_looked_at(self):
        snapshot = self.snapshot(self.volume())

        def found(owner):
            return [it["SnapshotId"] for it in self.ec2.describe_snapshots(OwnerIds=[owner])["Snapshots"]]

        self.assertEqual([found("self"), found("123456789012")], [[snapshot], [snapshot]])
        self.assertEqual([found("amazon"), found("111111111111")], [[], []])

    def test_a_copy_in_another_region_has_the_bytes(self):
        volume = self.volume()
        self.bridge.post("write", {"volume": volume, "offset": 4096, "hex": "c0ffee"})
        snapshot = self.snapshot(volume)
        west = self.bridge.client(region="eu-west-1")
        self.timing({"polls": 1}, "snapshot.pending")
        copy = west.copy_snapshot(SourceRegion="us-east-1", SourceSnapshotId=snapshot)["SnapshotId"]
        seen = [west.describe_snapshots(SnapshotIds=[copy])["Snapshots"][0] for _ in range(2)]
        self.assertEqual([it["State"] for it in seen], ["pending", "completed"])
        self.assertEqual(seen[0]["VolumeId"], "vol-ffffffff")
        with open(self.state()["snapshots"][copy]["image"], "rb") as image:
            image.seek(4096)
            self.assertEqual(image.read(3), bytes.fromhex("c0ffee"))
        self.refused("InvalidSnapshot.NotFound", lambda: self.look_snapshot(copy))


class Looks(BridgeTest):
    def tagged(self, value):
        return self.volume(TagSpecifications=[{"ResourceType": "volume", "Tags": [{"Key": "name", "Value": value}]}])

    def test_pages_hold_everything_once(self):
        volumes = [self.volume() for _ in range(12)]
        pages = [self.ec2.describe_volumes(MaxResults=5)]
        while token := pages[-1].get("NextToken"):
            pages.append(self.ec2.describe_volumes(MaxResults=5, NextToken=token))
        self.assertEqual([len(page["Volumes"]) for page in pages], [5, 5, 2])
        self.assertEqual([it["VolumeId"] for page in pages for it in page["Volumes"]], volumes)
        self.limits(page_size=1)
        self.assertEqual(len(self.ec2.describe_volumes(MaxResults=100)["Volumes"]), 1)
        self.refused("InvalidParameterValue", lambda: self.ec2.describe_volumes(MaxResults=4), "greater than 5")
        both = {"MaxResults": 5, "VolumeIds": volumes[:1]}
        self.refused("InvalidParameterCombination", lambda: self.ec2.describe_volumes(**both), "volumeSet")
        self.refused("InvalidPaginationToken", lambda: self.ec2.describe_volumes(MaxResults=5, NextToken="x"))

    def test_filters_are_those_of_the_document(self):
        host = self.host()
        one, two = self.tagged("a*b"), self.tagged("axb")
        self.attach(one, host)

        def found(**filters):
            names = {name: name.replace("__", ":").replace("_", "-").replace("1", ".") for name in filters}
            wanted = [{"Name": names[name], "Values": values} for name, values in filters.items()]
            return [it["VolumeId"] for it in self.ec2.describe_volumes(Filters=wanted)["Volumes"]]

        self.assertEqual(found(tag__name=["a*b"]), [one, two])
        self.assertEqual(found(tag__name=["a\\*b"]), [one])
        self.assertEqual(found(tag_key=["name"], status=["available"]), [two])
        self.assertEqual(found(attachment1instance_id=[host["instance_id"]], attachment1device=["/dev/sdk"]), [one])
        self.assertEqual(found(availability_zone=["us-east-1a"], volume_type=["gp3"], tag__name=["axb", "none"]), [two])
        self.assertEqual(found(tag__name=["A*B"]), [])
        self.refused("InvalidParameterValue", lambda: found(name=["x"]), "The filter 'name' is invalid")

    def test_a_dry_run_does_nothing(self):
        host, volume = self.host(), self.volume()
        snapshot = self.snapshot(volume)
        instance = host["instance_id"]
        before = self.state()

        def passes(action, **params):
            response = self.refused("DryRunOperation", lambda: getattr(self.ec2, action)(DryRun=True, **params))
            self.assertEqual(response["ResponseMetadata"]["HTTPStatusCode"], 412)
            message = "Request would have succeeded, but DryRun flag is set."
            self.assertEqual(response["Error"]["Message"], message)

        passes("create_snapshot", VolumeId=volume)
        passes("create_volume", AvailabilityZone="us-east-1a", Size=1, ClientToken="dry")
        passes("attach_volume", VolumeId=volume, InstanceId=instance, Device="/dev/sdk")
        # Not its state: the volume is attached nowhere.
        passes("detach_volume", VolumeId=volume, InstanceId=instance)
        passes("modify_volume", VolumeId=volume, Size=2)
        passes("delete_volume", VolumeId=volume)
        passes("delete_snapshot", SnapshotId=snapshot)
        passes("copy_snapshot", SourceRegion="us-east-1", SourceSnapshotId=snapshot)
        passes("terminate_instances", InstanceIds=[instance])
        for action in ("describe_volumes", "describe_snapshots", "describe_volumes_modifications", "describe_instances"):
            passes(action)
        self.assertEqual(self.state(), before)
        self.volume(ClientToken="dry")

    def test_a_dry_run_is_refused_for_what_is_wrong_in_it(self):
        volume, unknown = self.volume(), "vol-0123456789abcdef0"
        dry = {"DryRun": True}
        self.refused("InvalidVolume.NotFound", lambda: self.ec2.create_snapshot(VolumeId=unknown, **dry))
        self.refused("InvalidZone.NotFound", lambda: self.volume(zone="us-east-1z", **dry))
        denied = {"status": 403, "code": "UnauthorizedOperation", "message": "No."}
        self.bridge.post("faults", {
            "action": "CreateSnapshot", "times": 0, "match": {"DryRun": "true"}, "effect": {"error": denied},
        })
        self.refused("UnauthorizedOperation", lambda: self.ec2.create_snapshot(VolumeId=volume, **dry))
        self.snapshot(volume)

    def test_instances_show_the_states_of_their_volumes(self):
        host, volume = self.host(), self.volume()
        self.timing({"polls": 1}, "volume.attaching")
        self.attach(volume, host)
        instance = self.ec2.describe_instances(InstanceIds=[host["instance_id"]])["Reservations"][0]["Instances"][0]
        mapped = {it["DeviceName"]: it["Ebs"]["Status"] for it in instance["BlockDeviceMappings"]}
        self.assertEqual(mapped, {"/dev/sda1": "attached", "/dev/sdk": "attaching"})
        unknown = "i-0123456789abcdef0"
        self.refused("InvalidInstanceID.NotFound", lambda: self.ec2.describe_instances(InstanceIds=[unknown]))

    def test_parameters_are_those_of_the_action(self):
        self.assertIn("UnknownParameter", self.raw("AttachVolume", VolumeID="vol-0123456789abcdef0"))
        self.assertIn("must contain the parameter instanceId", self.raw("AttachVolume", VolumeId=self.volume()))

    def raw(self, action, **params):
        """A call as no client would send it."""
        scope = "AWS4-HMAC-SHA256 Credential=A/20200101/us-east-1/ec2/aws4_request, SignedHeaders=host, Signature=0"
        body = urlencode({"Action": action, **params}).encode()
        request = urllib.request.Request(self.bridge.info["api"], body, {"Authorization": scope})
        with self.assertRaises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=60)
        with caught.exception as answer:
            return answer.read().decode()

    def test_a_web_identity_gets_credentials_without_having_any(self):
        sts = self.bridge.client("sts", signature_version=UNSIGNED)
        given = {"RoleArn": "arn:aws:iam::123456789012:role/baker", "RoleSessionName": "run", "WebIdentityToken": "token"}
        key = sts.assume_role_with_web_identity(**given)["Credentials"]["AccessKeyId"]
        self.assertEqual(self.bridge.client(key=key).describe_volumes()["Volumes"], [])
        error = {"code": "InvalidIdentityToken", "message": "No."}
        self.bridge.post("faults", {"action": "AssumeRoleWithWebIdentity", "effect": {"error": error}})
        self.refused("InvalidIdentityToken", lambda: sts.assume_role_with_web_identity(**given))

    def test_other_services_are_moto_s(self):
        self.assertEqual(self.bridge.client("sts").get_caller_identity()["Account"], "123456789012")
        ssm = self.bridge.client("ssm")
        ssm.put_parameter(Name="/latest", Value="snap-1", Type="String")
        self.assertEqual(ssm.get_parameter(Name="/latest")["Parameter"]["Value"], "snap-1")
        actions = [call["action"] for call in self.bridge.get("calls")["calls"]]
        self.assertEqual(actions, ["GetCallerIdentity", "PutParameter", "GetParameter"])


if __name__ == "__main__":
    unittest.main()
