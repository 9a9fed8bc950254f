"""A tree shaped like a real chef-repo, and small commits to it, the same for every run with the same seed."""

import os
import random

WORDS = (
    "node default override cookbook recipe attribute template package service file directory execute action notify "
    "only_if not_if restart reload owner group mode source variables cookbook_file remote_file search data_bag role "
    "environment include_recipe platform version depends metadata nginx postgres redis sysctl limits users monitor"
).split()

# Directories of a cookbook with their share of its files, as public chef-repos have them.
SHAPE = (
    ("recipes", ".rb", 22),
    ("attributes", ".rb", 8),
    ("templates/default", ".erb", 22),
    ("files/default", "", 12),
    ("libraries", ".rb", 6),
    ("resources", ".rb", 8),
    ("spec", "_spec.rb", 10),
    ("test/integration/default", "_test.rb", 5),
    ("", ".md", 7),
)


def size(rng):
    """Bytes: median about 1 KB, mean about 3 KB, a few tens of KB."""
    return max(1, min(120_000, int(rng.lognormvariate(6.93, 1.45))))


def text(rng, length):
    """Text that looks like code."""
    parts, total = [], 0
    while total < length:
        line = "  " * rng.randint(0, 3) + " ".join(rng.choices(WORDS, k=rng.randint(1, 9))) + "\n"
        parts.append(line)
        total += len(line)
    return "".join(parts)[:length].encode()


def generate(files, seed=1):
    """Path → bytes of a chef-repo with so many files, in the order in which git lists them."""
    rng = random.Random(seed)
    tree = {}
    places, weights = [(d, e) for d, e, _ in SHAPE], [w for _, _, w in SHAPE]
    cookbook = 0
    while len(tree) < files * 0.93:
        name = f"cookbooks/{rng.choice(WORDS)}_{cookbook}"
        cookbook += 1
        tree[f"{name}/metadata.rb"] = text(rng, 300)
        for _ in range(int(rng.lognormvariate(2.2, 0.8))):
            place, end = rng.choices(places, weights)[0]
            stem = "_".join(rng.choices(WORDS, k=2)) + str(rng.randint(0, 99))
            tree["/".join(filter(None, (name, place, stem + end)))] = text(rng, size(rng))
    while len(tree) < files:
        place = rng.choice(("roles", "environments", "data_bags/users", "data_bags/keys"))
        tree[f"{place}/{rng.choice(WORDS)}{len(tree)}.json"] = text(rng, size(rng))
    return dict(sorted(tree.items()))


def load(root):
    """Path → bytes of the regular files of a directory, without `.git`."""
    tree = {}
    for folder, folders, names in os.walk(root):
        folders[:] = [f for f in folders if f != ".git"]
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path):
                with open(path, "rb") as file:
                    tree[os.path.relpath(path, root)] = file.read()
    return dict(sorted(tree.items()))


def commits(tree, count, seed=2):
    """A list of {path: bytes, or None for "deleted"} with one to six files each, mostly edits."""
    rng = random.Random(seed)
    tree, result = dict(tree), []
    for number in range(count):
        change = {}
        for path in rng.sample(sorted(tree), rng.randint(1, 6)):
            kind = rng.random()
            if kind < 0.85:
                old = tree[path]
                at = rng.randint(0, len(old))
                change[path] = old[:at] + text(rng, rng.randint(5, 200)) + old[min(len(old), at + rng.randint(0, 150)) :]
            elif kind < 0.95:
                change[f"{os.path.dirname(path)}/new{number}_{len(change)}.rb".lstrip("/")] = text(rng, size(rng))
            else:
                change[path] = None
        for path, data in change.items():
            if data is None:
                del tree[path]
            else:
                tree[path] = data
        result.append(change)
    return result
