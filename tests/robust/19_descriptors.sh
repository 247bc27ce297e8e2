# shellcheck shell=bash
# 19: a daemon of 64 descriptors, 200 readers of 100 models: EMFILE to those who open, nothing else.

r_descriptors() {
    local i
    big_store "$T/one.gguf" 1 1
    mkdir -p "$T/store"
    for i in $(seq 100); do cp "$T/one.gguf" "$T/store/m$i.gguf"; done # own inodes: a descriptor each
    "$APRTOOL" convert -f "$T/one.gguf" "$T/witness.apr" >/dev/null
    printf '#!/bin/sh\nulimit -n 64\nexec "%s" "$@"\n' "$APRFS" >"$T/limited" # the daemon, not its readers
    chmod +x "$T/limited"
    APRFS=$T/limited start m "$T/store"
    grep -q '^Max open files *64 ' "/proc/$PID/limits"
    python3 - "$M" "$T/witness.apr" <<'PY'
import errno, glob, os, sys, threading
mnt, witness = sys.argv[1], open(sys.argv[2], "rb").read()
files = sorted(glob.glob(mnt + "/*/*/*.apr"))
assert len(files) == 100, len(files)
seen, bad = {"read": 0, "EMFILE": 0}, []
lock = threading.Lock()
gate = threading.Barrier(200)

def reader(no):
    gate.wait()
    for k in range(4):
        path = files[(no + k * 37) % len(files)]
        try:
            f = open(path, "rb", buffering=0)
        except OSError as e:
            with lock:
                if e.errno in (errno.EMFILE, errno.ENFILE):
                    seen["EMFILE"] += 1
                else:
                    bad.append("open: %s" % e)
            continue
        try: # what was opened reads to its end
            with f:
                got = b""
                while chunk := f.read(1 << 20):
                    got += chunk
            with lock:
                seen["read"] += 1
                if got != witness:
                    bad.append("%s: other bytes" % path)
        except OSError as e:
            with lock:
                bad.append("read: %s" % e)

t = [threading.Thread(target=reader, args=(i,)) for i in range(200)]
[x.start() for x in t]
[x.join() for x in t]
print("#", seen)
assert not bad, bad[:5]
# Held open one after the other: the limit is met, and is EMFILE.
held, full = [], 0
for p in files:
    try:
        held.append(open(p, "rb"))
    except OSError as e:
        assert e.errno == errno.EMFILE, e
        full += 1
print("#", len(held), "held open,", full, "times EMFILE")
assert full > 0 and len(held) >= 20
for f in held:
    assert f.read(4) == b"APR\0"
    f.close()
with open(files[-1], "rb") as f: # and afterwards all is well
    assert f.read() == witness
PY
    kill -0 "$PID"
    stop
}
