"""Volumes as sparse files, attached ones as loop devices, snapshots as copies."""

import contextlib
import errno
import fcntl
import os
import stat
import struct

GIB = 1 << 30

# linux/loop.h
LOOP_SET_CAPACITY = 0x4C07
LOOP_SET_DIRECT_IO = 0x4C08
LOOP_CONFIGURE = 0x4C0A
LOOP_CLR_FD = 0x4C01
LOOP_CTL_GET_FREE = 0x4C82
LO_FLAGS_AUTOCLEAR = 4
# linux/fs.h
FICLONE = 0x40049409


class Loop:
    """A loop device over a file. The kernel detaches it when the last process that has it open is gone: also when this one
    is killed, for the bridge keeps it open."""

    # The kernel's number of this very attachment.
    sequence = None

    def __init__(self, image, node_directory):
        self.image = image
        with open("/dev/loop-control", "rb", buffering=0) as control, open(image, "r+b", buffering=0) as backing:
            while True:
                number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
                self._fd, self.node = _open_node(number, node_directory)
                try:
                    fcntl.ioctl(self._fd, LOOP_CONFIGURE, _configuration(backing.fileno(), image))
                    break
                except OSError as error:
                    os.close(self._fd)
                    # Somebody else took this number in between.
                    if error.errno != errno.EBUSY:
                        raise
        self.device = os.fstat(self._fd).st_rdev
        # Linux/Documentation/ABI/stable/sysfs-block: since 5.15.
        with contextlib.suppress(OSError), open(f"/sys/dev/block/{self.numbers}/diskseq", encoding="ascii") as file:
            self.sequence = file.read().strip()

    @property
    def numbers(self):
        """`major:minor`"""
        return f"{os.major(self.device)}:{os.minor(self.device)}"

    def size(self):
        return os.lseek(self._fd, 0, os.SEEK_END)

    def reread_size(self):
        fcntl.ioctl(self._fd, LOOP_SET_CAPACITY)

    def bypass_cache(self):
        """Kernels before 6.16 turn what a cached read of the file lacks into zeros; direct ones fail in all."""
        try:
            fcntl.ioctl(self._fd, LOOP_SET_DIRECT_IO, 1)
        except OSError:
            pass

    def detach(self):
        """While others have it open the kernel waits for them."""
        try:
            fcntl.ioctl(self._fd, LOOP_CLR_FD)
        except OSError:
            pass
        os.close(self._fd)

    def hold(self):
        """What keeps it from being detached, if anything does."""
        return "busy" if self._is_mounted() else None

    def _is_mounted(self):
        """Whether a filesystem on it is mounted, in any namespace of this machine that can be seen."""
        for process in os.listdir("/proc"):
            if process.isdigit():
                try:
                    with open(f"/proc/{process}/mountinfo", encoding="utf-8", errors="replace") as mounts:
                        if any(line.split(" ", 3)[2] == self.numbers for line in mounts):
                            return True
                except OSError:
                    continue
        return False


def _configuration(backing, image):
    info = struct.pack("<5Q4I64s64s32s2Q", 0, 0, 0, 0, 0, 0, 0, 0, LO_FLAGS_AUTOCLEAR, image.encode()[:63], b"", b"", 0, 0)
    return struct.pack("<II", backing, 0) + info + bytes(64)


def _open_node(number, directory):
    """The usual node, or a private one: a container's `/dev` lacks those of new devices."""
    with open(f"/sys/block/loop{number}/dev", encoding="ascii") as file:
        major, minor = map(int, file.read().split(":"))
    usual = f"/dev/loop{number}"
    try:
        descriptor = os.open(usual, os.O_RDWR | os.O_CLOEXEC)
        if os.fstat(descriptor).st_rdev == os.makedev(major, minor):
            return descriptor, usual
        os.close(descriptor)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENXIO):
            raise
    private = os.path.join(directory, f"loop{number}")
    if not os.path.exists(private):
        os.mknod(private, 0o600 | stat.S_IFBLK, os.makedev(major, minor))
    return os.open(private, os.O_RDWR | os.O_CLOEXEC), private


def copy_sparse(source, target):
    """A copy of the bytes as they are now: shared by the filesystem where it can, else without the holes."""
    with open(source, "rb", buffering=0) as old, open(target, "wb", buffering=0) as new:
        try:
            fcntl.ioctl(new, FICLONE, old.fileno())
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY):
                raise
        new.truncate(os.fstat(old.fileno()).st_size)
        _copy_data(old.fileno(), new.fileno())


def _copy_data(old, new):
    size, start = os.fstat(old).st_size, 0
    while start < size:
        try:
            start = os.lseek(old, start, os.SEEK_DATA)
        except OSError as error:
            # Nothing but a hole is left.
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(old, start, os.SEEK_HOLE)
        while start < end:
            start += os.copy_file_range(old, new, end - start, start, start)


class Images:
    """The files under the state directory, and the loop devices on them."""

    def __init__(self, directory):
        self.directory = directory
        self.loops = {}
        self._nodes = self._folder("nodes")
        self._folder("volumes")
        self._folder("snapshots")

    def _folder(self, name):
        path = os.path.join(self.directory, name)
        os.makedirs(path, exist_ok=True)
        return path

    def volume(self, volume_id):
        """The path of a volume's image."""
        return os.path.join(self.directory, "volumes", volume_id)

    def snapshot(self, snapshot_id):
        """The path of a snapshot's image."""
        return os.path.join(self.directory, "snapshots", snapshot_id)

    def create(self, volume_id, size_gib, snapshot_id=None):
        """A volume, blank or with the snapshot's content; a snapshot that was not taken here has none."""
        path = self.volume(volume_id)
        if snapshot_id and os.path.exists(self.snapshot(snapshot_id)):
            copy_sparse(self.snapshot(snapshot_id), path)
        with open(path, "ab") as file:
            file.truncate(max(size_gib * GIB, os.path.getsize(path)))

    def take_snapshot(self, volume_id, snapshot_id):
        copy_sparse(self.volume(volume_id), self.snapshot(snapshot_id))

    def copy_snapshot(self, source_id, snapshot_id):
        if os.path.exists(self.snapshot(source_id)):
            copy_sparse(self.snapshot(source_id), self.snapshot(snapshot_id))

    def grow(self, volume_id, size_gib):
        os.truncate(self.volume(volume_id), size_gib * GIB)
        if volume_id in self.loops:
            self.loops[volume_id].reread_size()

    def attach(self, volume_id, host):
        loop = self.loops.get(volume_id)
        if loop is None:
            loop = self.loops[volume_id] = host.attach(self.volume(volume_id), self._nodes)
        return loop

    def detach(self, volume_id):
        loop = self.loops.pop(volume_id, None)
        if loop is not None:
            loop.detach()

    def fail_reads(self, volume_id, failing):
        """Lets every read of the device fail with EIO: its file has no content any more. The content comes back after."""
        path, saved = self.volume(volume_id), self.volume(volume_id) + ".saved"
        if failing and not os.path.exists(saved):
            copy_sparse(path, saved)
            if volume_id in self.loops:
                self.loops[volume_id].bypass_cache()
            os.truncate(path, 0)
        elif not failing and os.path.exists(saved):
            # Into the same file, which the loop device has open.
            os.truncate(path, os.path.getsize(saved))
            with open(saved, "rb", buffering=0) as old, open(path, "r+b", buffering=0) as new:
                _copy_data(old.fileno(), new.fileno())
            os.unlink(saved)

    def write(self, volume_id, offset, data):
        """Writes past every filesystem; to the device if there is one, so that nobody reads old cache."""
        loop = self.loops.get(volume_id)
        with open(loop.node if loop else self.volume(volume_id), "r+b", buffering=0) as file:
            os.pwrite(file.fileno(), data, offset)
            os.fsync(file.fileno())

    def delete_volume(self, volume_id):
        self.detach(volume_id)
        for path in (self.volume(volume_id), self.volume(volume_id) + ".saved"):
            if os.path.exists(path):
                os.unlink(path)

    def delete_snapshot(self, snapshot_id):
        if os.path.exists(self.snapshot(snapshot_id)):
            os.unlink(self.snapshot(snapshot_id))

    def reset(self):
        for volume_id in list(self.loops):
            self.detach(volume_id)
        for folder in ("volumes", "snapshots", "nodes"):
            for name in os.listdir(os.path.join(self.directory, folder)):
                os.unlink(os.path.join(self.directory, folder, name))
