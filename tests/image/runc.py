#!/usr/bin/env python3
"""runc for containers on a machine that lacks capabilities: leaves those out that the engine asks for and nobody could give.

Usage: runc.py CAP_A,CAP_B ARGUMENTS-OF-RUNC…
"""

import json
import os
import sys


def main():
    missing = set(sys.argv[1].split(","))
    arguments = sys.argv[2:]
    bundle, process = option(arguments, "--bundle"), option(arguments, "--process")
    if bundle and "create" in arguments:
        rewrite(os.path.join(bundle, "config.json"), missing, lambda config: config.get("process", {}))
    elif process:
        rewrite(process, missing, lambda config: config)
    os.execvp("runc", ["runc", *arguments])


def option(arguments, name):
    return arguments[arguments.index(name) + 1] if name in arguments[:-1] else None


def rewrite(path, missing, of):
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    sets = of(config).get("capabilities") or {}
    for name, held in sets.items():
        sets[name] = [capability for capability in held if capability not in missing]
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)


if __name__ == "__main__":
    main()
