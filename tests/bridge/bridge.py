"""The bridge: EC2 for tests, with real block devices. Run it with a Python that has `requirements.txt`; see README.md.

Usage: bridge.py [--state DIRECTORY]

Prints one line of JSON when it is ready: {"api": URL, "control": URL, "state": DIRECTORY, "moto": URL, "pid": PID}.
Ends when its standard input does, or on a signal, and then leaves nothing behind.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlencode

import protocol
from cloud import Cloud
from control import Control
from faults import Faults, raise_error
from fleet import Fleet
from protocol import Answer, Ec2Error, Request
from server import Server
from templates import Templates
from upstream import VERSIONS, Upstream
from world import World

# How often states that are counted in seconds are looked at.
TICK = 0.05


class Log:
    """All calls since the start or the last time it was cleared."""

    def __init__(self):
        self.calls = []

    def add(self, request, answer, effect):
        params = {name: value for name, value in request.params.items() if name not in ("Action", "Version")}
        self.calls.append({
            "service": request.service, "action": request.action, "region": request.region, "access_key": request.access_key,
            "params": params, "status": answer.status, "code": answer.code, "fault": sorted(effect),
        })

    def describe(self):
        return {"calls": self.calls, "counts": Counter(call["action"] for call in self.calls)}

    def clear(self):
        self.calls = []


class Bridge:
    def __init__(self, directory):
        self.directory = directory
        self.lock = threading.RLock()
        self.ended = threading.Event()
        self.faults = Faults()
        self.log = Log()
        self.upstream = Upstream(directory)
        self.world = World(directory, self.upstream)
        self.templates = Templates(self.world)
        self.cloud = Cloud(self.world, self.templates)
        self.fleet = Fleet(self.world, self.templates)
        self.control = Control(self)
        handler = type("BoundHandler", (Handler,), {"bridge": self})
        self.server = Server(("127.0.0.1", 0), handler)

    def run(self):
        url = f"http://127.0.0.1:{self.server.server_address[1]}"
        moto = f"http://127.0.0.1:{self.upstream.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        ready = {"api": url, "control": f"{url}/_bridge", "state": self.directory, "moto": moto, "pid": os.getpid()}
        print(json.dumps(ready), flush=True)
        while not self.ended.wait(TICK):
            with self.lock:
                self.world.settle()

    def stop(self):
        self.server.shutdown()
        with self.lock:
            self.control.stop()
            self.world.images.reset()
            self.upstream.stop()

    def serve(self, request):
        """(answer, effect) of a call to AWS. One at a time, so that what a call sees is whole; delays are outside."""
        with self.lock:
            effect = self.faults.take(request)
            answer = self._carry_out(request, effect)
            self.log.add(request, answer, effect)
        return answer, effect

    def _carry_out(self, request, effect):
        if "drop" in effect:
            return Answer(0, b"", code="dropped")
        try:
            raise_error(effect)
            if request.service == "ec2":
                return self.cloud.handle(request, effect, self.faults.wants_history())
            if request.service == "autoscaling":
                return self.fleet.handle(request, effect)
            return self.upstream.forward(request.method, request.path, request.headers, request.body)
        except Ec2Error as error:
            return protocol.failure(error, request.service)
        except Exception:
            # A mistake of the bridge: the test shall see which.
            traceback.print_exc()
            error = Ec2Error("InternalError", f"the bridge failed: {traceback.format_exc(limit=-2)}", 500)
            return protocol.failure(error, request.service)

    def call_as_other(self, service, region, params):
        """For `Control`: without faults, and with all states of volumes and snapshots gone through before and after."""
        scope = f"AWS4-HMAC-SHA256 Credential=other/20200101/{region}/{service}/aws4_request, SignedHeaders=host, Signature=0"
        params = {"Version": VERSIONS[service], **params}
        request = Request.parse("POST", "/", {"Authorization": scope}, urlencode(params).encode())
        self.world.settle(force=True)
        answer = self._carry_out(request, {})
        self.world.settle(force=True)
        return answer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    bridge: Bridge

    def log_message(self, *_):
        pass

    def _any(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.startswith("/_bridge/"):
            with self.bridge.lock:
                status, value = self.bridge.control.handle(self.command, self.path[len("/_bridge/"):], body)
            self._send(Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"}))
            return
        request = Request.parse(self.command, self.path, dict(self.headers.items()), body)
        answer, effect = self.bridge.serve(request)
        if "delay" in effect:
            self.bridge.ended.wait(effect["delay"])
        if "drop" in effect or "drop-after" in effect:
            self.close_connection = True
            return
        self._send(answer)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _any

    def _send(self, answer):
        try:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)
        except (BrokenPipeError, ConnectionResetError):
            # The client has given up, as it may.
            self.close_connection = True


def guard(directory):
    """A process that outlives this one by the moment it takes to remove the files that a SIGKILL would leave. The kernel ends
    moto and detaches the loop devices by itself."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        # Nobody shall wait for this process because it holds their pipes or sockets.
        for descriptor in sorted(map(int, os.listdir("/proc/self/fd"))):
            if descriptor > 2 and descriptor != reader:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.read(reader, 1)
        for _ in range(50):
            shutil.rmtree(directory, ignore_errors=True)
            if not os.path.exists(directory):
                break
            time.sleep(0.05)
        os._exit(0)
    os.close(reader)
    return writer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", help="an empty or absent directory for images and trees; removed at the end")
    arguments = parser.parse_args()
    if arguments.state:
        os.makedirs(arguments.state, exist_ok=True)
        directory = os.path.realpath(arguments.state)
        if os.listdir(directory):
            parser.error(f"{directory} is not empty, and would be removed at the end")
    else:
        directory = os.path.realpath(tempfile.mkdtemp(prefix="ebs-bake-bridge-"))
    bridge = None
    try:
        bridge = Bridge(directory)
        guard(directory)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: bridge.ended.set())
        threading.Thread(target=_until_parent_ends, args=(bridge.ended,), daemon=True).start()
        bridge.run()
    finally:
        if bridge:
            bridge.stop()
        shutil.rmtree(directory, ignore_errors=True)


def _until_parent_ends(ended):
    while os.read(sys.stdin.fileno(), 4096):
        pass
    ended.set()


if __name__ == "__main__":
    main()
