#!/usr/bin/env python3
"""changes.py [--changes N | --seconds S] [--seed S] STORE PARTS MOUNT: random changes of a plain store
(add, replace, rename, delete, chmod, touch), models from the folder PARTS, against a model of what must
be listed: equal after quiet, which comes every 500 changes and at the end. Readers open in between: what
changes at that moment may be stale, nothing else may be said."""
import argparse
import errno
import os
import random
import shutil
import time

ap = argparse.ArgumentParser()
ap.add_argument("--changes", type=int, default=300)
ap.add_argument("--seconds", type=float, default=0)
ap.add_argument("--seed", type=int, default=1)
ap.add_argument("store")
ap.add_argument("parts")
ap.add_argument("mount")
args = ap.parse_args()
r = random.Random(args.seed)
srcs = [os.path.join(args.parts, f) for f in sorted(os.listdir(args.parts)) if f.endswith(".gguf")]
names = ["m%02d" % i for i in range(20)]
have = set()


def listed():
    out = []
    for d, _, files in os.walk(args.mount):
        out += [os.path.join(d, f) for f in files if f.endswith(".apr")]
    return out


def shown():
    return sorted(os.path.basename(p)[:-4] for p in listed())


def head_of(path, end):
    """Its first bytes; a source touched just now may be stale until its scan, but not after."""
    while True:
        try:
            with open(path, "rb") as h:
                return h.read(4)
        except OSError as e:
            if e.errno not in (errno.ENOENT, errno.EIO, errno.ESTALE) or time.time() > end:
                raise
            time.sleep(0.05)


def settled():
    """The listing is the model's, each name once, and every file opens."""
    end = time.time() + 20
    while shown() != sorted(have) and time.time() < end:
        time.sleep(0.05)
    got = shown()
    assert got == sorted(have), (sorted(set(got) - have), sorted(have - set(got)), got)
    for path in listed():
        assert head_of(path, end) == b"APR\0", path


def change():
    name = r.choice(names)
    path = os.path.join(args.store, name + ".gguf")
    act = r.choice(["add", "add", "delete", "rename", "chmod", "touch", "open"])
    if act == "add":
        tmp = os.path.join(args.store, "." + name + ".tmp")
        shutil.copyfile(r.choice(srcs), tmp)
        os.rename(tmp, path)
        have.add(name)
    elif name not in have:
        pass
    elif act == "delete":
        os.unlink(path)
        have.discard(name)
    elif act == "rename":
        to = r.choice(names)
        os.rename(path, os.path.join(args.store, to + ".gguf"))
        have.discard(name)
        have.add(to)
    elif act == "chmod":
        os.chmod(path, r.choice([0o644, 0o600, 0o444]))
    elif act == "touch":
        os.utime(path)
    else:
        for p in listed():
            if p.endswith("/" + name + ".apr"):
                try:
                    with open(p, "rb") as h:
                        h.read(100)
                except OSError as e:
                    assert e.errno in (errno.ENOENT, errno.EIO, errno.ESTALE), e


print("# seed", args.seed, flush=True)
n, begun = 0, time.time()
while time.time() < begun + args.seconds if args.seconds else n < args.changes:
    change()
    n += 1
    if n % 50 == 0:
        time.sleep(r.random() * 0.1)
    if n % 500 == 0:
        settled()
settled()
print("#", n, "changes,", len(have), "models at the end")
