#!/usr/bin/env python3
"""Counts 512 KiB blocks: read by a fresh read-only mount that sees every file, and changed by a small commit.

    sudo benches/blocks/measure.py [--tree DIR | --files N] [--only NAME …]

Reads are counted in the page cache of the loop device's backing file, emptied before the mount; its readahead is off
(see linux.loop_device), that of the device is on, as on any disk. Changes are counted by hashing the image before and
after. `with .git`: each commit also adds a pack and its index, and replaces the git index and two small files, as a
shallow fetch does.
"""

import argparse
import os
import random
import statistics
import sys
import tempfile

import linux
import tree as trees

GIB = 1 << 30
MIB = 1 << 20

PLAIN = "none,ext_attr,dir_index,filetype,extent,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize"


def sized(mib, *extra, block=4096, ratio=4096, features=PLAIN, inode=256):
    """Options for a filesystem of so many MiB whose features are all named."""
    options = ["-b", str(block), "-I", str(inode), "-m", "0", "-i", str(ratio), "-O", features, *extra]
    return options, f"{mib * 1024}k"


E = ("-E", "lazy_itable_init=0,nodiscard")
PACKED = ("-E", "lazy_itable_init=0,nodiscard,packed_meta_blocks=1")

VARIANTS = {
    "default 8 GiB": ([], None),
    "default 8 GiB, no journal": (["-O", "^has_journal"], None),
    "default options, 64 MiB": ([], "64M"),
    "default options, 64 MiB, no journal": (["-O", "^has_journal"], "64M"),
    "plain 64M 4k": sized(64, *E),
    "plain 64M 4k packed": sized(64, *PACKED),
    "plain 64M 4k i8192": sized(64, *E, ratio=8192),
    "plain 64M 4k I128": sized(64, *E, inode=128),
    "plain 64M 4k csum": sized(64, *E, features=PLAIN + ",metadata_csum"),
    "plain 64M 4k csum 64bit": sized(64, *E, features=PLAIN + ",metadata_csum,64bit"),
    "plain 64M 4k resize_inode": sized(64, *E, features=PLAIN + ",resize_inode"),
    "plain 64M 4k uninit_bg": sized(64, *E, features=PLAIN + ",uninit_bg"),
    "plain 64M 4k sparse_super2": sized(64, "-E", "lazy_itable_init=0,nodiscard,num_backup_sb=0", features=PLAIN.replace("sparse_super", "sparse_super2")),
    "plain 64M 2k": sized(64, *E, block=2048),
    "plain 64M 2k packed": sized(64, *PACKED, block=2048),
    "plain 64M 1k": sized(64, *E, block=1024),
    "plain 64M 1k packed": sized(64, *PACKED, block=1024),
    "plain 64M 1k G256 packed": sized(64, "-G", "256", *PACKED, block=1024),
    "plain 64M 1k packed I128": sized(64, *PACKED, block=1024, inode=128),
    "plain 32M 4k": sized(32, *E),
    "plain 32M 1k packed": sized(32, *PACKED, block=1024),
    "plain 32M 2k packed": sized(32, *PACKED, block=2048),
    "plain 128M 4k": sized(128, *E),
    "plain 128M 1k packed": sized(128, *PACKED, block=1024),
    "inline 64M 4k I256": sized(64, *E, features=PLAIN + ",inline_data"),
    "inline 64M 4k I512": sized(64, *E, features=PLAIN + ",inline_data", inode=512),
    "inline 64M 4k I1024": sized(64, *E, features=PLAIN + ",inline_data", inode=1024),
    "inline 64M 4k I2048": sized(64, *E, features=PLAIN + ",inline_data", inode=2048),
    "inline 64M 1k I512 packed": sized(64, *PACKED, block=1024, features=PLAIN + ",inline_data", inode=512),
    "no flex_bg 64M 4k": sized(64, *E, features=PLAIN.replace(",flex_bg", "")),
}


class Volume:
    """An image with a filesystem that is filled and changed as a bake does it."""

    overwrite = False  # keep a changed file's blocks rather than truncate it first

    def __init__(self, directory, size, with_git):
        self.image = os.path.join(directory, "image")
        self.at = os.path.join(directory, "mnt")
        self.with_git = with_git
        self.rng = random.Random(3)
        os.makedirs(self.at, exist_ok=True)
        with open(self.image, "wb") as file:
            file.truncate(size)

    def make(self, options, size):
        """mkfs.ext4 with these options."""
        with linux.loop_device(self.image) as device:
            linux.run("mkfs.ext4", "-q", "-L", "chef", *options, device, *([size] if size else []))

    def grow(self, size):
        """resize2fs, unmounted."""
        with linux.loop_device(self.image) as device:
            linux.run("resize2fs", "-f", device, size)

    def write(self, change, first=False):
        """Writes and removes files in place; mounts, unmounts."""
        with linux.loop_device(self.image) as device, linux.mounted(device, self.at):
            if self.with_git:
                self.git(len(change), sum(len(d or b"") for d in change.values()) if first else 400 * len(change))
            for folder in sorted({os.path.dirname(path) for path in change}):
                os.makedirs(os.path.join(self.at, folder), exist_ok=True)
            for path, data in change.items():
                full = os.path.join(self.at, path)
                if data is None:
                    os.unlink(full)
                    continue
                if self.overwrite and os.path.exists(full):
                    with open(full, "r+b") as file:
                        file.write(data)
                        file.truncate()
                    continue
                with open(full, "wb") as file:
                    file.write(data)

    def git(self, files, size):
        """What a fetch leaves in `.git`: a pack of about a quarter of the content, its index, the index, two refs."""
        root = os.path.join(self.at, ".git")
        os.makedirs(os.path.join(root, "objects/pack"), exist_ok=True)
        name = os.path.join(root, "objects/pack", f"pack-{self.rng.getrandbits(80):x}")
        self.entries = max(getattr(self, "entries", 0), files)
        for path, length in ((name + ".pack", size // 4 + 500), (name + ".idx", 1072 + 40 * files)):
            with open(path, "wb") as file:
                file.write(self.rng.randbytes(length))
        for path, length in (("index", 100 * self.entries), ("refs-head", 41), ("shallow", 41)):
            full = os.path.join(root, path)
            with open(full + ".lock", "wb") as file:
                file.write(self.rng.randbytes(length))
            os.rename(full + ".lock", full)

    def blocks_read(self, data=""):
        """The blocks that a fresh read-only mount reads to list every directory and read every file but `.git`."""
        linux.drop_cache(self.image)
        with linux.loop_device(self.image) as device:
            with linux.mounted(device, self.at, read_only=True, data=data):
                for folder, folders, names in os.walk(self.at):
                    folders[:] = [f for f in folders if f != ".git"]
                    for name in names:
                        with open(os.path.join(folder, name), "rb") as file:
                            file.read()
            return linux.blocks_in_cache(self.image)


def measure(options, size, content, commits, volume_size, with_git):
    """(blocks read, of which not zero, blocks of the first fill, mean of blocks changed by a commit, read after them)"""
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as directory:
        volume = Volume(directory, volume_size, with_git)
        volume.make(options, size)
        volume.write(content, first=True)
        read, now = volume.blocks_read(), linux.block_hashes(volume.image)
        fill, changed = len(now), []
        for commit in commits:
            volume.write(commit)
            before, now = now, linux.block_hashes(volume.image)
            changed.append(linux.changed_blocks(before, now))
        later = len(volume.blocks_read()) if commits else 0
        return len(read), len(read & now.keys()), fill, statistics.mean(changed) if changed else 0, later


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--tree", help="a directory to measure with instead of a generated tree")
    arguments.add_argument("--files", type=int, default=3000, help="files of the generated tree (%(default)s)")
    arguments.add_argument("--commits", type=int, default=20, help="commits to measure (%(default)s)")
    arguments.add_argument("--volume-gib", type=int, default=8, help="size of the volume (%(default)s)")
    arguments.add_argument("--only", nargs="*", help="names of variants")
    arguments.add_argument("--overwrite", action="store_true", help="write over a changed file's blocks, do not truncate it first")
    options = arguments.parse_args()
    Volume.overwrite = options.overwrite
    content = trees.load(options.tree) if options.tree else trees.generate(options.files)
    commits = trees.commits(content, options.commits)
    lengths = sorted(map(len, content.values()))
    print(
        f"{len(lengths)} files, {sum(lengths) / 1e6:.1f} MB, median {lengths[len(lengths) // 2]} B, "
        f"mean {sum(lengths) // len(lengths)} B; {len(commits)} commits of {statistics.mean(map(len, commits)):.1f} files"
    )
    print(f"{'':36} | read (not zero) after commits | fill | changed | fill, changed with .git")
    linux.private_mounts()
    for name in options.only or VARIANTS:
        try:
            plain = measure(*VARIANTS[name], content, commits, options.volume_gib * GIB, False)
            git = measure(*VARIANTS[name], content, commits, options.volume_gib * GIB, True)
        except (RuntimeError, OSError) as error:
            print(f"{name:36} | {error}", flush=True)
            continue
        print(
            f"{name:36} | {plain[0]:4} ({plain[1]:3}) {plain[4]:4}, {git[0]:3} with .git | {plain[2]:4} | {plain[3]:5.1f} "
            f"| {git[2]:4} {git[3]:5.1f}",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
