"""Auto Scaling's form of the query protocol, and what its groups look like in it.

https://docs.aws.amazon.com/autoscaling/ec2/APIReference/Welcome.html
"""

import uuid
import xml.etree.ElementTree as ET

from protocol import Answer, text

NAMESPACE = "http://autoscaling.amazonaws.com/doc/2011-01-01/"


def success(action, children):
    """An answer; `children` has the result, which comes first."""
    root = ET.Element(f"{action}Response", {"xmlns": NAMESPACE})
    root.extend(children)
    metadata = ET.SubElement(root, "ResponseMetadata")
    ET.SubElement(metadata, "RequestId").text = str(uuid.uuid4())
    return Answer(200, b'<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="utf-8"))


def members(root, name):
    return root.findall(f".//{name}/member")


def below(params, prefix):
    """The parameters with this prefix, without it."""
    return {name[len(prefix):]: value for name, value in params.items() if name.startswith(prefix)}


def nested(name, params):
    """`{"A.B": 1, "C.member.1": 2}` as elements: in this protocol both have the same names."""
    root = ET.Element(name)
    made = {(): root}
    for path, value in params.items():
        parts = path.replace(".member.", ".member:").split(".")
        for depth in range(1, len(parts) + 1):
            way = tuple(parts[:depth])
            if way not in made:
                made[way] = ET.SubElement(made[way[:-1]], way[-1].split(":")[0])
        made[tuple(parts)].text = value
    return root


def source_of(group):
    """What a group is launched from, as parameters would say it."""
    name = text(group, "LaunchConfigurationName")
    policy = group.find("MixedInstancesPolicy/LaunchTemplate/LaunchTemplateSpecification")
    template = policy if policy is not None else group.find("LaunchTemplate")
    if template is None:
        return {"LaunchConfigurationName": name}
    params = {"LaunchTemplate.LaunchTemplateId": text(template, "LaunchTemplateId")}
    version = text(template, "Version")
    return {**params, "LaunchTemplate.Version": version} if version else params
