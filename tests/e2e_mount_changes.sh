#!/usr/bin/env bash
# Sources that change under a mount, end to end: mount.md §9, tests 5 to 9, and the listing that follows.
# Prints TAP. Names of tests as arguments: only these. See tests/mount.sh.
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/mount.sh

# --- 5, 6, 7: a source that changes ---------------------------------------------------------

t_truncated() {
    big_store "$T/store/m.gguf" 32 1
    start m "$T/store"
    local apr=$M/local/m/m.apr size
    size=$(stat -c %s "$apr")
    witness "$apr" "$T/witness.apr"
    exec 5<"$apr"
    # Right bytes before; then a reader inside the file, and one with it mapped.
    cmp -n 4194304 /proc/self/fd/5 "$T/witness.apr"
    python3 - "$apr" "$T/witness.apr" "$T/store/m.gguf" <<'PY'
import mmap, os, sys
apr, witness, src = sys.argv[1:]
f = os.open(apr, os.O_RDONLY)
m = mmap.mmap(f, 0, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED)
w = open(witness, "rb").read()
assert m[1 << 20:2 << 20] == w[1 << 20:2 << 20]
os.truncate(src, os.stat(src).st_size // 2)
errors = 0
short = 0
for start in range(0, len(w), 1 << 20):
    off, end = start, min(start + (1 << 20), len(w))
    try:
        while off < end: # what the page cache still has goes out before the error: short, then EIO
            got = os.pread(f, end - off, off)
            assert got, "end of file at %d of %d" % (off, len(w))
            assert got == w[off:off + len(got)], "wrong bytes at %d" % off
            off += len(got)
            short += off < end
    except OSError as e:
        assert e.errno == 5, e
        errors += 1
if short:
    print("# short reads:", short)
print("# pieces that were EIO:", errors)
assert errors > len(w) // (1 << 20) // 2
pid = os.fork()
if pid == 0:
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    x = m[len(w) - (6 << 20):]     # behind the cut: SIGBUS
    os._exit(0)
status = os.waitpid(pid, 0)[1]
assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == 7, status
PY
    dd if=/proc/self/fd/5 of=/dev/null bs=1M status=none && fail "a stale handle read to the end"
    exec 5<&-
    cp "$apr" "$T/copy" 2>/dev/null && fail "cp of a truncated model succeeded"
    until_true 30 test ! -e "$apr" || fail "a truncated model is still shown"
    grep -q 'm.gguf' "$M/.aprfs/problems.txt"
    kill -0 "$PID"
    stop
}

t_cut_under_cp() { # cp across the cut must not end well with wrong bytes
    local i
    for i in 1 2 3; do
        big_store "$T/store/m.gguf" 64 1
        start "m$i" "$T/store"
        local apr=$M/local/m/m.apr
        witness "$apr" "$T/witness.apr"
        rm -f "$T/copy" "$T/rc"
        (rc=0; dd if="$apr" of="$T/copy" bs=1M status=none || rc=$?; echo $rc >"$T/rc") 2>/dev/null &
        local p=$!
        sleep "0.0$i"
        # (truncate(1) opens O_NONBLOCK, and is told EAGAIN while a lease is being broken.)
        python3 -c 'import os, sys; os.truncate(sys.argv[1], os.stat(sys.argv[1]).st_size // 2)' "$T/store/m.gguf"
        wait $p || true
        if [ "$(cat "$T/rc")" = 0 ]; then
            cmp "$T/copy" "$T/witness.apr" || fail "a short or wrong copy, and exit status 0"
        fi
        stop
    done
}

t_overwritten() { # eight readers while pages are overwritten: each read is of one generation, or EIO
    big_store "$T/store/m.gguf" 24 1
    "$B/tests/tool_store" --big "$T/other" 24 2
    start m "$T/store"
    python3 - "$M/local/m/m.apr" "$T/store/m.gguf" "$T/other" $((LONG ? 60 : 4)) <<'PY'
import errno, os, random, struct, sys, threading, time
apr, src, other, seconds = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])
end = time.time() + seconds
new = open(other, "rb").read()
old = open(src, "rb").read()
ext = os.getxattr(apr, "user.aprfs.extents").decode().split("\n")
maps = [l.split() for l in ext if l.startswith("map")]
first = next(m for m in maps if m[3] == "0")
shift, start = int(first[1]) - int(first[4]), int(first[1])
seen = {"old": 0, "new": 0, "eio": 0}
bad, waits = [], []

def goes_on(): # on a busy machine until a writer has come between two reads of a handle
    return not bad and (time.time() < end or not (seen["old"] and seen["eio"]) and time.time() < end + 60)

def reader(no):
    r = random.Random(no)
    while goes_on():
        try:
            f = os.open(apr, os.O_RDONLY)
        except OSError as e:
            if e.errno in (errno.ENOENT, errno.ESTALE, errno.EIO, errno.EAGAIN):
                time.sleep(0.01)
                continue
            bad.append("open: %s" % e)
            return
        gen = None
        try:
            for _ in range(40):
                off = start + r.randrange(len(old) - shift - start - (1 << 20) if len(old) - shift - start > (1 << 21) else 1)
                got = os.pread(f, 65536, off)
                s = off - shift
                if len(got) < 65536:
                    # The kernel hands out the pages that it had before the one that failed: right
                    # bytes, short, and then the error.
                    short = off + len(got)
                    try:
                        os.pread(f, 1, short)
                        bad.append("short at %d without an error behind it" % short)
                    except OSError as e:
                        if e.errno != errno.EIO:
                            raise
                is_old, is_new = got == old[s:s + len(got)], got == new[s:s + len(got)]
                if is_old and is_new:
                    continue            # bytes that both have
                now = "old" if is_old else "new" if is_new else None
                if now is None:
                    bad.append("a mix at %d, of %d bytes" % (off, len(got)))
                elif gen and gen != now:
                    bad.append("one handle, two generations at %d" % off)
                gen = now
                seen[now or "eio"] += 1
        except OSError as e:
            if e.errno != errno.EIO:
                bad.append("read: %s" % e)
            seen["eio"] += 1
        os.close(f)

t = [threading.Thread(target=reader, args=(i,)) for i in range(8)]
[x.start() for x in t]
gens = [old, new]
k = 0
while goes_on():
    time.sleep(0.4)
    k += 1
    t0 = time.time()
    f = os.open(src, os.O_RDWR)          # waits while a lease is broken
    waits.append(time.time() - t0)
    data = gens[k % 2]
    for page in random.Random(k).sample(range(0, len(data), 4096), len(range(0, len(data), 4096))):
        os.pwrite(f, data[page:page + 4096], page)
    os.close(f)
[x.join() for x in t]
print("#", seen, "writes", k, "longest wait of a writer %.3f s" % max(waits))
assert not bad, bad
assert seen["old"] and seen["eio"], seen
assert max(waits) < 20, waits # the kernel would let it in after 45 s (lease-break-time)
PY
    stop
}

t_replaced() {
    big_store "$T/store/m.gguf" 24 1
    "$B/tests/tool_store" --big "$T/m2.gguf" 24 2
    cp "$T/m2.gguf" "$T/store/.m2.tmp"
    start m "$T/store"
    local apr=$M/local/m/m.apr ino
    witness "$apr" "$T/old.apr"
    ino=$(stat -c %i "$apr")
    exec 5<"$apr"
    cmp -n 1048576 /proc/self/fd/5 "$T/old.apr"
    local t0
    t0=$(date +%s%N)
    mv "$T/store/.m2.tmp" "$T/store/m.gguf"
    other_inode() { [ "$(stat -c %i "$apr")" != "$ino" ]; }
    until_true 30 other_inode || fail "the old inode is still there"
    echo "# new name after $((($(date +%s%N) - t0) / 1000000)) ms"
    "$APRTOOL" convert -f "$T/m2.gguf" "$T/new.apr" >/dev/null
    cmp "$apr" "$T/new.apr"
    cmp /proc/self/fd/5 "$T/old.apr" # the old handle: old bytes, to the end
    exec 5<&-
    # Deleted under a reader: the same.
    exec 5<"$apr"
    rm "$T/store/m.gguf"
    until_true 30 test ! -e "$apr"
    cmp /proc/self/fd/5 "$T/new.apr"
    exec 5<&-
    [ "$(stat_of "$M" eio)" = 0 ]
    stop
}

t_metadata_only() { # chmod, link, rename of the source under a reader: no content changed
    big_store "$T/store/m.gguf" 8 1
    start m "$T/store"
    local apr=$M/local/m/m.apr
    witness "$apr" "$T/old.apr"
    exec 5<"$apr"
    head -c 65536 <&5 >/dev/null
    ln "$T/store/m.gguf" "$T/second"
    cmp /proc/self/fd/5 "$T/old.apr"
    chmod 640 "$T/store/m.gguf"
    if ! cmp /proc/self/fd/5 "$T/old.apr"; then
        [ "$(id -u)" = 0 ] && fail "chmod under a lease made a handle stale"
    fi
    exec 5<&-
    # What touches the content's time does end a generation.
    exec 5<"$apr"
    touch "$T/store/m.gguf"
    stale() { ! head -c 1000 /proc/self/fd/5; }
    until_true 30 stale || fail "a handle outlives touch(1)"
    exec 5<&-
    reopened() { cmp "$apr" "$T/old.apr"; }
    until_true 30 reopened
    stop
}

# --- 8, 9: the listing follows -------------------------------------------------------------

t_random_changes() {
    local n=$((LONG ? 10000 : 300)) fds
    mkdir -p "$T/store" "$T/parts"
    "$B/tests/tool_store" "$T/parts" >/dev/null
    start m "$T/store"
    fds=$(ls /proc/$PID/fd | wc -l)
    python3 tests/robust/changes.py --changes "$n" --seed "${APRFS_SEED:-1}" "$T/store" "$T/parts" "$M"
    at_rest() { open_files_are 0 && [ "$(ls /proc/$PID/fd | wc -l)" -le $((fds + 2)) ]; }
    until_true 30 at_rest || { ls -l /proc/$PID/fd; fail "descriptors leaked"; }
    stop
}

t_siblings_follow() { # a file made from a source that was replaced just now is waited for
    big_store "$T/m1" 1 1
    big_store "$T/m2" 1 2
    mkdir "$T/store"
    cp "$T/m1" "$T/store/m.gguf"
    start m "$T/store"
    python3 - "$M" "$T" <<'PY'
import os, shutil, sys
mnt, t = sys.argv[1:]
for i in range(20):
    shutil.copy(t + "/m%d" % (1 + i % 2), t + "/new")
    os.rename(t + "/new", t + "/store/m.gguf")
    assert open(mnt + "/local/m/config.json", "rb").read(1) == b"{"
    text = open(mnt + "/.aprfs/extents/local/m/m.tsv").read()
    assert text.startswith("aprfs-extents 1\n"), text # perhaps of the old one: its reader compares
PY
    stop
}

t_link_targets() { # what happens beside a link's target is seen, from the first scan on
    mkdir -p "$T/store/x"
    big_store "$T/data/m.gguf" 1 1
    ln -s "$T/data/m.gguf" "$T/store/x/a.gguf"
    start m "$T/store"
    local apr=$M/local/x/a.apr ino
    ino=$(stat -c %i "$apr")
    big_store "$T/data/m.gguf" 1 2
    new_ino() { [ "$(stat -c %i "$apr")" != "$ino" ]; }
    until_true 10 new_ino || fail "a replaced target is not noticed"
    rm "$T/data/m.gguf"
    until_true 10 test ! -e "$apr" || fail "a target that is gone is still listed"
    stop
}

t_no_descriptors() { # a scan that runs out of descriptors leaves the tree as it was, and is repeated
    local i
    for i in $(seq 20); do big_store "$T/store/p/q$i/m$i.gguf" 1 "$i"; done
    ulimit -n 30
    start m "$T/store"
    python3 - "$M" "$T/store" <<'PY'
import glob, os, sys, time
mnt, store = sys.argv[1:]
shown = lambda: len(glob.glob(mnt + "/*/*/*.apr"))
assert shown() == 20, shown()
held, full = [], 0
for f in sorted(glob.glob(mnt + "/*/*/*.apr")):
    try:
        held.append(open(f, "rb"))
    except OSError as e:
        assert e.errno == 24, e
        full += 1
assert full > 0, "descriptors did not run out"
for n in 1, 2, 3: # so many are free when the scan begins
    held.pop().close()
    os.rename(store + "/p/q20/m%d.gguf" % (19 + n), store + "/p/q20/m%d.gguf" % (20 + n))
    time.sleep(0.5)
    assert shown() == 20, "%d models left with %d descriptors" % (shown(), n)
for f in held:
    f.close()
end = time.monotonic() + 10
while not os.path.exists(mnt + "/p/q20/m23.apr"):
    assert time.monotonic() < end, "the scan was not repeated"
    time.sleep(0.05)
PY
    stop
}

t_growing() {
    mkdir -p "$T/store"
    "$B/tests/tool_store" --big "$T/m.gguf" 8 1
    start m "$T/store"
    local apr=$M/local/m/m.apr size half
    size=$(stat -c %s "$T/m.gguf")
    half=$((size / 2))
    # A download under its last name, writer open all the time.
    exec 6>"$T/store/m.gguf"
    head -c $half "$T/m.gguf" >&6
    said() { grep -qE '^EAGAIN.*m\.gguf' "$M/.aprfs/problems.txt"; }
    until_true 30 said || { cat "$M/.aprfs/problems.txt"; fail "no reason given for half a model"; }
    [ ! -e "$apr" ]
    tail -c +$((half + 1)) "$T/m.gguf" >&6
    watch_kick_and_look() { kill -HUP $PID; sleep 0.2; test -e "$apr"; }
    if [ "$(id -u)" = 0 ]; then # all bytes are there, but the writer is too
        watch_kick_and_look && fail "shown while a writer has it open"
        said || fail "no reason given while a writer has it open"
        python3 - "$M/.aprfs/index.json" <<'PY'
import json, sys
e = json.load(open(sys.argv[1]))["entries"]
assert [x["status"] for x in e] == ["EAGAIN"] and e[0]["path"] is None and "being written" in e[0]["why"], e
PY
    fi
    exec 6>&-
    until_true 30 test -e "$apr" || fail "complete, closed, and not shown"
    witness "$apr" "$T/witness.apr"
    cmp "$apr" "$T/witness.apr"
    # The other habit: .part, then rename.
    cp "$T/m.gguf" "$T/store/n.gguf.part"
    sleep 0.2
    [ ! -e "$M/local/n/n.apr" ]
    mv "$T/store/n.gguf.part" "$T/store/n.gguf"
    until_true 30 test -e "$M/local/n/n.apr"
    stop
}

run mount_truncated_source_is_eio t_truncated
run mount_cut_under_copy_is_no_short_success t_cut_under_cp
run mount_overwritten_source_is_one_generation_or_eio t_overwritten $((LONG ? 200 : 100))
run mount_replaced_source_keeps_old_handles t_replaced
run mount_metadata_change_is_no_content_change t_metadata_only
run mount_follows_random_changes t_random_changes $((LONG ? 3600 : 120))
run mount_siblings_follow_a_replaced_source t_siblings_follow
run mount_follows_targets_of_links t_link_targets
run mount_keeps_its_tree_without_descriptors t_no_descriptors
run mount_hides_what_is_still_arriving t_growing
tests_end
