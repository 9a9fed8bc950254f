"""What EC2 refuses, as far as it is written down. Every function takes values and raises `Ec2Error`, or returns.

API = https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_<Action>.html
ERRORS = https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
QUOTAS = https://docs.aws.amazon.com/ebs/latest/userguide/ebs-resource-quotas.html
TAGS = https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html

The documents give codes, seldom messages: those follow what EC2's users have published of its answers. The order in
which EC2 checks is not documented either; here: form of the parameters, existence, states, conflicts.
"""

import re
from urllib.parse import parse_qsl, urlsplit

from protocol import Ec2Error

# API CreateVolume, `Size`.
SIZES = {
    "gp2": (1, 16384), "gp3": (1, 65536), "io1": (4, 16384), "io2": (4, 65536),
    "st1": (125, 16384), "sc1": (125, 16384), "standard": (1, 1024),
}
# API CreateVolume, `Iops`.
IOPS = {"gp3": (3000, 80000), "io1": (100, 64000), "io2": (100, 256000)}
# API CreateVolume, `Throughput` and `VolumeInitializationRate`, in MiB/s.
THROUGHPUT = (125, 2000)
INITIALIZATION_RATE = (100, 300)
# QUOTAS: concurrent snapshots per volume.
CONCURRENT_SNAPSHOTS = {"st1": 1, "sc1": 1}
CONCURRENT_SNAPSHOTS_ELSE = 5
# QUOTAS: pending snapshots per account.
PENDING_SNAPSHOTS = 100
# ERRORS, SnapshotCreationPerVolumeRateExceeded: "wait at least 15 seconds between concurrent volume snapshots".
SNAPSHOT_INTERVAL = 15
# API ModifyVolume: four times within a rolling 24-hour period.
MODIFICATIONS = (4, 24 * 3600)

# API of each action.
PARAMETERS = {
    "AttachVolume": {"Device", "InstanceId", "VolumeId", "EbsCardIndex"},
    "DetachVolume": {"Device", "Force", "InstanceId", "VolumeId"},
    "CreateVolume": {
        "AvailabilityZone", "AvailabilityZoneId", "Encrypted", "Iops", "KmsKeyId", "OutpostArn", "Size", "SnapshotId",
        "VolumeType", "TagSpecification", "MultiAttachEnabled", "Throughput", "ClientToken", "VolumeInitializationRate",
        "Operator",
    },
    "CreateSnapshot": {"Description", "OutpostArn", "VolumeId", "TagSpecification", "Location"},
    "CopySnapshot": {
        "Description", "DestinationOutpostArn", "DestinationRegion", "Encrypted", "KmsKeyId", "PresignedUrl", "SourceRegion",
        "SourceSnapshotId", "TagSpecification", "CompletionDurationMinutes", "DestinationAvailabilityZone",
    },
    "ModifyVolume": {"VolumeId", "Size", "VolumeType", "Iops", "Throughput", "MultiAttachEnabled"},
    "DeleteVolume": {"VolumeId"},
    "DeleteSnapshot": {"SnapshotId"},
    "DescribeVolumes": {"VolumeId", "Filter", "NextToken", "MaxResults", "IncludeManagedResources"},
    "DescribeSnapshots": {"SnapshotId", "Filter", "NextToken", "MaxResults", "Owner", "RestorableBy"},
    "DescribeImages": {
        "ExecutableBy", "ImageId", "Owner", "IncludeDeprecated", "IncludeDisabled", "Filter", "NextToken", "MaxResults",
    },
    "EnableFastSnapshotRestores": {"AvailabilityZone", "AvailabilityZoneId", "SourceSnapshotId"},
    "DisableFastSnapshotRestores": {"AvailabilityZone", "AvailabilityZoneId", "SourceSnapshotId"},
    "DescribeFastSnapshotRestores": {"Filter", "NextToken", "MaxResults"},
    "DescribeInstances": {"InstanceId", "Filter", "NextToken", "MaxResults", "IncludeManagedResources"},
    "DescribeVolumesModifications": {"VolumeId", "Filter", "NextToken", "MaxResults", "IncludeManagedResources"},
    "CreateLaunchTemplateVersion": {
        "ClientToken", "LaunchTemplateData", "LaunchTemplateId", "LaunchTemplateName", "ResolveAlias", "SourceVersion",
        "VersionDescription",
    },
    "DeleteLaunchTemplateVersions": {"LaunchTemplateId", "LaunchTemplateName", "LaunchTemplateVersion"},
    "DescribeLaunchTemplateVersions": {
        "LaunchTemplateId", "LaunchTemplateName", "LaunchTemplateVersion", "MinVersion", "MaxVersion", "MaxResults", "NextToken",
        "ResolveAlias", "IncludeManagedResources",
    },
    "ModifyLaunchTemplate": {"ClientToken", "LaunchTemplateId", "LaunchTemplateName", "SetDefaultVersion"},
}
COMMON = {"Action", "Version", "DryRun"}


def known_parameters(request):
    """ERRORS, UnknownParameter."""
    allowed = PARAMETERS.get(request.action)
    for name in request.params if allowed else ():
        base = name.split(".")[0]
        # Some clients begin these in lower case, as the API's model does.
        if base not in allowed | COMMON and base[:1].upper() + base[1:] not in allowed | COMMON:
            raise Ec2Error("UnknownParameter", f"The parameter {base} is not recognized")


def is_presigned(request):
    """API CopySnapshot, PresignedUrl: needed for an encrypted snapshot; with one that is not valid the copy ends in `error`. The
    signature is not checked, as no other is."""
    url = urlsplit(request.get("PresignedUrl") or "")
    query = dict(parse_qsl(url.query))
    wanted = {"Action": "CopySnapshot", "DestinationRegion": request.region}
    wanted |= {name: request.get(name) for name in ("SourceRegion", "SourceSnapshotId")}
    scope = query.get("X-Amz-Credential", "").split("/")[2:3]
    return wanted.items() <= query.items() and scope == [request.get("SourceRegion")] and "X-Amz-Signature" in query


def dry_run(request):
    """API of every action, `DryRun`; ERRORS, DryRunOperation. What EC2 looks at before is not documented; here: the form of the
    parameters and the existence of what they name, which permissions by tag cannot be told without; not its state."""
    if request.flag("DryRun"):
        raise Ec2Error("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)


def required(request, *names):
    """ERRORS, MissingParameter."""
    for name in names:
        if not request.get(name):
            raise Ec2Error("MissingParameter", f"The request must contain the parameter {name[0].lower() + name[1:]}")


def identifier(value, prefix, parameter):
    """ERRORS, InvalidParameterValue: "Ensure that you specify a resource by using its full ID"."""
    if prefix == "i-" and not re.fullmatch(r"i-[0-9a-f]{8,17}", value):
        raise Ec2Error("InvalidInstanceID.Malformed", f'Invalid id: "{value}"')
    if not re.fullmatch(re.escape(prefix) + r"[0-9a-f]{8,17}", value):
        raise Ec2Error("InvalidParameterValue", f"Value ({value}) for parameter {parameter} is invalid. Expected: '{prefix}...'.")


def device_name(device):
    """https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/device_naming.html; API AttachVolume: "/dev/sdh or xvdh"."""
    if not re.fullmatch(r"(/dev/)?(sd[a-z](1[0-5]|[1-9])?|xvd[a-d]?[a-z])", device):
        raise Ec2Error(
            "InvalidParameterValue",
            f"Value ({device}) for parameter device is invalid. {device} is not a valid EBS device name.",
        )


def exists(found, kind, resource_id):
    """ERRORS, Invalid….NotFound."""
    if found is not None:
        return
    if kind == "volume":
        raise Ec2Error("InvalidVolume.NotFound", f"The volume '{resource_id}' does not exist.")
    if kind == "snapshot":
        raise Ec2Error("InvalidSnapshot.NotFound", f"The snapshot '{resource_id}' does not exist.")
    raise Ec2Error("InvalidInstanceID.NotFound", f"The instance ID '{resource_id}' does not exist")


def attach(volume, instance, device, names_in_use):
    """`volume`: id, zone, state, attached; `instance`: id, zone, state. Whether EC2 takes /dev/sdk and /dev/xvdk for the same
    name is not documented, nor whether the volume or the name is looked at first."""
    # API AttachVolume: "a running or stopped instance"; ERRORS, IncorrectState.
    if instance["state"] not in ("running", "stopped"):
        raise Ec2Error("IncorrectState", f"Instance '{instance['id']}' is not 'running'.")
    # ERRORS, InvalidVolume.ZoneMismatch.
    if volume["zone"] != instance["zone"]:
        message = f"The volume '{volume['id']}' is not in the same availability zone as instance '{instance['id']}'"
        raise Ec2Error("InvalidVolume.ZoneMismatch", message)
    # ERRORS, VolumeInUse.
    if volume["attached"]:
        raise Ec2Error("VolumeInUse", f"{volume['id']} is already attached to an instance")
    # ERRORS, IncorrectState: "trying to attach a volume that is still being created".
    if volume["state"] != "available":
        raise Ec2Error("IncorrectState", f"{volume['id']} is not 'available'.")
    # ERRORS: InvalidDevice.InUse is listed, but what EC2 answers is this.
    if device in names_in_use:
        message = f"Invalid value '{device}' for unixDevice. Attachment point {device} is already in use"
        raise Ec2Error("InvalidParameterValue", message)


def detach(volume_id, attachment, instance_id, device, is_root_of_running):
    """`attachment`: instance and device of the volume, or `None`. A second call while `detaching` is let through: API
    DetachVolume, `Force`, is for when "the previous detachment attempt did not occur cleanly"."""
    # ERRORS, IncorrectState.
    if attachment is None:
        raise Ec2Error("IncorrectState", f"Volume '{volume_id}' is in the 'available' state.")
    # ERRORS, InvalidAttachment.NotFound.
    if instance_id and instance_id != attachment["instance"]:
        raise Ec2Error("InvalidAttachment.NotFound", f"The volume '{volume_id}' is not attached to instance '{instance_id}'.")
    if device and device != attachment["device"]:
        message = f"The volume '{volume_id}' is not attached to instance '{attachment['instance']}' as device '{device}'."
        raise Ec2Error("InvalidAttachment.NotFound", message)
    # API DetachVolume: "If an EBS volume is the root device … can't be detached while the instance is running".
    if is_root_of_running:
        message = f"Unable to detach root volume '{volume_id}' from instance '{attachment['instance']}'"
        raise Ec2Error("OperationNotPermitted", message)


def within(value, limits, parameter):
    if value is not None and not limits[0] <= value <= limits[1]:
        message = f"Value ({value}) for parameter {parameter} is invalid. Expected a value from {limits[0]} to {limits[1]}."
        raise Ec2Error("InvalidParameterValue", message)


def volume_shape(kind, size, iops, throughput):
    """API CreateVolume and ModifyVolume: `VolumeType`, `Size`, `Iops`, `Throughput`. Limits that depend on one another (IOPS
    for each GiB) are in the user guide only, and left out."""
    if kind not in SIZES:
        raise Ec2Error("InvalidParameterValue", f"Value ({kind}) for parameter volumeType is invalid.")
    within(size, SIZES[kind], "size")
    # "Omit for all other volume types."
    if iops is not None and kind not in IOPS:
        raise Ec2Error("InvalidParameterCombination", f"The parameter iops is not supported for {kind} volumes.")
    if throughput is not None and kind != "gp3":
        raise Ec2Error("InvalidParameterCombination", f"The parameter throughput is not supported for {kind} volumes.")
    within(iops, IOPS.get(kind, (0, 0)), "iops")
    within(throughput, THROUGHPUT, "throughput")


def create_volume(request, zones, snapshot):
    """`snapshot`: id, state, size, or `None` if the call names none."""
    # API CreateVolume: "Either AvailabilityZone or AvailabilityZoneId must be specified, but not both."
    zone, zone_id = request.get("AvailabilityZone"), request.get("AvailabilityZoneId")
    if zone and zone_id:
        message = "The parameter availabilityZone cannot be used with the parameter availabilityZoneId"
        raise Ec2Error("InvalidParameterCombination", message)
    if not zone and not zone_id:
        raise Ec2Error("MissingParameter", "The request must contain the parameter availabilityZone")
    # ERRORS, InvalidZone.NotFound.
    if zone and zone not in zones:
        raise Ec2Error("InvalidZone.NotFound", f"The zone '{zone}' does not exist.")
    size = request.integer("Size")
    # API CreateVolume: "You must specify either a snapshot ID or a volume size."
    if size is None and snapshot is None:
        raise Ec2Error("MissingParameter", "The request must contain the parameter size/snapshot")
    kind = request.get("VolumeType") or "gp2"
    volume_shape(kind, size, request.integer("Iops"), request.integer("Throughput"))
    # API CreateVolume, `Iops`: "Required for io1 and io2 volumes".
    if kind in ("io1", "io2") and request.integer("Iops") is None:
        raise Ec2Error("MissingParameter", f"The parameter iops must be specified for {kind} volumes.")
    # API CreateVolume, `MultiAttachEnabled`: "supported with io1 and io2 volumes only".
    if request.flag("MultiAttachEnabled") and kind not in ("io1", "io2"):
        raise Ec2Error("InvalidParameterCombination", f"Multi-Attach is not supported for {kind} volumes.")
    rate = request.integer("VolumeInitializationRate")
    # API CreateVolume, `VolumeInitializationRate`: "only for volumes created from snapshots".
    if rate is not None and snapshot is None:
        message = "The parameter volumeInitializationRate can only be used with the parameter snapshotId"
        raise Ec2Error("InvalidParameterCombination", message)
    within(rate, INITIALIZATION_RATE, "volumeInitializationRate")
    if snapshot is None:
        return
    # ERRORS, IncorrectState.
    if snapshot["state"] != "completed":
        raise Ec2Error("IncorrectState", f"Snapshot is in invalid state - {snapshot['state']}")
    # API CreateVolume, `Size`: "equal to or larger than the snapshot size".
    if size is not None and size < snapshot["size"]:
        message = f"Volume of size {size}GB is smaller than snapshot '{snapshot['id']}', expect size >= {snapshot['size']}GB"
        raise Ec2Error("InvalidParameterValue", message)


def client_token(token, longest=64):
    """https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html: up to 64 ASCII characters, for some actions more."""
    if token and (len(token) > longest or not token.isascii()):
        message = f"Value for parameter clientToken is invalid. It has at most {longest} ASCII characters."
        raise Ec2Error("InvalidParameterValue", message)


def same_request(before, now):
    """The same document, and ERRORS, IdempotentParameterMismatch."""
    if before != now:
        message = "The client token has already been used with different parameters in a previous request."
        raise Ec2Error("IdempotentParameterMismatch", message)


def tag_specifications(request, kind):
    """TAGS: at most 50 tags, key up to 128 characters, value up to 256, `aws:` reserved, each key once; API, `ResourceType`."""
    for resource, tags in request.tag_specifications():
        if resource != kind:
            raise Ec2Error("InvalidParameterValue", f"'{resource}' is not a valid taggable resource type for this operation.")
        if len(tags) > 50:
            raise Ec2Error("TagLimitExceeded", "More than 50 tags specified")
        keys = [key for key, _ in tags]
        for key, value in tags:
            if not key:
                raise Ec2Error("InvalidParameterValue", "Tag key cannot be empty")
            if keys.count(key) > 1:
                raise Ec2Error("InvalidParameterValue", f"Duplicate tag key '{key}' specified.")
            if len(key) > 128:
                raise Ec2Error("InvalidParameterValue", "Tag key exceeds the maximum length of 128 characters")
            if len(value) > 256:
                raise Ec2Error("InvalidParameterValue", "Tag value exceeds the maximum length of 256 characters")
            if key.lower().startswith("aws:"):
                message = "Tag keys starting with 'aws:' are reserved for internal use"
                raise Ec2Error("InvalidParameterValue", message)


def create_snapshot(volume, now, pending, limits):
    """`volume`: id, state, type, last_snapshot (a time, or `None`); `pending`: how many of this volume, how many in all."""
    # ERRORS, IncorrectState. API CreateSnapshot: "You can take a snapshot of an attached volume that is in use."
    if volume["state"] not in ("available", "in-use"):
        raise Ec2Error("IncorrectState", f"Volume '{volume['id']}' is in the '{volume['state']}' state.")
    # ERRORS, SnapshotCreationPerVolumeRateExceeded. Whether refused calls count is not documented: they do not.
    last = volume["last_snapshot"]
    if last is not None and now - last < limits["snapshot_interval"]:
        message = (
            "The maximum per volume CreateSnapshot request rate has been exceeded. "
            "Use an increasing or variable sleep interval between requests."
        )
        raise Ec2Error("SnapshotCreationPerVolumeRateExceeded", message)
    # ERRORS, ConcurrentSnapshotLimitExceeded, and QUOTAS. Those in state `error` count too.
    most = limits["concurrent_snapshots"] or CONCURRENT_SNAPSHOTS.get(volume["type"], CONCURRENT_SNAPSHOTS_ELSE)
    if pending[0] >= most:
        message = "Maximum allowed in-progress snapshots for a single volume exceeded."
        raise Ec2Error("ConcurrentSnapshotLimitExceeded", message)
    # ERRORS, PendingSnapshotLimitExceeded, and QUOTAS.
    if pending[1] >= limits["pending_snapshots"]:
        raise Ec2Error("PendingSnapshotLimitExceeded", "Maximum allowed in-progress snapshots for an account exceeded.")


def modify_volume(volume, request, now):
    """`volume`: id, state, size, type, modifying, modifications (times)."""
    # API ModifyVolume: "as long as the volume is in the in-use or available state".
    if volume["state"] not in ("available", "in-use"):
        raise Ec2Error("IncorrectState", f"Volume '{volume['id']}' is in the '{volume['state']}' state.")
    # API ModifyVolume: "you must wait for that modification to reach the completed state"; ERRORS.
    if volume["modifying"]:
        message = f"Volume {volume['id']} is currently being modified."
        raise Ec2Error("IncorrectModificationState", message)
    count, period = MODIFICATIONS
    # API ModifyVolume: "four times within a rolling 24-hour period … you get an error message".
    if sum(now - time < period for time in volume["modifications"]) >= count:
        message = "You've reached the maximum modification rate per volume limit."
        raise Ec2Error("VolumeModificationRateExceeded", message)
    size = request.integer("Size")
    # API ModifyVolume, `Size`: "greater than or equal to the existing size".
    if size is not None and 0 < size < volume["size"]:
        raise Ec2Error("InvalidParameterValue", "New size cannot be smaller than existing size")
    kind = request.get("VolumeType") or volume["type"]
    volume_shape(kind, size, request.integer("Iops"), request.integer("Throughput"))


def delete_volume(volume_id, state, attached_to):
    """API DeleteVolume: "must be in the available state (not attached to an instance)". That one in state `error` can be
    deleted is not in that page; nothing else can be done with it, so it can."""
    if attached_to:
        raise Ec2Error("VolumeInUse", f"Volume {volume_id} is currently attached to {attached_to}")
    if state not in ("available", "error"):
        raise Ec2Error("IncorrectState", f"Volume '{volume_id}' is in the '{state}' state.")


def delete_snapshot(snapshot_id, images):
    """API DeleteSnapshot; ERRORS, InvalidSnapshot.InUse. `images`: the AMIs that use it."""
    if images:
        raise Ec2Error("InvalidSnapshot.InUse", f"The snapshot {snapshot_id} is currently in use by {images[0]}")
