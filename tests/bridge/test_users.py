"""What can be asked of the users of snapshots: AMIs, fast restores, versions of all templates, pages of Auto Scaling."""

import unittest

from test_fleet import FleetTest, mapping, pinned


class Users(FleetTest):
    def setUp(self):
        super().setUp()
        volume = self.volume()
        self.first, self.second = (self.snapshot(volume) for _ in range(2))

    def image(self, *snapshots):
        mappings = [mapping(f"/dev/sd{letter}", it) for letter, it in zip("ab", snapshots)]
        return self.ec2.register_image(Name="an image", RootDeviceName="/dev/sda", BlockDeviceMappings=mappings)["ImageId"]

    def images(self, *snapshots):
        filters = [{"Name": "block-device-mapping.snapshot-id", "Values": list(snapshots)}]
        return [it["ImageId"] for it in self.ec2.describe_images(Owners=["self"], Filters=filters)["Images"]]

    def test_an_ami_keeps_its_snapshots(self):
        image = self.image(self.first, self.second)
        self.assertEqual((self.images(self.second), self.images("snap-00000000")), ([image], []))
        self.refused("InvalidSnapshot.InUse", lambda: self.ec2.delete_snapshot(SnapshotId=self.second), image)
        self.refused("InvalidSnapshot.NotFound", lambda: self.image("snap-00000000"))
        self.ec2.deregister_image(ImageId=image)
        self.assertEqual(self.images(self.second), [])
        self.ec2.delete_snapshot(SnapshotId=self.second)

    def test_a_filter_has_two_hundred_values(self):
        ids = [f"snap-{number:08x}" for number in range(201)]
        self.assertEqual(self.images(*ids[:200]), [])
        self.refused("FilterLimitExceeded", lambda: self.images(*ids))

    def restores(self, **filters):
        filters = [{"Name": name.replace("_", "-"), "Values": [value]} for name, value in filters.items()]
        pages = self.ec2.get_paginator("describe_fast_snapshot_restores").paginate(Filters=filters)
        found = [it for page in pages for it in page["FastSnapshotRestores"]]
        return [(it["SnapshotId"], it["AvailabilityZone"], it["State"]) for it in found]

    def test_fast_restore_is_of_a_snapshot_and_a_zone(self):
        zones = ["us-east-1a", "us-east-1b"]
        answer = self.ec2.enable_fast_snapshot_restores(AvailabilityZones=zones, SourceSnapshotIds=[self.first])
        self.assertEqual([it["State"] for it in answer["Successful"]], ["enabled"] * 2)
        self.limits(page_size=1)
        self.assertEqual(self.restores(), [(self.first, zone, "enabled") for zone in zones])
        off = {"AvailabilityZones": zones[:1], "SourceSnapshotIds": [self.first]}
        self.ec2.disable_fast_snapshot_restores(**off)
        self.assertEqual(self.restores(state="enabled", snapshot_id=self.first), [(self.first, zones[1], "enabled")])
        self.assertEqual(self.restores(snapshot_id=self.second), [])
        error = {"code": "Client.Some", "message": "it is not"}
        self.bridge.post("faults", {"action": "DisableFastSnapshotRestores", "effect": {"unsuccessful": error}})
        failed = self.ec2.disable_fast_snapshot_restores(**off)["Unsuccessful"][0]
        state = failed["FastSnapshotRestoreStateErrors"][0]
        self.assertEqual((failed["SnapshotId"], state["AvailabilityZone"]), (self.first, zones[0]))
        self.assertEqual(state["Error"], {"Code": "Client.Some", "Message": "it is not"})
        self.ec2.delete_snapshot(SnapshotId=self.first)
        self.assertEqual(self.restores(), [])

    def test_the_default_and_the_latest_versions_of_all_templates(self):
        chef = self.template(self.first)
        other = self.ec2.create_launch_template(LaunchTemplateName="other", LaunchTemplateData={"ImageId": "ami-12345678"})
        other = other["LaunchTemplate"]["LaunchTemplateId"]
        for _ in range(3):
            self.version(SourceVersion="1", LaunchTemplateData={})
        self.limits(page_size=2)
        pages = self.ec2.get_paginator("describe_launch_template_versions").paginate(Versions=["$Latest", "$Default"])
        found = [(it["LaunchTemplateId"], it["VersionNumber"]) for page in pages for it in page["LaunchTemplateVersions"]]
        self.assertEqual(sorted(found), sorted([(chef, 1), (chef, 4), (other, 1)]))
        self.limits(page_size=None)
        look = self.ec2.describe_launch_template_versions
        between = look(LaunchTemplateId=chef, MinVersion="1", MaxVersion="3")["LaunchTemplateVersions"]
        self.assertEqual([it["VersionNumber"] for it in between], [2, 3])
        self.refused("MissingParameter", lambda: look(Versions=["1"]))

    def test_auto_scaling_has_pages(self):
        template = self.template()
        for name in ("a", "b", "c"):
            self.group(name, **pinned(template, "1"))
            self.scaling.create_launch_configuration(LaunchConfigurationName=name, ImageId="ami-12345678", InstanceType="m5.large")
        self.limits(page_size=1)
        for action, key in (("describe_auto_scaling_groups", "AutoScalingGroups"), ("describe_launch_configurations", "LaunchConfigurations")):
            pages = [page[key] for page in self.scaling.get_paginator(action).paginate()]
            self.assertEqual([len(page) for page in pages], [1, 1, 1], action)


if __name__ == "__main__":
    unittest.main()
