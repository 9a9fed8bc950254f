"""moto's server: a process of its own, and calls to it."""

import ctypes
import http.client
import os
import re
import signal
import subprocess
import sys
import time
from urllib.parse import urlencode

from protocol import Answer, Ec2Error, parse_xml, text

# Not of the next hop's concern: https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "host", "content-length", "expect"}

START_TIMEOUT = 60
# Of the APIs.
VERSIONS = {"ec2": "2016-11-15", "autoscaling": "2011-01-01"}

# linux/prctl.h
PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def _end_with_parent():
    """The kernel ends moto with the thread that started it: the bridge's first."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Upstream:
    """A running moto server."""

    def __init__(self, directory):
        self.log_path = os.path.join(directory, "moto.log")
        environment = dict(os.environ, MOTO_EC2_LOAD_DEFAULT_AMIS="false", PYTHONUNBUFFERED="1")
        # The working directory is on the path of `-m`: not ours, whose modules have common names.
        with open(self.log_path, "wb") as log:
            command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
            self.process = subprocess.Popen(
                command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=_end_with_parent,
            )
        self.port = self._wait()

    def _wait(self):
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            with open(self.log_path, encoding="utf-8", errors="replace") as log:
                written = log.read()
            found = re.search(r"Running on http://127\.0\.0\.1:(\d+)", written)
            if found:
                return int(found.group(1))
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        self.stop()
        raise RuntimeError(f"moto did not start: {written[-2000:]}")

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def forward(self, method, path, headers, body):
        """Passes a call on as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            # Some clients write all names in lower case.
            passed = {name.lower(): value for name, value in headers.items() if name.lower() not in HOP_BY_HOP}
            passed.setdefault("content-type", "application/x-www-form-urlencoded; charset=utf-8")
            connection.request(method, path, body, passed)
            response = connection.getresponse()
            answer = Answer(response.status, response.read(), dict(response.getheaders()))
        finally:
            connection.close()
        for name in list(answer.headers):
            if name.lower() in HOP_BY_HOP:
                del answer.headers[name]
        if answer.status >= 400:
            answer.code = _code(answer)
        return answer

    def call(self, region, action, params=None, service="ec2"):
        """Calls EC2 or Auto Scaling on the bridge's own behalf; returns the answer's tree."""
        body = urlencode({"Action": action, "Version": VERSIONS[service], **(params or {})}).encode()
        scope = f"AWS4-HMAC-SHA256 Credential=bridge/20200101/{region}/{service}/aws4_request, SignedHeaders=host, Signature=0"
        return tree(self.forward("POST", "/", {"Authorization": scope}, body))

    def reset(self):
        self.forward("POST", "/moto-api/reset", {}, b"")


def tree(answer):
    """The tree of an answer in XML; an error in it is raised."""
    try:
        root = parse_xml(answer.body)
    except SyntaxError:
        # What moto has not implemented it answers with a page, which no client can parse.
        page = re.sub(r"<[^>]+>|\s+", " ", answer.body.decode("utf-8", "replace"))
        raise Ec2Error("InternalError", f"moto answered {answer.status}: {page[:300]}", 500) from None
    if answer.status >= 400:
        raise Ec2Error(text(root, ".//Code", "InternalError"), text(root, ".//Message", ""), answer.status)
    return root


def _code(answer):
    body = answer.body.decode("utf-8", "replace")
    found = re.search(r"<Code>([^<]+)</Code>", body) or re.search(r'"__type"\s*:\s*"([^"]+)"', body)
    return found.group(1) if found else "InternalError"
