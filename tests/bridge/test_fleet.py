"""Launch templates and Auto Scaling, through boto3."""

import unittest

from harness import BridgeTest

USER_DATA = "aGVsbG8="


class FleetTest(BridgeTest):
    def setUp(self):
        super().setUp()
        self.scaling = self.bridge.client("autoscaling")
        self.timing({"polls": 0}, "refresh.pending", "refresh.in-progress", "refresh.rolling-back")

    def template(self, snapshot="snap-00000001", **more):
        data = {
            "ImageId": "ami-12345678", "InstanceType": "m5.large", "UserData": USER_DATA,
            "BlockDeviceMappings": [mapping("/dev/sdb", snapshot), mapping("/dev/sdk", snapshot)], **more,
        }
        made = self.ec2.create_launch_template(LaunchTemplateName="chef", LaunchTemplateData=data)
        return made["LaunchTemplate"]["LaunchTemplateId"]

    def version(self, **more):
        return self.ec2.create_launch_template_version(LaunchTemplateName="chef", **more)["LaunchTemplateVersion"]

    def versions(self, **more):
        return self.ec2.describe_launch_template_versions(LaunchTemplateName="chef", **more)["LaunchTemplateVersions"]

    def group(self, name="web", size=0, **source):
        self.scaling.create_auto_scaling_group(
            AutoScalingGroupName=name, MinSize=0, MaxSize=4, DesiredCapacity=size, AvailabilityZones=["us-east-1a"], **source
        )

    def look_at_group(self, name="web"):
        return self.scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"][0]

    def refresh(self, **more):
        return self.scaling.start_instance_refresh(AutoScalingGroupName="web", **more)["InstanceRefreshId"]

    def refreshes(self, **more):
        return self.scaling.describe_instance_refreshes(AutoScalingGroupName="web", **more)["InstanceRefreshes"]


def mapping(device, snapshot):
    return {"DeviceName": device, "Ebs": {"SnapshotId": snapshot, "VolumeType": "gp3", "DeleteOnTermination": True}}


def pinned(template, version):
    return {"LaunchTemplate": {"LaunchTemplateId": template, "Version": version}}


class Templates(FleetTest):
    def test_a_source_s_parameters_are_inherited_but_for_snapshots(self):
        self.template(EbsOptimized=True)
        data = self.version(SourceVersion="$Latest", LaunchTemplateData={"ImageId": "ami-87654321"})["LaunchTemplateData"]
        self.assertEqual((data["ImageId"], data["UserData"], data["EbsOptimized"]), ("ami-87654321", USER_DATA, True))
        self.assertEqual([it["Ebs"] for it in data["BlockDeviceMappings"]], [{"VolumeType": "gp3", "DeleteOnTermination": True}] * 2)
        given = [mapping("/dev/sdk", "snap-00000002")]
        data = self.version(SourceVersion="1", LaunchTemplateData={"BlockDeviceMappings": given})["LaunchTemplateData"]
        self.assertEqual((data["BlockDeviceMappings"], data["UserData"]), (given, USER_DATA))
        self.assertNotIn("UserData", self.version(LaunchTemplateData={"ImageId": "ami-87654321"})["LaunchTemplateData"])

    def test_a_client_token_makes_one_version(self):
        self.template()
        call = {"ClientToken": "t" * 128, "LaunchTemplateData": {"ImageId": "ami-87654321"}}
        self.assertEqual([self.version(**call)["VersionNumber"] for _ in range(2)], [2, 2])
        self.refused("IdempotentParameterMismatch", lambda: self.version(**{**call, "VersionDescription": "other"}))
        self.refused("InvalidParameterValue", lambda: self.version(**{**call, "ClientToken": "t" * 129}))
        self.refused("InvalidParameterValue", lambda: self.version(LaunchTemplateData={}, VersionDescription="x" * 256))
        self.assertEqual(len(self.versions()), 2)

    def test_versions_come_in_pages(self):
        self.template()
        for _ in range(20):
            self.version(SourceVersion="1", LaunchTemplateData={})
        self.assertEqual(len(self.versions()), 21)
        pages = self.ec2.get_paginator("describe_launch_template_versions")
        pages = list(pages.paginate(LaunchTemplateName="chef", PaginationConfig={"PageSize": 8}))
        numbers = [it["VersionNumber"] for page in pages for it in page["LaunchTemplateVersions"]]
        self.assertEqual((len(pages), numbers), (3, list(range(1, 22))))
        self.refused("InvalidParameterValue", lambda: self.versions(MaxResults=201))

    def test_versions_are_deleted_but_for_the_default(self):
        template = self.template()
        for _ in range(3):
            self.version(SourceVersion="1", LaunchTemplateData={})
        answer = self.ec2.delete_launch_template_versions(LaunchTemplateId=template, Versions=["1", "2", "9"])
        done, failed = (answer[f"{kind}DeletedLaunchTemplateVersions"] for kind in ("Successfully", "Unsuccessfully"))
        self.assertEqual([it["VersionNumber"] for it in done], [2])
        codes = [(it["VersionNumber"], it["ResponseError"]["Code"]) for it in failed]
        self.assertEqual(codes, [(1, "unexpectedError"), (9, "launchTemplateVersionDoesNotExist")])
        self.assertEqual([it["VersionNumber"] for it in self.versions()], [1, 3, 4])
        gone = "InvalidLaunchTemplateId.VersionNotFound"
        self.refused(gone, lambda: self.versions(Versions=["2"]))
        self.refused(gone, lambda: self.version(SourceVersion="2", LaunchTemplateData={}))
        self.refused(gone, lambda: self.ec2.modify_launch_template(LaunchTemplateId=template, DefaultVersion="2"))
        self.refused("ValidationError", lambda: self.group(**pinned(template, "2")))
        self.ec2.modify_launch_template(LaunchTemplateId=template, DefaultVersion="3")
        self.assertEqual([it["VersionNumber"] for it in self.versions(Versions=["$Default", "$Latest"])], [3, 4])

    def test_what_is_not_there_is_not_found(self):
        look = self.ec2.describe_launch_template_versions
        self.refused("InvalidLaunchTemplateName.NotFoundException", lambda: look(LaunchTemplateName="none"))
        self.refused("InvalidLaunchTemplateId.NotFound", lambda: look(LaunchTemplateId="lt-0123456789abcdef0"))


class LaunchConfigurations(FleetTest):
    def configuration(self, name="old", **more):
        self.scaling.create_launch_configuration(
            LaunchConfigurationName=name, ImageId="ami-12345678", InstanceType="m5.large", **more
        )

    def test_names_are_unique_and_what_is_in_use_stays(self):
        self.configuration()
        self.refused("AlreadyExists", lambda: self.configuration(UserData="eA=="))
        self.group(LaunchConfigurationName="old")

        def delete():
            self.scaling.delete_launch_configuration(LaunchConfigurationName="old")

        self.refused("ResourceInUse", delete, "attached to AutoScalingGroup web")
        self.configuration("new")
        self.scaling.update_auto_scaling_group(AutoScalingGroupName="web", LaunchConfigurationName="new")
        delete()
        self.refused("ValidationError", delete)
        wrong = {"AutoScalingGroupName": "web", "LaunchConfigurationName": "none"}
        self.refused("ValidationError", lambda: self.scaling.update_auto_scaling_group(**wrong))

    def test_instances_tell_what_they_were_launched_from(self):
        self.configuration("old", BlockDeviceMappings=[mapping("/dev/sdk", self.snapshot(self.volume()))])
        self.configuration("new")
        self.group(size=1, LaunchConfigurationName="old")
        self.scaling.update_auto_scaling_group(AutoScalingGroupName="web", LaunchConfigurationName="new", DesiredCapacity=2)
        names = [it["LaunchConfigurationName"] for it in self.look_at_group()["Instances"]]
        self.assertEqual(names, ["old", "new"])
        self.refused("ValidationError", lambda: self.refresh(Preferences={"SkipMatching": True}))
        self.refresh()
        self.assertEqual(self.refreshes()[0]["Status"], "Successful")
        names = [it["LaunchConfigurationName"] for it in self.look_at_group()["Instances"]]
        self.assertEqual(names, ["new", "new"])


class Refreshes(FleetTest):
    def setUp(self):
        super().setUp()
        self.first, self.second = (self.snapshot(self.volume()) for _ in range(2))
        self.id = self.template(self.first)
        self.version(SourceVersion="1", LaunchTemplateData={"BlockDeviceMappings": [mapping("/dev/sdk", self.second)]})

    def snapshots_of_instances(self):
        ids = [it["InstanceId"] for it in self.look_at_group()["Instances"]]
        volumes = self.ec2.describe_volumes()["Volumes"]
        held = [it for it in volumes if it["Attachments"] and it["Attachments"][0]["Device"] == "/dev/sdk"]
        return sorted(it["SnapshotId"] for it in held if it["Attachments"][0]["InstanceId"] in ids)

    def numbers(self):
        return sorted(it["LaunchTemplate"]["Version"] for it in self.look_at_group()["Instances"])

    def test_instances_are_launched_from_the_group_s_version(self):
        self.group(size=1, **pinned(self.id, "2"))
        self.assertEqual((self.numbers(), self.snapshots_of_instances()), (["2"], [self.second]))
        self.scaling.update_auto_scaling_group(AutoScalingGroupName="web", DesiredCapacity=2, **pinned(self.id, "$Default"))
        self.assertEqual((self.numbers(), self.snapshots_of_instances()), (["1", "2"], sorted([self.first, self.second])))
        self.assertEqual([it["VersionNumber"] for it in self.versions() if it["DefaultVersion"]], [1])

    def test_a_refresh_that_succeeds_moves_the_group_and_replaces_what_differs(self):
        self.group(size=1, **pinned(self.id, "1"))
        before = self.look_at_group()["Instances"][0]["InstanceId"]
        self.timing({"polls": 1}, "refresh.pending", "refresh.in-progress")
        started = self.refresh(DesiredConfiguration=pinned(self.id, "2"), Preferences={"SkipMatching": True})
        states = [self.refreshes()[0] for _ in range(3)]
        self.assertEqual([it["Status"] for it in states], ["Pending", "InProgress", "Successful"])
        self.assertEqual(states[0]["DesiredConfiguration"]["LaunchTemplate"]["Version"], "2")
        self.assertEqual((states[2]["PercentageComplete"], states[2]["InstanceRefreshId"]), (100, started))
        group = self.look_at_group()
        self.assertEqual(group["LaunchTemplate"]["Version"], "2")
        self.assertNotEqual(group["Instances"][0]["InstanceId"], before)
        self.assertEqual(self.snapshots_of_instances(), [self.second])
        self.timing({"polls": 0}, "refresh.pending", "refresh.in-progress")
        self.refresh(DesiredConfiguration=pinned(self.id, "2"), Preferences={"SkipMatching": True})
        self.assertEqual(self.look_at_group()["Instances"], group["Instances"])

    def test_one_at_a_time_and_the_group_is_bound_to_it(self):
        self.group(**pinned(self.id, "1"))
        self.timing("never", "refresh.in-progress")
        self.refresh(DesiredConfiguration=pinned(self.id, "2"))
        self.refused("InstanceRefreshInProgress", self.refresh)
        change = {"AutoScalingGroupName": "web", **pinned(self.id, "2")}
        self.refused("ValidationError", lambda: self.scaling.update_auto_scaling_group(**change), "active instance refresh")
        self.scaling.update_auto_scaling_group(AutoScalingGroupName="web", MaxSize=3)
        self.bridge.post("settle")
        self.assertEqual(self.refreshes()[0]["Status"], "Successful")
        self.assertEqual(self.look_at_group()["LaunchTemplate"]["Version"], "2")

    def test_failures_and_rollbacks(self):
        self.group(**pinned(self.id, "1"))
        effect = {"becomes": "Failed", "reason": "1 instance is unhealthy"}
        self.bridge.post("faults", {"action": "StartInstanceRefresh", "times": 2, "effect": effect})
        self.refresh(DesiredConfiguration=pinned(self.id, "2"))
        self.refresh(DesiredConfiguration=pinned(self.id, "2"), Preferences={"AutoRollback": True})
        ended = [(it["Status"], it["StatusReason"]) for it in self.refreshes()]
        self.assertEqual(ended, [("RollbackSuccessful", effect["reason"]), ("Failed", effect["reason"])])
        self.assertEqual(self.look_at_group()["LaunchTemplate"]["Version"], "1")
        self.refused("ValidationError", lambda: self.refresh(Preferences={"AutoRollback": True}))
        self.scaling.update_auto_scaling_group(AutoScalingGroupName="web", **pinned(self.id, "$Latest"))
        wanted = {"DesiredConfiguration": pinned(self.id, "2"), "Preferences": {"AutoRollback": True}}
        self.refused("ValidationError", lambda: self.refresh(**wanted))

    def test_preferences_are_checked(self):
        self.group(**pinned(self.id, "1"))
        for wrong in (
            {"MinHealthyPercentage": 101}, {"MaxHealthyPercentage": 110}, {"MinHealthyPercentage": 0, "MaxHealthyPercentage": 200},
            {"CheckpointPercentages": [50, 20]}, {"CheckpointDelay": 60},
        ):
            self.refused("ValidationError", lambda: self.refresh(Preferences=wrong))
        good = {"MinHealthyPercentage": 90, "MaxHealthyPercentage": 110, "CheckpointPercentages": [10, 100], "CheckpointDelay": 60}
        self.refresh(Preferences=good)
        self.assertEqual(self.refreshes()[0]["Preferences"], good)

    def test_a_policy_is_kept_whole(self):
        spec = pinned(self.id, "1")["LaunchTemplate"]
        policy = {
            "LaunchTemplate": {
                "LaunchTemplateSpecification": spec,
                "Overrides": [{"InstanceType": "m5.large"}, {"InstanceType": "c5.large", "WeightedCapacity": "2"}],
            },
            "InstancesDistribution": {"OnDemandBaseCapacity": 1},
        }
        self.group(MixedInstancesPolicy=policy)
        group = self.look_at_group()
        self.assertNotIn("LaunchTemplate", group)
        self.assertEqual(group["MixedInstancesPolicy"]["LaunchTemplate"]["LaunchTemplateSpecification"]["Version"], "1")
        spec["Version"] = "2"
        self.timing("never", "refresh.in-progress")
        self.refresh(DesiredConfiguration={"MixedInstancesPolicy": policy})
        self.assertEqual(self.refreshes()[0]["DesiredConfiguration"]["MixedInstancesPolicy"], policy)
        self.bridge.post("settle")
        moved = self.look_at_group()["MixedInstancesPolicy"]["LaunchTemplate"]
        self.assertEqual(moved["LaunchTemplateSpecification"]["Version"], "2")
        self.assertEqual([it["InstanceType"] for it in moved["Overrides"]], ["m5.large", "c5.large"])


if __name__ == "__main__":
    unittest.main()
