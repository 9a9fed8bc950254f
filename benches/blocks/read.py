#!/usr/bin/env python3
"""Prints how many 512 KiB blocks of an image a fresh read-only mount reads to list every directory and read every file.

    sudo benches/blocks/read.py IMAGE MOUNT_POINT

`.git` is left alone, as a node that converges leaves it.
"""

import os
import sys

import linux


def main():
    image, at = sys.argv[1:]
    linux.private_mounts()
    linux.drop_cache(image)
    with linux.loop_device(image) as device:
        with linux.mounted(device, at, read_only=True):
            for folder, folders, names in os.walk(at):
                folders[:] = [f for f in folders if f != ".git"]
                for name in names:
                    path = os.path.join(folder, name)
                    if os.path.islink(path):
                        os.readlink(path)
                        continue
                    with open(path, "rb") as file:
                        file.read()
        print(len(linux.blocks_in_cache(image)))


if __name__ == "__main__":
    sys.exit(main())
