#!/usr/bin/env python3
"""Counts 512 KiB blocks: read by a fresh read-only mount that sees every file, and changed by a small commit.

    sudo benches/blocks/measure.py [--tree DIR | --files N] [--commits N] [--only NAME …]

Reads are counted in the page cache of the loop device's backing file, emptied before the mount; its readahead is off
(see linux.loop_device), that of the device is on, as on any disk. Changes are counted by hashing the image before and
after. "aged" means after all commits; ratios are to the first variant. "with .git": each commit also adds a pack and its
index, and replaces the git index and two small files, as a shallow fetch does.

The backing file must be on a filesystem with a page cache of its own (not tmpfs); TMPDIR says where, /var/tmp by default.
"""

import argparse
import os
import random
import statistics
import tempfile

import linux
import tree as trees

GIB = 1 << 30

PLAIN = "none,ext_attr,dir_index,filetype,extent,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize"
OURS = PLAIN + ",metadata_csum,resize_inode"
VOLUME = 8 * GIB


def sized(mib, *more, block=1024, ratio=4096, features=PLAIN, inode=256, extended="lazy_itable_init=0"):
    """Options for a filesystem of so many MiB whose features are all named."""
    options = ["-t", "ext2", "-b", str(block), "-I", str(inode), "-m", "0", "-i", str(ratio), "-O", features]
    return options + ["-E", f"nodiscard,{extended}", *more], f"{mib * 1024}k"


def ours(mib=64, block=1024):
    """What `host::filesystem::make` asks for on a volume of 8 GiB; keep the two alike."""
    extended = f"lazy_itable_init=1,resize={VOLUME // block}"
    return sized(mib, "-e", "remount-ro", block=block, features=OURS, extended=extended)


# Name → options of mkfs.ext4 and the filesystem's size (None: the whole volume).
VARIANTS = {
    "default": ([], None),
    "default, no journal": (["-O", "^has_journal"], None),
    "default options, 64 MiB": ([], "64M"),
    "ebs-bake": ours(),
    "ebs-bake, 32 MiB": ours(32),
    "ebs-bake, 128 MiB": ours(128),
    "ebs-bake, 2 KiB blocks": ours(block=2048),
    "ebs-bake, 4 KiB blocks": ours(block=4096),
    "plain": sized(64),
    "plain, 2 KiB blocks": sized(64, block=2048),
    "plain, 4 KiB blocks": sized(64, block=4096),
    "plain, packed metadata": sized(64, extended="lazy_itable_init=0,packed_meta_blocks=1"),
    "plain, metadata_csum": sized(64, features=PLAIN + ",metadata_csum"),
    "plain, metadata_csum, lazy": sized(64, features=PLAIN + ",metadata_csum", extended="lazy_itable_init=1"),
    "plain, uninit_bg": sized(64, features=PLAIN + ",uninit_bg"),
    "plain, resize_inode": sized(64, features=PLAIN + ",resize_inode"),
    "plain, resize_inode to 8 GiB": sized(
        64, features=PLAIN + ",resize_inode", extended=f"lazy_itable_init=0,resize={VOLUME // 1024}"
    ),
    "plain, sparse_super2": sized(
        64, features=PLAIN.replace("sparse_super", "sparse_super2"), extended="lazy_itable_init=0,num_backup_sb=0"
    ),
    "plain, no flex_bg": sized(64, features=PLAIN.replace(",flex_bg", "")),
    "plain, flex_bg of 128": sized(64, "-G", "128"),
    "plain, inodes of 128": sized(64, inode=128),
    "plain, 8 KiB per inode": sized(64, ratio=8192),
    "inline_data, inodes of 512": sized(64, features=PLAIN + ",inline_data", inode=512),
    "inline_data, 4 KiB blocks, inodes of 512": sized(64, block=4096, features=PLAIN + ",inline_data", inode=512),
    "inline_data, 4 KiB blocks, inodes of 1024": sized(64, block=4096, features=PLAIN + ",inline_data", inode=1024),
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

    def write(self, change, first=False):
        """Writes and removes files in place; mounts, unmounts."""
        with linux.loop_device(self.image) as device, linux.mounted(device, self.at, data="noinit_itable"):
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


def measure(options, size, content, commits, with_git):
    """Blocks read after the first fill, blocks read after all commits, blocks of the first fill, changed by a commit (mean)."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as directory:
        volume = Volume(directory, VOLUME, with_git)
        volume.make(options, size)
        volume.write(content, first=True)
        read, now = len(volume.blocks_read()), linux.block_hashes(volume.image)
        fill, changed = len(now), []
        for commit in commits:
            volume.write(commit)
            before, now = now, linux.block_hashes(volume.image)
            changed.append(linux.changed_blocks(before, now))
        return read, len(volume.blocks_read()), fill, statistics.mean(changed)


def medians(repeat, *arguments):
    """measure(), so many times."""
    return [statistics.median(column) for column in zip(*(measure(*arguments) for _ in range(repeat)))]


def parse():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", help="a directory to measure with instead of a generated tree")
    parser.add_argument("--files", type=int, default=3000, help="files of the generated tree (%(default)s)")
    parser.add_argument("--commits", type=int, default=20, help="commits to measure (%(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="measurements of each variant; medians count (%(default)s)")
    parser.add_argument("--only", nargs="*", help="names of variants")
    parser.add_argument(
        "--overwrite", action="store_true", help="write over a changed file's blocks rather than truncate it first"
    )
    return parser.parse_args()


def main():
    options = parse()
    Volume.overwrite = options.overwrite
    content = trees.load(options.tree) if options.tree else trees.generate(options.files)
    commits = trees.commits(content, options.commits)
    lengths = sorted(map(len, content.values()))
    print(
        f"{len(lengths)} files, {sum(lengths) / 1e6:.1f} MB, median {lengths[len(lengths) // 2]} B, "
        f"mean {sum(lengths) // len(lengths)} B; {len(commits)} commits of {statistics.mean(map(len, commits)):.1f} files\n"
    )
    print("| | read | ratio | read, aged | ratio | filled | changed | with .git: read | filled | changed |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    linux.private_mounts()
    base = None
    for name in options.only or VARIANTS:
        try:
            read, aged, fill, changed = medians(options.repeat, *VARIANTS[name], content, commits, False)
            git_read, _, git_fill, git_changed = medians(options.repeat, *VARIANTS[name], content, commits, True)
        except (RuntimeError, OSError) as error:
            print(f"| {name} | {error} |", flush=True)
            continue
        base = base or (read, aged)
        print(
            f"| {name} | {read:.0f} | {read / base[0]:.2f} | {aged:.0f} | {aged / base[1]:.2f} | {fill:.0f} | {changed:.1f} "
            f"| {git_read:.0f} | {git_fill:.0f} | {git_changed:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
