"""Auto Scaling: what moto lets through refused, what it lacks (instance refreshes, what each instance was launched from) added.

API = https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_<Action>.html
"""

import contextlib
import dataclasses
from urllib.parse import urlencode

from protocol import Ec2Error, element, text
from query import members, source_of, success
from refreshes import Refreshes
from upstream import tree

SERVICE = "autoscaling"
# What a group is launched from, one of which it has.
SOURCES = ("LaunchConfigurationName", "LaunchTemplate", "MixedInstancesPolicy")
POLICY = "MixedInstancesPolicy.LaunchTemplate.LaunchTemplateSpecification"


class Fleet:
    def __init__(self, world, templates):
        self.world = world
        self.templates = templates
        self.reset()

    def reset(self):
        self.refreshes = Refreshes(self)
        # Instance → what it was launched from, as name → value.
        self._launched = {}
        self._actions = {
            "CreateAutoScalingGroup": self.create_group,
            "UpdateAutoScalingGroup": self.update_group,
            "DescribeAutoScalingGroups": self.describe_groups,
            "DescribeLaunchConfigurations": lambda request, _: self._forward(self._page(request)),
            "CreateLaunchConfiguration": self.create_configuration,
            "DeleteLaunchConfiguration": self.delete_configuration,
            "StartInstanceRefresh": self.refreshes.start,
            "DescribeInstanceRefreshes": self.refreshes.describe,
        }

    def handle(self, request, effect):
        """Answers one call; refusals are raised."""
        self.refreshes.settle()
        action = self._actions.get(request.action, self._else)
        answer = action(request, effect)
        if not request.action.startswith("Describe"):
            self.note_instances(request.region)
        return answer

    def _else(self, request, _effect):
        if request.action in ("SetDesiredCapacity", "TerminateInstanceInAutoScalingGroup"):
            group = self._group_of(request)
            with self.launching(request.region, source_of(group) if group is not None else {}):
                return self._forward(request)
        return self._forward(request)

    def _forward(self, request):
        answer = self.world.upstream.forward(request.method, request.path, request.headers, request.body)
        if not request.action.startswith("Describe"):
            tree(answer)
            self.world.forget_terminated(request.region)
        return answer

    def _page(self, request):
        """The request for a page that is no larger than the test wants."""
        cap = self.world.limits["page_size"]
        if not cap:
            return request
        params = {**request.params, "MaxRecords": str(min(request.integer("MaxRecords") or cap, cap))}
        return dataclasses.replace(request, params=params, body=urlencode(params).encode())

    def call(self, region, action, params=None):
        """At moto, on the bridge's own behalf."""
        return self.world.upstream.call(region, action, params, SERVICE)

    # Groups

    def groups(self, region):
        """Name → element."""
        root = self.call(region, "DescribeAutoScalingGroups", {"MaxRecords": 100})
        return {text(item, "AutoScalingGroupName"): item for item in members(root, "AutoScalingGroups")}

    def group(self, region, name):
        group = self.groups(region).get(name)
        if group is None:
            raise Ec2Error("ValidationError", f"AutoScalingGroup name not found - AutoScalingGroup '{name}' not found")
        return group

    def _group_of(self, request):
        for name, group in self.groups(request.region).items():
            instances = {text(it, "InstanceId") for it in group.findall("Instances/member")}
            if name == request.get("AutoScalingGroupName") or request.get("InstanceId") in instances:
                return group
        return None

    def create_group(self, request, _effect):
        self._check_source(request)
        with self.launching(request.region, request.params):
            return self._forward(request)

    def update_group(self, request, _effect):
        group = self.group(request.region, request.get("AutoScalingGroupName"))
        self._check_source(request)
        if _names_source(request.params):
            self.refreshes.forbid_change(request.region, request.get("AutoScalingGroupName"))
        with self.launching(request.region, request.params if _names_source(request.params) else source_of(group)):
            return self._forward(request)

    def _check_source(self, request):
        """What the group shall be launched from is there."""
        given = [name for name in SOURCES if any(it == name or it.startswith(f"{name}.") for it in request.params)]
        # API UpdateAutoScalingGroup: "If you specify LaunchTemplate in your update request, you can't specify
        # LaunchConfigurationName or MixedInstancesPolicy", and so on.
        if len(given) > 1:
            raise Ec2Error("ValidationError", "Valid requests must contain either LaunchTemplate, LaunchConfigurationName or MixedInstancesPolicy parameter.")
        name = request.get("LaunchConfigurationName")
        if name and name not in self.configurations(request.region):
            raise Ec2Error("ValidationError", f"Launch configuration name not found - Launch configuration {name} not found")
        self.version(request.region, request.params)

    def version(self, region, params):
        """Template and number that such parameters mean, or `None`. Errors are Auto Scaling's."""
        prefix = POLICY if f"{POLICY}.LaunchTemplateId" in params or f"{POLICY}.LaunchTemplateName" in params else "LaunchTemplate"
        template_id, name = (params.get(f"{prefix}.LaunchTemplate{kind}") for kind in ("Id", "Name"))
        if not template_id and not name:
            return None
        if template_id and name:
            # API LaunchTemplateSpecification: "either a LaunchTemplateId or a LaunchTemplateName".
            raise Ec2Error("ValidationError", "Valid requests must contain either launchTemplateId or LaunchTemplateName")
        try:
            template = self.templates.look(region, template_id, name)
            return template, self.templates.resolve(template, params.get(f"{prefix}.Version"))
        except Ec2Error as error:
            raise Ec2Error("ValidationError", error.message) from None

    @contextlib.contextmanager
    def launching(self, region, params):
        """For calls that may launch instances: moto launches them from the template's default version, whatever the group says,
        so that this is the group's for so long."""
        version = self.version(region, params)
        if version is None:
            yield
            return
        template, number = version
        self.templates.set_default(region, template["id"], number)
        try:
            yield
            self.note_instances(region)
        finally:
            self.templates.set_default(region, template["id"], template["default"])

    def note_instances(self, region):
        """What instances were launched from that were not there before: their group's configuration now."""
        for group in self.groups(region).values():
            source = source_of(group)
            version = self.version(region, source)
            made = {"LaunchConfigurationName": source["LaunchConfigurationName"]} if "LaunchConfigurationName" in source else {}
            if version:
                template, number = version
                made = {"LaunchTemplateId": template["id"], "LaunchTemplateName": template["name"], "Version": str(number)}
            for item in group.findall("Instances/member"):
                self._launched.setdefault(text(item, "InstanceId"), made)

    def is_launched_from(self, instance, params, region):
        """Whether skip matching leaves it alone."""
        template, number = self.version(region, params)
        made = self._launched.get(instance, {})
        return (made.get("LaunchTemplateId"), made.get("Version")) == (template["id"], str(number))

    def describe_groups(self, request, _effect):
        answer = self._forward(self._page(request))
        root = tree(answer)
        for group in members(root, "AutoScalingGroups"):
            # Of a group with a policy it is the policy that says so.
            for item in group.findall("LaunchTemplate") if group.find("MixedInstancesPolicy") is not None else ():
                group.remove(item)
            for item in group.findall("Instances/member"):
                _show_source(item, self._launched.get(text(item, "InstanceId"), {}))
        return success(request.action, [child for child in root if child.tag.endswith("Result")])

    # Launch configurations

    def configurations(self, region):
        """Name → element."""
        root = self.call(region, "DescribeLaunchConfigurations", {"MaxRecords": 100})
        return {text(item, "LaunchConfigurationName"): item for item in members(root, "LaunchConfigurations")}

    def create_configuration(self, request, _effect):
        name = request.get("LaunchConfigurationName")
        # API CreateLaunchConfiguration, AlreadyExists.
        if name in self.configurations(request.region):
            message = f"Launch Configuration by this name already exists - A launch configuration already exists with the name {name}"
            raise Ec2Error("AlreadyExists", message)
        return self._forward(request)

    def delete_configuration(self, request, _effect):
        name = request.get("LaunchConfigurationName")
        if name not in self.configurations(request.region):
            raise Ec2Error("ValidationError", f"Launch configuration name not found - Launch configuration {name} not found")
        # API DeleteLaunchConfiguration, ResourceInUse: "must not be attached to an Auto Scaling group".
        for group, item in self.groups(request.region).items():
            if text(item, "LaunchConfigurationName") == name:
                message = f"Cannot delete launch configuration {name} because it is attached to AutoScalingGroup {group}"
                raise Ec2Error("ResourceInUse", message)
        return self._forward(request)


def _names_source(params):
    return any(name.split(".")[0] in SOURCES for name in params)


def _show_source(item, made):
    for name in ("LaunchConfigurationName", "LaunchTemplate"):
        for child in item.findall(name):
            item.remove(child)
    if "LaunchTemplateId" in made:
        item.append(element("LaunchTemplate", [element(name, content=value) for name, value in made.items()]))
    elif made:
        item.extend(element(name, content=value) for name, value in made.items())
