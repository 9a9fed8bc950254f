"""An instance's metadata service, version 2 only.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html (paths, codes)
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-v2-how-it-works.html (tokens)
"""

import json
import secrets
import threading
from http.server import BaseHTTPRequestHandler

from looks import ACCOUNT
from server import Server
from states import SpecError

MOST_SECONDS = 21600
# How it is seen: well; from a container, whose hop the answer to PUT does not survive; not at all; turned off; in trouble.
MODES = ("reachable", "hop-limit", "hang", "refuse", "disabled", "error")


class Metadata:
    """The service of one instance, on a port of its own."""

    def __init__(self, instance, clock):
        self.instance = instance
        # Called for the clock, which a reset replaces.
        self._clock = clock
        self.mode = "reachable"
        # Role name and what `security-credentials/<role>` answers.
        self.role = None
        self.credentials = None
        self._tokens = {}
        self._server = None
        self._address = ("127.0.0.1", 0)
        self._ended = threading.Event()
        self._listen()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._address[1]}"

    def _listen(self):
        handler = type("Handler", (_Handler,), {"metadata": self})
        self._server = Server(self._address, handler)
        self._address = self._server.server_address
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def _close(self):
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def set(self, mode=None, role=None, credentials=None):
        if mode is not None:
            if mode not in MODES:
                raise SpecError(f"no such mode: {mode}; there are {', '.join(MODES)}")
            self.mode = mode
            if mode == "refuse":
                self._close()
            elif self._server is None:
                self._listen()
        if role is not None:
            self.role, self.credentials = role, credentials

    def stop(self):
        self._ended.set()
        self._close()

    def hang(self):
        """Until the client has had enough, or the bridge ends."""
        self._ended.wait(600)

    def new_token(self, seconds):
        token = secrets.token_urlsafe(42)
        self._tokens[token] = self._clock().now() + seconds
        return token

    def knows(self, token):
        return token in self._tokens and self._clock().now() < self._tokens[token]

    def values(self):
        """Path → text. A folder lists what is in it."""
        it = self.instance
        document = {
            "accountId": ACCOUNT, "architecture": "x86_64", "availabilityZone": it["zone"], "billingProducts": None,
            "devpayProductCodes": None, "marketplaceProductCodes": None, "imageId": it["image"], "instanceId": it["id"],
            "instanceType": it["type"], "kernelId": None, "pendingTime": "2026-01-01T00:00:00Z", "privateIp": it["address"],
            "ramdiskId": None, "region": it["region"], "version": "2017-09-30",
        }
        values = {
            "meta-data/ami-id": it["image"],
            "meta-data/instance-id": it["id"],
            "meta-data/instance-type": it["type"],
            "meta-data/local-ipv4": it["address"],
            "meta-data/placement/availability-zone": it["zone"],
            "meta-data/placement/region": it["region"],
            "meta-data/services/domain": "amazonaws.com",
            "meta-data/services/partition": "aws",
            "dynamic/instance-identity/document": json.dumps(document, indent=2),
        }
        if self.role:
            values["meta-data/iam/security-credentials/"] = self.role
            values[f"meta-data/iam/security-credentials/{self.role}"] = json.dumps(self.credentials, indent=2)
        return values


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    metadata: Metadata

    def log_message(self, *_):
        pass

    def answer(self, status, body="", headers=None):
        data = body.encode()
        self.send_response(status)
        for name, value in {"Content-Type": "text/plain", "Content-Length": len(data), **(headers or {})}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(data)

    def is_out_of_order(self):
        mode = self.metadata.mode
        if mode == "hang":
            self.metadata.hang()
            self.close_connection = True
            return True
        if mode == "disabled":
            # 403: "the IMDS is turned off".
            self.answer(403)
            return True
        if mode == "error":
            self.answer(500)
            return True
        return False

    def do_PUT(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.is_out_of_order():
            return
        if self.path != "/latest/api/token":
            self.answer(404)
            return
        # "does not issue a token to any caller with an X-Forwarded-For header".
        if self.headers.get("X-Forwarded-For"):
            self.answer(403)
            return
        seconds = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        if not seconds.isdigit() or not 1 <= int(seconds) <= MOST_SECONDS:
            # 400: "missing or invalid parameters".
            self.answer(400)
            return
        if self.metadata.mode == "hop-limit":
            # The answer's IP packets have too few hops to live to arrive.
            self.metadata.hang()
            self.close_connection = True
            return
        token = self.metadata.new_token(int(seconds))
        self.answer(200, token, {"X-Aws-Ec2-Metadata-Token-Ttl-Seconds": seconds})

    def do_GET(self):
        if self.is_out_of_order():
            return
        # 401: "uses an invalid token"; without one, when version 2 is required.
        if not self.metadata.knows(self.headers.get("X-aws-ec2-metadata-token", "")):
            self.answer(401)
            return
        path = self.path.partition("?")[0].removeprefix("/latest/")
        values = self.metadata.values()
        folder = path.rstrip("/") + "/"
        inside = sorted({
            name[len(folder):].partition("/")[0] + ("/" if "/" in name[len(folder):] else "")
            for name in values if name.startswith(folder) and name != folder
        })
        if path in values or folder in values:
            self.answer(200, values.get(path) or values[folder])
        elif inside:
            self.answer(200, "\n".join(inside))
        else:
            self.answer(404)

