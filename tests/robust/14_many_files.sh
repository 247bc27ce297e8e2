# shellcheck shell=bash
# 14: very many files, depth 16, names of 255 bytes and in no encoding, changes while others list.

r_many_files() {
    local n=$((LONG ? 10000 : 600))
    brief && n=200
    mkdir "$T/seeds"
    "$B/tests/tool_seeds" "$T/seeds" >/dev/null
    python3 - "$T/seeds/llama.gguf" "$T/store" "$n" <<'PY'
import os, sys
data, store, n = open(sys.argv[1], "rb").read(), os.fsencode(sys.argv[2]), int(sys.argv[3])
for i in range(n):
    depth = i % 16 # folders below the store
    d = os.path.join(store, *[b"d%d" % (i % 7 + k) for k in range(depth)])
    os.makedirs(d, exist_ok=True)
    name = [b"m%d" % i, b"%d-" % i + b"x" * 240, b"\xff\xfe bad \x80%d" % i, b"a b(%d)" % i, b"-rf %d" % i][i % 5]
    with open(os.path.join(d, name[:250] + b".gguf"), "wb") as f:
        f.write(data)
PY
    start m "$T/store"
    python3 - "$M" "$T/store" "$n" <<'PY'
import os, sys, threading, time
mnt, store, n = os.fsencode(sys.argv[1]), os.fsencode(sys.argv[2]), int(sys.argv[3])

def listed():
    out = []
    for d, dirs, files in os.walk(mnt):
        assert len(set(files)) == len(files) and len(set(dirs)) == len(dirs), d # no doubles
        out += [os.path.join(d, f) for f in files if f.endswith(b".apr")]
    return out

t0 = time.monotonic()
first = listed()
cold = time.monotonic() - t0
t0 = time.monotonic()
inodes = {}
for p in listed():
    st = os.lstat(p)
    assert st.st_size > 0 and st.st_ino not in inodes, p
    inodes[st.st_ino] = p
print("# %d files, %d listed in %.2f s, listed again and asked for in %.2f s" % (n, len(first), cold, time.monotonic() - t0))
assert len(first) == n, (n, len(first), open(mnt + b"/.aprfs/problems.txt").read()[:500])
# Renamed while others list: what stays is in every listing, once.
bad, done = [], threading.Event()
stay = {p for p in first if b"moves" not in p}
top = [f for f in os.listdir(store) if f.startswith(b"m") and f.endswith(b".gguf")][:5]
moving = {os.path.splitext(f)[0] for f in top}
def lister():
    while not done.is_set():
        try:
            now = listed()
        except AssertionError as e:
            bad.append(repr(e))
            return
        missing = [p for p in stay if p not in set(now) and os.path.basename(p)[:-4] not in moving]
        if missing:
            bad.append("%d missing, as %r" % (len(missing), missing[0]))
            return
th = [threading.Thread(target=lister) for _ in range(3)]
[x.start() for x in th]
for i in range(6):
    for f in top:
        a, b = (f, b"moves-" + f) if i % 2 == 0 else (b"moves-" + f, f)
        os.rename(os.path.join(store, a), os.path.join(store, b))
    time.sleep(0.4)
done.set()
[x.join() for x in th]
assert not bad, bad[:3]
end = time.monotonic() + 20
while sorted(listed()) != sorted(first):
    assert time.monotonic() < end, "the listing after all is another"
    time.sleep(0.1)
PY
    echo "# RssAnon $(stat_of "$M" rss_anon_kib) KiB, last scan $(stat_of "$M" last_scan_ms) ms"
    stop
}
