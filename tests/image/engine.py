#!/usr/bin/env python3
"""Docker's engine for tests: the one that runs on this machine, else one of our own that disturbs nothing.

Prints one line of JSON when it is ready, and ends what it began when its standard input ends: also when the test is killed. What one
leaves that was itself killed, the next one removes.

An engine of our own is Debian's dockerd with directories, a socket and cgroups of its own, without bridge and firewall rules: its
containers have the host's network (`--network host`) or none.
"""

import ctypes
import fcntl
import glob
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PREFIX = "ebs-bake-engine-"
# What dockerd makes wherever it is told to keep its files.
STRAY = ["/etc/docker/key.json", "/etc/docker", "/run/docker/plugins", "/run/docker", "/run/containerd/s", "/run/containerd"]
START_TIMEOUT = 60
STOP_TIMEOUT = 20
PR_SET_PDEATHSIG = 1


def main():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    client = working_client()
    if (borrowed := running_engine(client)) is not None:
        serve(client, {}, f"ebs-bake-test:{os.getppid()}", borrowed)
        subprocess.run([client, "image", "rm", "--force", f"ebs-bake-test:{os.getppid()}"], check=False, capture_output=True)
        return
    sweep()
    engine = Engine(client)
    try:
        engine.start()
        serve(client, engine.environment(), "ebs-bake-test:latest", None, engine.missing)
    finally:
        engine.stop()


def serve(client, environment, image, borrowed, missing=()):
    """Says where the engine is, and waits until nobody needs it."""
    ready = {"client": client, "environment": environment, "image": image, "borrowed": borrowed, "missing": list(missing)}
    print(json.dumps(ready), flush=True)
    # Whoever started us may be gone before it has read on.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    while os.read(0, 4096):
        pass


def working_client():
    """A docker command that can build with BuildKit: older ones can by themselves, newer ones need the plugin buildx."""
    directories = os.environ["PATH"].split(":") + ["/usr/bin"]
    for client in (os.path.join(directory, "docker") for directory in directories):
        if os.access(client, os.X_OK):
            probe = [client, "build", "--help"]
            environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
            if subprocess.run(probe, env=environment, check=False, capture_output=True).returncode == 0:
                return client
    sys.exit("no docker command that can build with BuildKit: install docker.io, and docker-buildx where there is such a package")


def running_engine(client):
    """The version of the engine that answers, if it is one that can use this machine's devices and directories."""
    form = "{{.ServerVersion}}\t{{.Name}}\t{{json .SecurityOptions}}"
    asked = subprocess.run([client, "info", "--format", form], check=False, capture_output=True, text=True)
    if asked.returncode or asked.stdout.count("\t") != 2:
        return None
    version, name, security = asked.stdout.strip().split("\t")
    remapped = any(word in security for word in ("name=rootless", "name=userns"))
    return version if version and name == platform.node() and not remapped else None


class Engine:
    """dockerd, and everything that it leaves."""

    def __init__(self, client):
        self.client = client
        self.directory = tempfile.mkdtemp(prefix=PREFIX)
        self.lock = locked(self.directory)
        self.missing = missing_capabilities()
        self.process = None
        self.stray = [path for path in STRAY if not os.path.exists(path)]

    def path(self, name):
        return os.path.join(self.directory, name)

    def environment(self):
        """What a docker command, ours or another tool's, needs to talk to this engine."""
        bin_directory = self.path("bin")
        os.makedirs(bin_directory, exist_ok=True)
        os.symlink(self.client, os.path.join(bin_directory, "docker"))
        return {
            "DOCKER_HOST": f"unix://{self.path('socket')}",
            "DOCKER_CONFIG": self.path("config"),
            "DOCKER_BUILDKIT": "1",
            "PATH": f"{bin_directory}:{os.environ['PATH']}",
        }

    def start(self):
        if not shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin"):
            raise SystemExit("no dockerd: install docker.io")
        options = {
            "data-root": self.path("data"),
            "exec-root": self.path("exec"),
            "pidfile": self.path("pid"),
            "host": f"unix://{self.path('socket')}",
            "group": "0",
            "cgroup-parent": f"/{os.path.basename(self.directory)}",
            "exec-opt": "native.cgroupdriver=cgroupfs",
            "bridge": "none",
            "iptables": "false",
            "ip6tables": "false",
            "ip-forward": "false",
            "ip-masq": "false",
        }
        if self.missing:
            options |= {"add-runtime": f"bounded={self.bounded_runtime()}", "default-runtime": "bounded"}
        command = ["dockerd", *(f"--{name}={value}" for name, value in options.items())]
        # containerd writes to TMPDIR when dockerd asks it what it hangs on.
        environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "TMPDIR": self.directory}
        with open(self.path("log"), "wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, preexec_fn=end_with_parent
            )
        self.wait_until_it_answers()

    def wait_until_it_answers(self):
        deadline = time.monotonic() + START_TIMEOUT
        probe = [self.client, "--host", f"unix://{self.path('socket')}", "version"]
        while subprocess.run(probe, check=False, capture_output=True).returncode:
            if self.process.poll() is not None or time.monotonic() > deadline:
                with open(self.path("log"), encoding="utf-8", errors="replace") as log:
                    raise SystemExit("dockerd does not start:\n" + "".join(log.readlines()[-15:]))
            time.sleep(0.05)

    def bounded_runtime(self):
        """A container can have no capability that we lack, not even a privileged one: a runtime that leaves those out."""
        path = self.path("runc")
        with open(path, "w", encoding="utf-8") as script:
            script.write(f"#!/bin/sh\nexec {sys.executable} '{HERE}/runc.py' {','.join(self.missing)} \"$@\"\n")
        os.chmod(path, 0o700)
        return path

    def stop(self):
        if self.process and self.process.poll() is None:
            try:
                self.remove_containers()
                self.process.terminate()
                self.process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        clear(self.directory)
        for path in self.stray:
            remove(path)


    def remove_containers(self):
        """dockerd would ask each to stop, and wait for those that do not listen."""
        docker = [self.client, "--host", f"unix://{self.path('socket')}"]
        options = {"check": False, "capture_output": True, "text": True, "timeout": STOP_TIMEOUT}
        left = subprocess.run([*docker, "ps", "--all", "--quiet"], **options).stdout.split()
        if left:
            subprocess.run([*docker, "rm", "--force", *left], **options)


def sweep():
    """Removes what engines left whose process was killed."""
    for lock_file in glob.glob(os.path.join(tempfile.gettempdir(), PREFIX + "*", "lock")):
        directory = os.path.dirname(lock_file)
        if lock := locked(directory):
            clear(directory)
            lock.close()


def locked(directory):
    """The lock that says that a directory has an owner; `None` if another process has it."""
    file = open(os.path.join(directory, "lock"), "w", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def clear(directory):
    """Ends the processes of this directory's engine, unmounts what is mounted there, and removes it with its cgroups."""
    for pid in processes(directory):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    for point in reversed(mounts(directory)):
        subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)
    for group in glob.glob(f"/sys/fs/cgroup/**/{os.path.basename(directory)}", recursive=True):
        for root, _, _ in os.walk(group, topdown=False):
            remove(root)
    shutil.rmtree(directory, ignore_errors=True)


def processes(directory):
    """Those that have the directory in their command line, such as containerd and its shims, and those in its cgroups."""
    found = set()
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        pid = int(path.split("/")[2])
        if f"{directory}/".encode() in contents(path) and pid != os.getpid():
            found.add(pid)
    for group in glob.glob(f"/sys/fs/cgroup/**/{os.path.basename(directory)}/**/cgroup.procs", recursive=True):
        found |= {int(pid) for pid in contents(group).split()}
    return found


def mounts(directory):
    points = [line.split(" ")[4] for line in contents("/proc/self/mountinfo").decode().splitlines()]
    return [point for point in points if point.startswith(f"{directory}/")]


def contents(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def remove(path):
    """A file, or a directory that nothing is in."""
    try:
        os.rmdir(path) if os.path.isdir(path) else os.unlink(path)
    except OSError:
        pass


def missing_capabilities():
    """The names of those that this process could not give to a child, in the order of their numbers."""
    status = contents("/proc/self/status").decode()
    bounding = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapBnd:")), 16)
    last = int(contents("/proc/sys/kernel/cap_last_cap"))
    return [CAPABILITIES[n] for n in range(min(last + 1, len(CAPABILITIES))) if not bounding >> n & 1]


# linux/include/uapi/linux/capability.h
CAPABILITIES = [
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
        "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
        "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
        "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
    ).split()
]


def end_with_parent():
    """In a child: a session of its own, that Ctrl-C does not reach, and SIGTERM when its parent dies."""
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    main()
