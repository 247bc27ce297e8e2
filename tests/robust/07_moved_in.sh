# shellcheck shell=bash
# 7: a model, and a folder of them, that come from outside by one rename, and go by one.

r_moved_in() {
    local apr
    mkdir -p "$T/store" "$T/out/folder"
    big_store "$T/out/a.gguf" 1 1
    big_store "$T/out/folder/b.gguf" 1 2
    big_store "$T/out/new.gguf" 1 3
    start m "$T/store"
    "$APRTOOL" convert -f "$T/out/new.gguf" "$T/new.apr" >/dev/null
    apr=$M/local/a/a.apr
    mv "$T/out/a.gguf" "$T/store/a.gguf"
    until_true 10 test -e "$apr" || fail "a file moved in is not seen"
    exec 5<"$apr"
    mv "$T/out/new.gguf" "$T/store/a.gguf" # over the other
    is_new() { cmp "$apr" "$T/new.apr"; }
    until_true 10 is_new || fail "a file moved over another is not seen"
    cmp -s "/proc/self/fd/5" "$T/new.apr" && fail "the old handle has new bytes"
    exec 5<&-
    mv "$T/out/folder" "$T/store/folder"
    seen() { [ "$(find "$M" -name 'b.apr' | wc -l)" = 1 ]; }
    until_true 10 seen || fail "a folder moved in is not seen"
    big_store "$T/store/folder/c.gguf" 1 4 # and is watched from then on
    third() { [ "$(find "$M" -name 'c.apr' | wc -l)" = 1 ]; }
    until_true 10 third || fail "what comes into a folder that was moved in is not seen"
    mv "$T/store/folder" "$T/out/folder"
    left() { [ "$(find "$M" -name '*.apr')" = "$apr" ]; }
    until_true 10 left || fail "a folder moved out is still listed"
    mv "$T/store/a.gguf" "$T/out/"
    until_true 10 test ! -e "$apr" || fail "a file moved out is still listed"
    stop
}

# Replaced again and again by rename while others open, read and map it: whatever was opened is one
# generation to its end, also where its pages are dropped in between, and never an error.
r_replaced_often() {
    big_store "$T/store/m.gguf" 2 1
    big_store "$T/a" 2 1
    big_store "$T/b" 2 2
    "$APRTOOL" convert -f "$T/a" "$T/a.apr" >/dev/null
    "$APRTOOL" convert -f "$T/b" "$T/b.apr" >/dev/null
    start m "$T/store"
    python3 - "$M/local/m/m.apr" "$T" $((LONG ? 1000 : 30)) <<'PY'
import errno, hashlib, mmap, os, random, shutil, sys, threading, time
apr, t, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
good = {hashlib.sha256(open(t + "/%s.apr" % g, "rb").read()).digest(): g for g in "ab"}
size = os.stat(t + "/a.apr").st_size
bad, seen, done = [], {"a": 0, "b": 0, "gone": 0}, threading.Event()
lock = threading.Lock()

def read_in_pieces(f, r):
    out = bytearray(size)
    pieces = list(range(0, size, 128 << 10))
    r.shuffle(pieces)
    for at in pieces:
        if r.random() < 0.1:
            os.posix_fadvise(f, 0, 0, os.POSIX_FADV_DONTNEED)
        part = os.pread(f, 128 << 10, at)
        out[at:at + len(part)] = part
    return bytes(out)

def read_map(f, r):
    m = mmap.mmap(f, 0, prot=mmap.PROT_READ)
    out = bytearray(size)
    for at in range(0, size, 64 << 10):
        out[at:at + (64 << 10)] = m[at:at + (64 << 10)]
        time.sleep(r.random() * 0.002)
    return bytes(out)

def reader(no):
    r = random.Random(no)
    while not done.is_set() and not bad:
        try:
            f = os.open(apr, os.O_RDONLY)
        except OSError as e:
            with lock:
                if e.errno in (errno.ENOENT, errno.ESTALE):
                    seen["gone"] += 1
                else:
                    bad.append("open: %s" % e)
            continue
        try:
            got = (read_map if no % 3 == 0 else read_in_pieces)(f, r)
            with lock:
                g = good.get(hashlib.sha256(got).digest())
                if g:
                    seen[g] += 1
                else:
                    bad.append("reader %d: a file of no generation" % no)
        except OSError as e:
            bad.append("read: %s" % e)
        os.close(f)

threads = [threading.Thread(target=reader, args=(i,)) for i in range(6)]
[x.start() for x in threads]
r = random.Random(7)
for i in range(n):
    shutil.copy(t + "/" + "ba"[i % 2], t + "/store/.new")
    os.rename(t + "/store/.new", t + "/store/m.gguf")
    # A tree follows when it has been quiet, or 2 s after the first event.
    time.sleep(0.4 if i % 5 == 4 else r.random() * 0.1)
done.set()
[x.join() for x in threads]
print("#", n, "replacements,", seen)
assert not bad, bad[:5]
assert seen["a"] > 0 and seen["b"] > 0, seen
PY
    [ "$(stat_of "$M" eio)" = 0 ] || fail "$(stat_of "$M" eio) reads were EIO"
    stop
}
