"""Launch templates: moto's, with what it lacks of their versions.

API = https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_<Action>.html
ERRORS = https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
"""

import describe
import protocol
import rules
from looks import override
from protocol import Ec2Error, content, element, text
from upstream import tree

# API CreateLaunchTemplateVersion: `ClientToken`, `VersionDescription`.
TOKEN_LENGTH = 128
DESCRIPTION_LENGTH = 255
# API DescribeLaunchTemplateVersions, `MaxResults`; API DeleteLaunchTemplateVersions.
LARGEST_PAGE = 200
DELETED_AT_ONCE = 200
DATA = "LaunchTemplateData."
USER_DATA = f"{DATA}UserData"
# More than any test makes: moto answers with fifteen, and has no pages.
ALL = 10000


class Templates:
    def __init__(self, world):
        self.world = world
        self.reset()

    def reset(self):
        # (template, version) → the parameters that it was made with, and all that it inherited.
        self._data = {}
        # Template → numbers.
        self._deleted = {}
        # (region, client token) → (parameters, answer).
        self._tokens = {}

    def actions(self):
        return {
            "CreateLaunchTemplate": self.create,
            "CreateLaunchTemplateVersion": self.create_version,
            "DeleteLaunchTemplateVersions": self.delete_versions,
            "DescribeLaunchTemplateVersions": self.describe_versions,
            "ModifyLaunchTemplate": self.modify,
        }

    def create(self, request, _effect):
        rules.dry_run(request)
        answer = self.world.upstream.forward(request.method, request.path, request.headers, request.body)
        template = text(tree(answer), "launchTemplate/launchTemplateId")
        self._data[template, 1] = _data(request)
        return answer

    def create_version(self, request, effect):
        token = request.get("ClientToken")
        rules.client_token(token, TOKEN_LENGTH)
        description = request.params.get("VersionDescription", "")
        if len(description) > DESCRIPTION_LENGTH:
            raise Ec2Error("InvalidParameterValue", f"The version description has more than {DESCRIPTION_LENGTH} characters")
        wanted = {name: value for name, value in request.params.items() if name not in ("ClientToken", "Version")}
        if token and (request.region, token) in self._tokens:
            before, answer = self._tokens[request.region, token]
            rules.same_request(before, wanted)
            return answer
        template = self.template(request)
        data = _data(request)
        source = request.get("SourceVersion")
        if source:
            inherited = self._data[template["id"], self.resolve(template, source)]
            data = _merged(inherited, data)
        rules.dry_run(request)
        # moto cannot launch from a version other than the first that has user data.
        passed = {name: value for name, value in data.items() if name != USER_DATA}
        given = {"LaunchTemplateId": template["id"], "VersionDescription": description, **passed}
        root = self.world.upstream.call(request.region, request.action, given)
        self._data[template["id"], int(text(root, "launchTemplateVersion/versionNumber"))] = data
        self._show_user_data(root.find("launchTemplateVersion"))
        override(root.find("launchTemplateVersion"), "launchTemplate", effect.get("override", {}))
        answer = protocol.success(request.action, content(root))
        if token:
            self._tokens[request.region, token] = (wanted, answer)
        return answer

    def describe_versions(self, request, _effect):
        wanted = request.listed("LaunchTemplateVersion")
        if request.get("LaunchTemplateId") or request.get("LaunchTemplateName"):
            templates = [self.template(request)]
        elif wanted and set(wanted) <= {"$Latest", "$Default"}:
            # API DescribeLaunchTemplateVersions, `LaunchTemplateVersion.N`: "you cannot specify numbers".
            templates = self.all(request.region)
        else:
            raise Ec2Error("MissingParameter", "Either launch template ID or launch template name must be given")
        size = request.integer("MaxResults")
        rules.within(size, (1, LARGEST_PAGE), "maxResults")
        least, most = (request.integer(name) for name in ("MinVersion", "MaxVersion"))
        items = []
        for template in templates:
            numbers = {self.resolve(template, version) for version in wanted} if wanted else set(template["versions"])
            # API: `MinVersion` is "the version number after which", `MaxVersion` "up to which" versions are described.
            numbers = {it for it in numbers if (least or 0) < it <= (most or it)}
            items += [item for number, item in template["versions"].items() if number in numbers]
        rules.dry_run(request)
        cap = self.world.limits["page_size"]
        page, token = describe.page(items, min(size or ALL, cap or ALL), request.get("NextToken"))
        answer = [element("launchTemplateVersionSet", page)]
        return protocol.success(request.action, answer + ([element("nextToken", content=token)] if token else []))

    def delete_versions(self, request, _effect):
        template = self.template(request)
        versions = request.listed("LaunchTemplateVersion")
        rules.required(request, "LaunchTemplateVersion.1")
        if len(versions) > DELETED_AT_ONCE:
            raise Ec2Error("InvalidParameterValue", f"More than {DELETED_AT_ONCE} versions specified")
        rules.dry_run(request)
        done, failed = [], []
        for version in versions:
            error = self._undeletable(template, version)
            values = {"launchTemplateId": template["id"], "launchTemplateName": template["name"], "versionNumber": version}
            item = element("item", [element(name, content=value) for name, value in values.items()])
            if error:
                code, message = error
                item.append(element("responseError", [element("code", content=code), element("message", content=message)]))
                failed.append(item)
            else:
                self._deleted.setdefault(template["id"], set()).add(int(version))
                done.append(item)
        return protocol.success(request.action, [
            element("successfullyDeletedLaunchTemplateVersionSet", done),
            element("unsuccessfullyDeletedLaunchTemplateVersionSet", failed),
        ])

    def _undeletable(self, template, version):
        """Code and message: API ResponseError. Which code the default version has is not documented."""
        number = int(version)
        if number not in template["versions"]:
            return "launchTemplateVersionDoesNotExist", f"The launch template version {version} does not exist"
        # API DeleteLaunchTemplateVersions: "You can't delete the default version of a launch template".
        if number == template["default"]:
            return "unexpectedError", "The default version of a launch template cannot be deleted"
        if number == max(template["versions"]):
            # moto would go on to launch from it.
            raise Ec2Error("UnsupportedOperation", "the bridge does not delete the latest version")
        return None

    def modify(self, request, _effect):
        template = self.template(request)
        # API ModifyLaunchTemplate, `DefaultVersion`: a number.
        rules.required(request, "SetDefaultVersion")
        number = self.resolve(template, request.get("SetDefaultVersion"))
        rules.dry_run(request)
        return protocol.success(request.action, content(self.set_default(request.region, template["id"], number)))

    def set_default(self, region, template_id, number):
        params = {"LaunchTemplateId": template_id, "SetDefaultVersion": number}
        return self.world.upstream.call(region, "ModifyLaunchTemplate", params)

    def template(self, request):
        """The template of the call, which must be there: ID, name, default, and number → element of its versions."""
        return self.look(request.region, request.get("LaunchTemplateId"), request.get("LaunchTemplateName"))

    def all(self, region):
        root = self.world.upstream.call(region, "DescribeLaunchTemplates", {"MaxResults": ALL})
        ids = [text(item, "launchTemplateId") for item in root.findall("launchTemplates/item")]
        return [self.look(region, template_id, None) for template_id in ids]

    def look(self, region, template_id, name):
        if bool(template_id) == bool(name):
            # API of each action: "either the launch template ID or the launch template name, but not both".
            raise Ec2Error("InvalidParameterCombination", "Either launch template ID or launch template name must be given")
        given = {"LaunchTemplateId": template_id} if template_id else {"LaunchTemplateName": name}
        root = self.world.upstream.call(region, "DescribeLaunchTemplateVersions", {**given, "MaxResults": ALL})
        items = root.findall("launchTemplateVersionSet/item")
        template_id = text(items[0], "launchTemplateId")
        gone = self._deleted.get(template_id, set())
        versions = {int(text(item, "versionNumber")): item for item in items}
        for item in items:
            self._show_user_data(item)
        default = next(number for number, item in versions.items() if text(item, "defaultVersion") == "true")
        return {
            "id": template_id,
            "name": text(items[0], "launchTemplateName"),
            "default": default,
            "versions": {number: item for number, item in versions.items() if number not in gone},
        }

    def _show_user_data(self, item):
        data = self._data.get((text(item, "launchTemplateId"), int(text(item, "versionNumber"))), {})
        if USER_DATA in data:
            protocol.put(item.find("launchTemplateData"), "userData", data[USER_DATA])

    def resolve(self, template, version):
        """The number of a version; ERRORS, InvalidLaunchTemplateId.VersionNotFound."""
        number = {"$Latest": max(template["versions"]), "$Default": template["default"]}.get(version or "$Default")
        if number is None:
            number = int(version) if version.isdigit() else 0
        if number not in template["versions"]:
            message = f"Could not find the specified version {version} for the launch template with ID {template['id']}."
            raise Ec2Error("InvalidLaunchTemplateId.VersionNotFound", message)
        return number


def _data(request):
    return {name: value for name, value in request.params.items() if name.startswith(DATA)}


def _merged(inherited, given):
    """API CreateLaunchTemplateVersion, `SourceVersion`: "If you specify additional launch parameters for the new version, they
    overwrite any corresponding launch parameters inherited from the source version." That a list counts as one parameter is
    how it is read here. "Snapshots applied to the block device mapping are ignored … unless they are explicitly included."""
    replaced = {name.split(".")[1] for name in given}

    def is_kept(name):
        return name.split(".")[1] not in replaced and not name.endswith(".Ebs.SnapshotId")

    return {**{name: value for name, value in inherited.items() if is_kept(name)}, **given}
