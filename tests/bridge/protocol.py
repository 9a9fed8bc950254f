"""The EC2 query protocol: form-encoded requests, XML answers.

https://docs.aws.amazon.com/ec2/latest/devguide/ec2-query-api.html
"""

import copy
import json
import re
import uuid
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"

# https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html: the credential scope names region and service.
SCOPE = re.compile(r"Credential=([^/,]+)/\d{8}/([^/]+)/([^/]+)/aws4_request")


class Ec2Error(Exception):
    """An error answer. Codes: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html"""

    def __init__(self, code, message, status=400):
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status


@dataclass
class Request:
    """One call of an AWS service."""

    method: str
    path: str
    headers: dict
    body: bytes
    params: dict = field(default_factory=dict)
    action: str = ""
    service: str = ""
    region: str = "us-east-1"
    access_key: str = ""

    @classmethod
    def parse(cls, method, path, headers, body):
        request = cls(method, path, headers, body)
        lower = {name.lower(): value for name, value in headers.items()}
        scope = SCOPE.search(lower.get("authorization", ""))
        if scope:
            request.access_key, request.region, request.service = scope.groups()
        target = lower.get("x-amz-target")
        if target:
            request.action = target.rpartition(".")[2]
            request.params = _json(body)
        else:
            text = body.decode("utf-8", "replace") if body else path.partition("?")[2]
            request.params = dict(parse_qsl(text, keep_blank_values=True))
            request.action = request.params.get("Action", "")
        # The one that is called without credentials: it gets some.
        if not request.service and request.action == "AssumeRoleWithWebIdentity":
            request.service = "sts"
        return request

    def get(self, name):
        """A parameter; empty is the same as absent."""
        return self.params.get(name) or None

    def integer(self, name):
        value = self.get(name)
        try:
            return None if value is None else int(value)
        except ValueError:
            message = f"Value ({value}) for parameter {name} is invalid. Expected an integer."
            raise Ec2Error("InvalidParameterValue", message) from None

    def flag(self, name):
        return (self.get(name) or "").lower() == "true"

    def listed(self, name):
        """The values of `name.1`, `name.2`, … in order."""
        return listed(self.params, name)

    def filters(self):
        """Name → values, of `Filter.N.Name` and `Filter.N.Value.M`."""
        found = {}
        for number in numbers(self.params, "Filter"):
            name = self.params.get(f"Filter.{number}.Name", "")
            found.setdefault(name, []).extend(listed(self.params, f"Filter.{number}.Value"))
        return found

    def tag_specifications(self):
        """(resource type, [(key, value)]) of `TagSpecification.N`."""
        found = []
        for number in numbers(self.params, "TagSpecification"):
            prefix = f"TagSpecification.{number}"
            tags = [
                (self.params.get(f"{prefix}.Tag.{tag}.Key", ""), self.params.get(f"{prefix}.Tag.{tag}.Value", ""))
                for tag in numbers(self.params, f"{prefix}.Tag")
            ]
            found.append((self.params.get(f"{prefix}.ResourceType", ""), tags))
        return found


def _json(body):
    try:
        value = json.loads(body or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def numbers(params, prefix):
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)(\.|$)")
    return sorted({int(match.group(1)) for match in map(pattern.match, params) if match})


def listed(params, name):
    return [params.get(f"{name}.{number}", "") for number in numbers(params, name)]


@dataclass
class Answer:
    """An HTTP answer; `code` is the error code in it."""

    status: int
    body: bytes
    headers: dict = field(default_factory=lambda: {"Content-Type": "text/xml;charset=UTF-8"})
    code: str = ""


def parse_xml(body):
    """The answer as a tree without namespaces."""
    root = ET.fromstring(body)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def text(element, path, default=None):
    found = element.find(path)
    return default if found is None or found.text is None else found.text


def put(element, name, value):
    """Sets the text of a child, which is made if it is not there."""
    child = element.find(name)
    if child is None:
        child = ET.SubElement(element, name)
    for grandchild in list(child):
        child.remove(grandchild)
    child.text = value
    return child


def tags(element):
    """The tags of a resource."""
    return {text(tag, "key", ""): text(tag, "value", "") for tag in element.findall("tagSet/item")}


def success(action, children):
    """The answer to `action` with these elements in it."""
    root = ET.Element(f"{action}Response", {"xmlns": NAMESPACE})
    ET.SubElement(root, "requestId").text = str(uuid.uuid4())
    root.extend(copy.deepcopy(child) for child in children)
    return Answer(200, b'<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="utf-8"))


def element(name, children=(), content=None):
    made = ET.Element(name)
    made.text = content
    made.extend(children)
    return made


def content(root):
    """What is in an answer, without its request ID."""
    return [child for child in root if child.tag.lower() != "requestid"]


def failure(error, service="ec2"):
    """The error in the form that clients of the service expect."""
    if service == "ec2":
        # https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html#api-error-response
        root = ET.Element("Response")
        item = ET.SubElement(ET.SubElement(root, "Errors"), "Error")
        request_id = ET.SubElement(root, "RequestID")
    elif service in ("sts", "autoscaling", "iam"):
        # https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html
        root = ET.Element("ErrorResponse")
        item = ET.SubElement(root, "Error")
        ET.SubElement(item, "Type").text = "Sender" if error.status < 500 else "Receiver"
        request_id = ET.SubElement(root, "RequestId")
    else:
        body = json.dumps({"__type": error.code, "message": error.message}).encode()
        return Answer(error.status, body, {"Content-Type": "application/x-amz-json-1.1"}, error.code)
    ET.SubElement(item, "Code").text = error.code
    ET.SubElement(item, "Message").text = error.message
    request_id.text = str(uuid.uuid4())
    body = b'<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="utf-8")
    return Answer(error.status, body, code=error.code)
