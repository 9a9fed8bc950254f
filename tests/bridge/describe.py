"""Filters and pages of the Describe actions.

The filters are those of the actions' API pages; values may have the wildcards `*` and `?`
(https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Filtering.html).
"""

import base64
import binascii
import json
import re

import protocol
from protocol import Ec2Error, text


def _path(path):
    return lambda element: [found.text or "" for found in element.findall(path)]


def _flag(path):
    return lambda element: [text(element, path, "false")]


# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeVolumes.html. Not here, for nothing of the kind is modelled:
# fast-restored, operator.*, availability-zone-id.
VOLUME_FILTERS = {
    "attachment.attach-time": _path("attachmentSet/item/attachTime"),
    "attachment.delete-on-termination": _path("attachmentSet/item/deleteOnTermination"),
    "attachment.device": _path("attachmentSet/item/device"),
    "attachment.instance-id": _path("attachmentSet/item/instanceId"),
    "attachment.status": _path("attachmentSet/item/status"),
    "availability-zone": _path("availabilityZone"),
    "create-time": _path("createTime"),
    "encrypted": _flag("encrypted"),
    "multi-attach-enabled": _flag("multiAttachEnabled"),
    "size": _path("size"),
    "snapshot-id": _path("snapshotId"),
    "status": _path("status"),
    "volume-id": _path("volumeId"),
    "volume-type": _path("volumeType"),
}
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeSnapshots.html. Not here: owner-alias, transfer-type.
SNAPSHOT_FILTERS = {
    "description": _path("description"),
    "encrypted": _flag("encrypted"),
    "owner-id": _path("ownerId"),
    "progress": _path("progress"),
    "snapshot-id": _path("snapshotId"),
    "start-time": _path("startTime"),
    "status": _path("status"),
    "storage-tier": _path("storageTier"),
    "volume-id": _path("volumeId"),
    "volume-size": _path("volumeSize"),
}
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeVolumesModifications.html
MODIFICATION_FILTERS = {
    "modification-state": _path("modificationState"),
    "original-iops": _path("originalIops"),
    "original-size": _path("originalSize"),
    "original-volume-type": _path("originalVolumeType"),
    "start-time": _path("startTime"),
    "target-iops": _path("targetIops"),
    "target-size": _path("targetSize"),
    "target-volume-type": _path("targetVolumeType"),
    "volume-id": _path("volumeId"),
}
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeImages.html, as far as they are needed.
IMAGE_FILTERS = {
    "block-device-mapping.snapshot-id": _path("blockDeviceMapping/item/ebs/snapshotId"),
    "image-id": _path("imageId"),
    "name": _path("name"),
}
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeFastSnapshotRestores.html
RESTORE_FILTERS = {
    "availability-zone": _path("availabilityZone"),
    "snapshot-id": _path("snapshotId"),
    "state": _path("state"),
}
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Filtering.html: "up to 200 values per filter".
VALUES_OF_A_FILTER = 200
# Those that change while a resource goes through its states.
STATE_FILTERS = {"status", "attachment.status", "progress", "modification-state"}

# The largest page; more is cut to it. From the API's earlier pages, which also say that fewer than 5 is an error.
LARGEST_PAGE = {"volumes": 500, "snapshots": 1000, "modifications": 500, "images": 1000}


def check_filters(filters, known):
    """ERRORS, FilterLimitExceeded and InvalidParameterValue."""
    if any(len(values) > VALUES_OF_A_FILTER for values in filters.values()):
        raise Ec2Error("FilterLimitExceeded", f"The maximum number of values of a filter is {VALUES_OF_A_FILTER}")
    for name in filters:
        if name not in known and name != "tag-key" and not name.startswith("tag:"):
            raise Ec2Error("InvalidParameterValue", f"The filter '{name}' is invalid")


def matches(element, filters, known):
    """All filters match, each by any of its values."""
    for name, patterns in filters.items():
        if name.startswith("tag:"):
            tags = protocol.tags(element)
            values = [tags[name[4:]]] if name[4:] in tags else []
        elif name == "tag-key":
            values = list(protocol.tags(element))
        else:
            values = known[name](element)
        if not any(_wildcard(pattern).fullmatch(value) for pattern in patterns for value in values):
            return False
    return True


def _wildcard(pattern):
    """`*`: any characters, `?`: any one, backslash: the next character as it is."""
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    translated = (
        ".*" if part == "*" else "." if part == "?" else re.escape(part[1:] if len(part) == 2 else part) for part in parts
    )
    return re.compile("".join(translated), re.DOTALL)


def page_size(request, kind, ids, cap):
    """API of each action, `MaxResults`: fewer than 5 is an error, more than the largest page is the largest page, and it cannot
    be used with IDs. `cap`: the test wants smaller pages; EC2 may always return fewer."""
    wanted = request.integer("MaxResults")
    if wanted is None:
        return None
    if ids:
        name = {"volumes": "volumeSet", "snapshots": "snapshotSet"}.get(kind, f"{kind}Set")
        message = f"The parameter {name} cannot be used with the parameter maxResults"
        raise Ec2Error("InvalidParameterCombination", message)
    if wanted < 5:
        message = f"Value ( {wanted} ) for parameter maxResults is invalid. Expecting a value greater than 5."
        raise Ec2Error("InvalidParameterValue", message)
    return min(wanted, LARGEST_PAGE[kind], cap or wanted)


def page(items, size, token):
    """One page, and the token of the next one."""
    start = _offset(token) if token else 0
    if size is None or start + size >= len(items):
        return items[start:], None
    state = json.dumps({"offset": start + size}).encode()
    return items[start : start + size], base64.urlsafe_b64encode(state).decode()


def _offset(token):
    """ERRORS, InvalidPaginationToken."""
    try:
        offset = json.loads(base64.urlsafe_b64decode(token))["offset"]
        if isinstance(offset, int) and offset > 0:
            return offset
    except (ValueError, KeyError, TypeError, binascii.Error):
        pass
    raise Ec2Error("InvalidPaginationToken", "The specified pagination token is not valid or is expired.")
