"""The few kernel interfaces that the measurement needs: loop devices, mounts, the page cache of a file.

Needs root. Standard library only.
"""

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import mmap
import os
import struct
import subprocess

BLOCK = 512 * 1024  # what an EBS snapshot counts in

LOOP_CTL_GET_FREE = 0x4C82
LOOP_CONFIGURE = 0x4C0A
LO_FLAGS_AUTOCLEAR = 4
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOATIME, MS_REC, MS_PRIVATE = 1, 2, 4, 1024, 16384, 1 << 18
CLONE_NEWNS = 0x00020000

libc = ctypes.CDLL(None, use_errno=True)
libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mmap.restype = ctypes.c_void_p
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def check(result, what):
    """Raises OSError for a system call that returned -1."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def private_mounts():
    """Mounts made from here on are seen by this process and its children alone, and die with them."""
    check(libc.unshare(CLONE_NEWNS), "unshare")
    check(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "mount --make-rprivate /")


@contextlib.contextmanager
def loop_device(path):
    """A loop device over the file, gone at the end of the block.

    The kernel reads the file through our own open file description, so POSIX_FADV_RANDOM on it turns the file's own
    readahead off: what is in its page cache afterwards is what the filesystem asked the *device* for. The readahead of
    the loop device itself stays as any disk has it.
    """
    backing = os.open(path, os.O_RDWR)
    node = None
    try:
        os.posix_fadvise(backing, 0, 0, os.POSIX_FADV_RANDOM)
        with open("/dev/loop-control", "rb") as control:
            while node is None:
                number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
                device = os.open(f"/dev/loop{number}", os.O_RDWR)
                # struct loop_config { fd, block_size, struct loop_info64 { 5 × u64, 4 × u32, … }, reserved }
                info = struct.pack("<5Q4I", 0, 0, 0, 0, 0, number, 0, 0, LO_FLAGS_AUTOCLEAR).ljust(232, b"\0")
                config = struct.pack("<II", backing, 0) + info + bytes(64)
                try:
                    fcntl.ioctl(device, LOOP_CONFIGURE, config)
                    node = device
                except OSError as error:
                    os.close(device)
                    if error.errno != errno.EBUSY:
                        raise
        yield f"/dev/loop{number}"
    finally:
        os.close(backing)
        if node is not None:
            os.close(node)


@contextlib.contextmanager
def mounted(device, at, kind="ext4", read_only=False, data=""):
    """The device's filesystem at the directory; unmounted, with everything written, at the end of the block."""
    flags = MS_NOSUID | MS_NODEV | MS_NOATIME | (MS_RDONLY if read_only else 0)
    check(libc.mount(device.encode(), str(at).encode(), kind.encode(), flags, data.encode()), f"mount {device}")
    try:
        yield at
    finally:
        fd = os.open(at, os.O_RDONLY)
        libc.syncfs(fd)
        os.close(fd)
        check(libc.umount2(str(at).encode(), 0), f"umount {at}")


def drop_cache(path):
    """Empties the page cache of a file (written back first)."""
    fd = os.open(path, os.O_RDWR)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def blocks_in_cache(path):
    """The numbers of the 512 KiB blocks of a file of which some page is in the page cache."""
    size = os.path.getsize(path)
    page = mmap.PAGESIZE
    vector = ctypes.create_string_buffer((size + page - 1) // page)
    fd = os.open(path, os.O_RDONLY)
    address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    os.close(fd)
    try:
        check(libc.mincore(address, size, vector), "mincore")
    finally:
        libc.munmap(address, size)
    per_block = BLOCK // page
    raw = bytes(byte & 1 for byte in vector.raw)
    return {i // per_block for i in range(0, len(raw), per_block) if 1 in raw[i : i + per_block]}


def block_hashes(path):
    """Block number → hash of every 512 KiB block that is not all zero."""
    hashes = {}
    zero = bytes(BLOCK)
    with open(path, "rb") as file:
        fd, end = file.fileno(), os.path.getsize(path)
        position = 0
        while position < end:
            try:
                position = os.lseek(fd, position, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    break
                raise
            position -= position % BLOCK
            data = os.pread(fd, BLOCK, position)
            if data != zero[: len(data)]:
                hashes[position // BLOCK] = hashlib.blake2b(data, digest_size=16).digest()
            position += BLOCK
    return hashes


def changed_blocks(before, after):
    """How many blocks differ between two results of block_hashes."""
    return sum(1 for block in before.keys() | after.keys() if before.get(block) != after.get(block))


def run(*command):
    """Runs a program that must succeed and hides its output unless it fails."""
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit {result.returncode}: {result.stderr.strip()[-400:]}")
    return result.stdout
