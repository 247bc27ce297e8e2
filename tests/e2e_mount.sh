#!/usr/bin/env bash
# The mount, end to end: what mount.md §9 asks of it (tests 1, 2, 5-10, 12, 15, 16; 4 is test_vapr's),
# and the program around it. Prints TAP. Names of tests as arguments: only these. See tests/mount.sh.
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/mount.sh

# --- 1: bytes ------------------------------------------------------------------------------

t_bytes_small() {
    local p apr n profiles="engine native strict"
    small_store "$T/store"
    brief && profiles=strict
    for p in $profiles; do
        start "$p" "$T/store" --profile "$p"
        n=0
        while IFS= read -r apr; do
            witness "$apr" "$T/witness.apr" --profile "$p"
            case $LONG$apr in
            1* | *Q8_0.apr | *gemma3* | *f16* | *shard* | *BF16*) same_by_every_way "$apr" "$T/witness.apr" ;;
            *) cmp "$apr" "$T/witness.apr" ;;
            esac
            n=$((n + 1))
        done < <(find "$M" -name '*.apr')
        # Every model is shown, or is a problem by name.
        local all bad
        all=$(find "$T/store" -name '*.gguf' ! -name '*-0000[2-9]-of-*' | wc -l)
        bad=$(awk -F '\t' '$1 != "WARN" && $3 !~ /tokenizer.json/' "$M/.aprfs/problems.txt" | cut -f 2 | sort -u | wc -l)
        echo "# $p: $n models, $bad refused, $all in the store"
        [ $((n + bad)) -eq "$all" ] || { cat "$M/.aprfs/problems.txt"; fail "$p: $n + $bad is not $all"; }
        [ "$n" -ge 15 ] || fail "$p: only $n models"
        stop
    done
}

t_bytes_without_our_code() { # tests/witness.py reads .apr and .gguf by the specification alone
    local apr
    small_store "$T/store"
    start m "$T/store"
    while IFS= read -r apr; do
        local parts
        mapfile -t parts < <(xattr "$apr" source)
        python3 tests/witness.py "$apr" "${parts[@]}" >"$T/witness.tap" || { grep -v '^ok' "$T/witness.tap"; fail "$apr"; }
    done < <(find "$M" -name '*.apr')
    stop
}

t_bytes_real() {
    local apr found=0
    [ -d "$MODELS" ] || skip "no folder $MODELS"
    start m "$MODELS"
    for apr in "$M"/*/*/*.apr; do
        case $apr in
        *SmolLM2*) ;;
        *) [ "$LONG" = 1 ] || continue ;;
        esac
        found=1
        witness "$apr" "$T/witness.apr"
        if brief; then cmp "$apr" "$T/witness.apr"; else same_by_every_way "$apr" "$T/witness.apr"; fi
        "$B/tests/tool_randcmp" --ops $((LONG ? 1000000 : 2000)) --seed "${APRFS_SEED:-1}" \
            --extents "$M/.aprfs/extents/$(realpath --relative-to="$M" "${apr%.apr}.tsv")" "$apr" "$T/witness.apr"
        local readers="" k
        for k in 1 2 3 4 5 6 7 8; do
            cmp "$apr" "$T/witness.apr" &
            readers="$readers $!"
        done
        for k in $readers; do wait "$k" || fail "one of eight readers of $apr"; done
    done
    [ $found = 1 ] || skip "no real model in $MODELS"
    stop
}

# --- 2: random reads -----------------------------------------------------------------------

t_random_reads() {
    local p f name ops=$((LONG ? 100000 : 1500)) each=3
    if brief; then
        ops=300
        each=1
    fi
    small_store "$T/store"
    for p in engine strict; do
        start "$p" "$T/store" --profile "$p"
        for f in local/tied-qwen2 local/gemma3-mixed acme/sharded local/types local/phi3-fused; do
            while IFS= read -r name; do
                witness "$name" "$T/witness.apr" --profile "$p"
                "$B/tests/tool_randcmp" --quiet 1 --ops "$ops" --seed "${APRFS_SEED:-1}" \
                    --extents "$M/.aprfs/extents/$(realpath --relative-to="$M" "${name%.apr}.tsv")" "$name" "$T/witness.apr"
            done < <(find "$M/$f" -name '*.apr' 2>/dev/null | sort | head -n $each)
        done
        stop
    done
    start never "$T/store" -o cache=never
    name=$(find "$M" -name 'tied-qwen2.apr')
    witness "$name" "$T/witness.apr"
    cmp "$name" "$T/witness.apr"
    stop
    start single "$T/store" -s
    cmp "$(find "$M" -name 'tied-qwen2.apr')" "$T/witness.apr"
    stop
}

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
    until_true 5 test ! -e "$apr" || fail "a truncated model is still shown"
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

def reader(no):
    r = random.Random(no)
    while time.time() < end and not bad:
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
while time.time() < end and not bad:
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
assert max(waits) < 1.0 * (5 if "san" in os.environ.get("B", "") else 1), waits
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
    until_true 2 other_inode || fail "the old inode is still there after 2 s"
    echo "# new name after $((($(date +%s%N) - t0) / 1000000)) ms"
    "$APRTOOL" convert -f "$T/m2.gguf" "$T/new.apr" >/dev/null
    cmp "$apr" "$T/new.apr"
    cmp /proc/self/fd/5 "$T/old.apr" # the old handle: old bytes, to the end
    exec 5<&-
    # Deleted under a reader: the same.
    exec 5<"$apr"
    rm "$T/store/m.gguf"
    until_true 2 test ! -e "$apr"
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
    until_true 3 stale || fail "a handle outlives touch(1)"
    exec 5<&-
    reopened() { cmp "$apr" "$T/old.apr"; }
    until_true 3 reopened
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
    sleep 0.3
    [ "$(stat_of "$M" open_files)" = 0 ]
    [ "$(ls /proc/$PID/fd | wc -l)" -le $((fds + 2)) ] || { ls -l /proc/$PID/fd; fail "descriptors leaked"; }
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

t_killed_while_scanning() { # who gives up waiting gets no mount afterwards
    local i p child
    small_store "$T/store"
    for i in $(seq 60); do cp -rl "$T/store/types" "$T/store/types$i"; done
    mkdir "$T/mnt"
    "$APRFS" "$T/store" "$T/mnt" 2>/dev/null &
    p=$!
    until_true 5 pgrep -P "$p" || fail "no child"
    child=$(pgrep -P "$p")
    echo "$child" >>"$T/pids"
    kill "$p"
    gone() { [ ! -e "/proc/$child/status" ] || grep -q '^State:.*Z' "/proc/$child/status"; }
    until_true 100 gone || fail "the child lives on: $(grep -c "$T/mnt" /proc/self/mountinfo) mounts"
    [ -z "$(mounts)" ]
    "$APRFS" -f "$T/store" "$T/mnt" 2>/dev/null &
    p=$!
    sleep 0.05
    kill "$p"
    i=0
    wait "$p" || i=$?
    [ $i = 143 ] || [ $i = 0 ] || fail "exit status $i" # 0: it had been mounted by then
    [ -z "$(mounts)" ]
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
    until_true 5 said || { cat "$M/.aprfs/problems.txt"; fail "no reason given for half a model"; }
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
    until_true 5 test -e "$apr" || fail "complete, closed, and not shown"
    witness "$apr" "$T/witness.apr"
    cmp "$apr" "$T/witness.apr"
    # The other habit: .part, then rename.
    cp "$T/m.gguf" "$T/store/n.gguf.part"
    sleep 0.2
    [ ! -e "$M/local/n/n.apr" ]
    mv "$T/store/n.gguf.part" "$T/store/n.gguf"
    until_true 5 test -e "$M/local/n/n.apr"
    stop
}

# --- 10: malformed files -------------------------------------------------------------------

t_malformed() {
    mkdir -p "$T/store/bad"
    "$B/tests/tool_seeds" "$T/store/bad" >/dev/null
    "$B/tests/tool_store" --big "$T/store/good.gguf" 1 1
    start m "$T/store"
    local f n=0 shown
    for f in "$T"/store/bad/*.gguf; do
        [ "$(head -c 4 "$f")" = GGUF ] || continue
        n=$((n + 1))
        if ! grep -qF "bad/${f##*/}" "$M/.aprfs/problems.txt"; then
            shown=$(find "$M" -name '*.gguf' -lname "$f" | head -n 1)
            [ -n "$shown" ] || grep -qF "\"${f##*/}\"" "$M/.aprfs/index.json" || grep -qF "bad/${f##*/}" "$M/.aprfs/index.json" || fail "${f##*/}: neither shown nor a problem"
        fi
    done
    [ $n -ge 20 ] || fail "only $n seeds"
    witness "$M/local/good/good.apr" "$T/witness.apr"
    cmp "$M/local/good/good.apr" "$T/witness.apr"
    # What is shown of the strange ones is readable to its end.
    while IFS= read -r f; do cat "$f" >/dev/null || fail "cannot read $f"; done < <(find "$M" -name '*.apr' -o -name '*.json')
    [ "$(stat_of "$M" eio)" = 0 ]
    stop
}

t_every_cut() { # cut at many lengths: hidden with a reason, never half a model, one scan each
    mkdir -p "$T/store"
    "$B/tests/tool_store" --big "$T/whole.gguf" 1 1
    local size step i=0 at=0
    size=$(stat -c %s "$T/whole.gguf")
    step=$((LONG ? 4099 : 60013))
    for ((at = 0; at < size; at += step)); do head -c $at "$T/whole.gguf" >"$T/store/cut-$at.gguf"; i=$((i + 1)); done
    cp "$T/whole.gguf" "$T/store/whole.gguf"
    start m "$T/store"
    [ "$(find "$M" -name '*.apr' | wc -l)" = 1 ] || fail "$(find "$M" -name '*.apr')"
    echo "# $i cuts, scan $(stat_of "$M" last_scan_ms) ms"
    stop
}

# --- 12 and the life of the daemon ---------------------------------------------------------

t_end_by_signal() {
    big_store "$T/store/m.gguf" 16 1
    start m "$T/store"
    witness "$M/local/m/m.apr" "$T/witness.apr"
    # umount of a busy mount: EBUSY, and nothing changes.
    exec 5<"$M/local/m/m.apr"
    fusermount3 -uq "$M" 2>/dev/null && fail "a busy mount was unmounted"
    # The first SIGTERM: no new names, but the reader finishes; exit 0 at its close.
    kill -TERM "$PID"
    gone() { ! mountpoint -q "$M"; }
    until_true 5 gone
    cmp /proc/self/fd/5 "$T/witness.apr"
    kill -0 "$PID" || fail "the daemon left its reader"
    exec 5<&-
    local rc=0
    wait "$PID" || rc=$?
    [ $rc -eq 0 ] || fail "exit status $rc after SIGTERM"
    # The second: an end at once, ENOTCONN for the reader.
    start m2 "$T/store"
    exec 5<"$M/local/m/m.apr"
    kill -TERM "$PID"
    until_true 5 gone
    kill -TERM "$PID"
    rc=0
    wait "$PID" || rc=$?
    [ $rc -eq 0 ] || fail "exit status $rc after two SIGTERMs"
    dd bs=1M iflag=direct of=/dev/null status=none <&5 2>"$T/dd" && fail "read without a daemon"
    grep -qE 'not connected|connection abort' "$T/dd"
    exec 5<&-
    # SIGINT with nothing open: 0.
    start m3 "$T/store"
    kill -INT "$PID"
    rc=0
    wait "$PID" || rc=$?
    [ $rc -eq 0 ] || fail "exit status $rc after SIGINT"
    mountpoint -q "$M" && fail "still mounted after SIGINT"
    return 0
}

t_killed() { # 11: kill -9, the next mount says what to run
    big_store "$T/store/m.gguf" 8 1
    start m "$T/store"
    exec 5<"$M/local/m/m.apr"
    kill -9 "$PID"
    wait "$PID" 2>/dev/null || true
    dd bs=1M iflag=direct of=/dev/null status=none <&5 2>"$T/dd" && fail "read without a daemon"
    grep -qE 'not connected|connection abort' "$T/dd"
    exec 5<&-
    local rc=0
    "$APRFS" "$T/store" "$M" 2>"$T/err" || rc=$?
    [ $rc -eq 1 ]
    grep -q "run fusermount3 -u $M" "$T/err"
    fusermount3 -u "$M"
    start m "$T/store"
    cat "$M/local/m/m.apr" >/dev/null
    stop
}

t_background() {
    big_store "$T/store/m.gguf" 1 1
    mkdir "$T/m"
    "$APRFS" "$T/store" "$T/m" 2>"$T/err" # returns when the mount works
    [ -e "$T/m/local/m/m.apr" ]
    local pid
    pid=$(sed -n 's/.*pid \([0-9]*\)$/\1/p' "$T/m/.aprfs/status.txt" | head -n 1)
    echo "$pid" >>"$T/pids"
    [ "$(awk '{ print $4 }' "/proc/$pid/stat")" != $$ ]
    fusermount3 -u "$T/m"
    ended() { ! kill -0 "$pid"; }
    until_true 5 ended
}

t_notify() {
    big_store "$T/store/m.gguf" 1 1
    python3 - "$T/notify" "$T/said" <<'PY' &
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
s.settimeout(30)
open(sys.argv[2], "wb").write(s.recv(4096))
PY
    local p=$!
    until_true 10 test -S "$T/notify"
    NOTIFY_SOCKET=$T/notify start m "$T/store"
    wait $p
    grep -q '^READY=1$' "$T/said"
    grep -q '^STATUS=1 models' "$T/said"
    stop
}

t_refusals() {
    local rc out
    mkdir -p "$T/store/inside" "$T/m" "$T/outer/store"
    refuses() { # STATUS TEXT COMMAND...
        local want=$1 text=$2
        shift 2
        rc=0
        out=$("$@" 2>&1) || rc=$?
        [ "$rc" = "$want" ] || fail "$*: exit status $rc, expected $want: $out"
        case $out in *"$text"*) ;; *) fail "$*: says '$out', expected '$text'" ;; esac
    }
    refuses 2 "unknown option 'bogus'" "$APRFS" -o bogus "$T/store" "$T/m"
    refuses 2 "unknown option '--bogus'" "$APRFS" --bogus "$T/store" "$T/m"
    refuses 2 "unknown option '-z'" "$APRFS" -z "$T/store" "$T/m"
    refuses 2 "profile=fast" "$APRFS" -o profile=fast "$T/store" "$T/m"
    refuses 2 "'profile' needs a value" "$APRFS" -o profile "$T/store" "$T/m"
    refuses 2 "footer=sum" "$APRFS" -o footer=sum "$T/store" "$T/m"
    refuses 2 "ttl=-1" "$APRFS" -o ttl=-1 "$T/store" "$T/m"
    refuses 2 "usage: aprfs" "$APRFS" "$T/store"
    refuses 1 "one is inside the other" "$APRFS" "$T/store" "$T" "$T/m"
    refuses 2 "exclude each other" "$APRFS" -o allow_other,allow_root "$T/store" "$T/m"
    refuses 1 "No such file" "$APRFS" "$T/absent" "$T/m"
    refuses 1 "No such file" "$APRFS" "$T/store" "$T/absent"
    touch "$T/file"
    refuses 1 "not a directory" "$APRFS" "$T/file" "$T/m"
    refuses 1 "one is inside the other" "$APRFS" "$T/store" "$T/store/inside"
    refuses 1 "one is inside the other" "$APRFS" "$T/outer/store" "$T/outer"
    refuses 1 "one is inside the other" "$APRFS" "$T/store" "$T/store"
    refuses 0 "aprfs 0.1.0" "$APRFS" --version
    refuses 0 "usage: aprfs" "$APRFS" -h
    start m "$T/store" # an empty store is an empty mount
    [ "$(ls -A "$M")" = "" ]
    refuses 1 "an aprfs mount already" "$APRFS" "$T/store" "$M"
    stop
}

t_fstab_words() {
    big_store "$T/store/m.gguf" 1 1
    start m "$T/store" -o rw,dev,suid,noatime,nofail,_netdev,x-systemd.automount,comment=x,fsname=my\\,store,subtype=aprfs,defaults
    findmnt -no FSTYPE,OPTIONS "$M" | grep -q 'fuse.aprfs.*ro,nosuid,nodev'
    [ "$(findmnt -no SOURCE "$M")" = 'my,store' ]
    stop
}

t_unprivileged() {
    [ "$(id -u)" = 0 ] || skip "is not root, so every other test was unprivileged already"
    local user=nobody
    id $user >/dev/null 2>&1 || skip "no user $user"
    command -v runuser >/dev/null || skip "no runuser"
    [ -u "$(command -v fusermount3)" ] || skip "fusermount3 is not setuid"
    runuser -u $user -- test -x "$APRFS" || skip "the build's folder is closed to $user"
    unshare -m --propagation private true 2>/dev/null || skip "no name space of its own for a /dev/fuse open to all"
    big_store "$T/store/m.gguf" 4 1
    chmod -R a+rX "$T"
    mkdir "$T/m"
    chown $user "$T/m"
    "$APRTOOL" convert -f "$T/store/m.gguf" "$T/witness.apr" >/dev/null
    chmod a+r "$T/witness.apr"
    user=$user T=$T APRFS=$APRFS unshare -m --propagation private bash -eux <<'IN_NAMESPACE'
as() { runuser -u "$user" -- "$@"; }
if ! as test -w /dev/fuse; then # as udev would have it, in this name space alone
    mknod "$T/fuse" c 10 229
    chmod 666 "$T/fuse"
    mount --bind "$T/fuse" /dev/fuse
fi
as "$APRFS" "$T/store" "$T/m"
pid=$(as sed -n 's/.*pid \([0-9]*\)$/\1/p' "$T/m/.aprfs/status.txt" | head -n 1)
as cmp "$T/m/local/m/m.apr" "$T/witness.apr"
[ "$(as stat -c %U "$T/m/local/m/m.apr")" = "$user" ]
if stat "$T/m/local"; then exit 1; fi # not even root, without allow_other
mkdir "$T/m2"
chown "$user" "$T/m2"
if ! grep -qx user_allow_other /etc/fuse.conf; then
    if as "$APRFS" -o allow_other "$T/store" "$T/m2" 2>"$T/err2"; then exit 1; fi
    grep -q "user_allow_other" "$T/err2"
fi
kill -TERM "$pid" # fusermount3 -uz does it for a user
for i in $(seq 100); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.05
done
if kill -0 "$pid" 2>/dev/null; then exit 1; fi
if as mountpoint -q "$T/m"; then exit 1; fi
IN_NAMESPACE
}

# --- 15, 16 and what can be asked ----------------------------------------------------------

t_stat_stable() {
    small_store "$T/store"
    brief && find "$T/store/types" -type f ! -name '*Q8_0*' ! -name '*BF16*' -delete
    list() { find "$M" -printf '%P %i %s %b %T@ %m %n %y\n' | sort; }
    start m "$T/store"
    list >"$T/first"
    find "$M" -name '*.apr' -exec cat {} + >/dev/null
    list >"$T/second"
    cmp "$T/first" "$T/second"
    [ "$(awk '{ print $2 }' "$T/first" | sort | uniq -d | wc -l)" = 0 ] || fail "two names share an inode number"
    local f
    while IFS= read -r f; do
        [ "$(wc -c <"$f")" = "$(stat -c %s "$f")" ] || fail "$f: size and bytes differ"
        [ "$(stat -c %b "$f")" = $((($(stat -c %s "$f") + 511) / 512)) ] || fail "$f: blocks"
        [ "$(stat -c %o "$f")" = 1048576 ] || fail "$f: st_blksize"
    done < <(find "$M" -type f)
    [ "$(stat -f -c '%b %a %l' "$M")" = "0 0 255" ]
    tar -cf - -C "$M" . | tar -tvf - >"$T/tar"
    tar -cf - --hole-detection=seek -S -C "$M" . >"$T/sparse.tar"
    mkdir "$T/out"
    tar -xf "$T/sparse.tar" -C "$T/out"
    (cd "$M" && find . -name '*.apr') | while IFS= read -r f; do cmp "$M/$f" "$T/out/$f"; done
    [ "$(du -s --apparent-size "$M" | cut -f 1)" -gt 0 ]
    if command -v rsync >/dev/null; then
        rsync -a "$M/" "$T/rsync/"
        [ -z "$(rsync -ani "$M/" "$T/rsync/")" ] || fail "rsync finds something to copy twice"
    fi
    stop
    start m "$T/store"
    list >"$T/third"
    cmp "$T/first" "$T/third"
    find "$M" -mindepth 1 -maxdepth 1 -name .aprfs | grep -q . && fail ".aprfs is listed"
    [ "$(cat "$M/.aprfs/version")" = "aprfs 0.1.0" ]
    stop
}

t_erofs() {
    big_store "$T/store/m.gguf" 1 1
    start m "$T/store"
    "$B/tests/tool_erofs" "$M/local/m/m.apr" "$M/local/m/m.gguf" "$M/local/m"
    "$B/tests/tool_erofs" "$M/local/m/config.json" "$M/local/m/m.gguf" "$M/local"
    stop
}

t_xattrs() {
    small_store "$T/store"
    start m "$T/store"
    python3 - "$M" "$T/store" <<'PY'
import errno, os, sys
mnt, store = sys.argv[1:]
apr = os.path.join(mnt, "local/tied-qwen2/tied-qwen2.apr")
src = os.path.join(store, "tied-qwen2.gguf")
get = lambda n: os.getxattr(apr, "user.aprfs." + n).decode()
names = os.listxattr(apr)
for n in names:
    os.getxattr(apr, n)                       # every listed name has a value
assert len(set(names)) == len(names)
for n in ("source", "extents", "head_sha256", "store", "arch", "quant", "n_params", "profile", "version",
          "generation", "tier", "layout", "part_generation"):
    assert "user.aprfs." + n in names, n
assert get("source") == src
assert get("arch") == "qwen2" and get("profile") == "engine" and get("store") == "plain"
assert get("layout") == "congruent" and get("tier").startswith("2 ")
st = os.stat(src)
assert get("part_generation") == "%d:%d:%d:%d:%d" % (st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns)
# The extents name the very bytes (tier 0): a reader may take them from the GGUF.
raw, gguf = open(apr, "rb").read(), open(src, "rb").read()
at = 0
for l in get("extents").split("\n"):
    w = l.split()
    if w[0] == "part":
        assert w[2:6] == [str(st.st_dev), str(st.st_ino), str(st.st_size), str(st.st_mtime_ns)], w
    if w[0] != "map":
        continue
    off, n, kind, so = int(w[1]), int(w[2]), w[3], int(w[4])
    assert off == at
    at += n
    if kind == "0":
        assert raw[off:off + n] == gguf[so:so + n]
    elif kind == "zero":
        assert not any(raw[off:off + n])
assert at == len(raw)

def errno_of(f):
    try:
        f()
    except OSError as e:
        return e.errno
assert errno_of(lambda: os.getxattr(apr, "user.aprfs.nothing")) == errno.ENODATA
assert errno_of(lambda: os.getxattr(apr, "user.other")) == errno.ENODATA
assert errno_of(lambda: os.getxattr(apr, "user.aprfs.crc32")) == errno.ENODATA
assert errno_of(lambda: os.getxattr(os.path.join(mnt, "local/tied-qwen2/config.json"), "user.aprfs.arch")) == errno.ENODATA
assert os.getxattr(mnt, "user.aprfs.version") == b"0.1.0"
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
buf = ctypes.create_string_buffer(3)
assert libc.getxattr(apr.encode(), b"user.aprfs.source", buf, 3) == -1 and ctypes.get_errno() == errno.ERANGE
assert libc.getxattr(apr.encode(), b"user.aprfs.source", None, 0) == len(src)
assert libc.listxattr(apr.encode(), buf, 3) == -1 and ctypes.get_errno() == errno.ERANGE
PY
    stop
}

t_siblings() {
    small_store "$T/store"
    start m "$T/store"
    python3 - "$M" <<'PY'
import json, os, sys
mnt = sys.argv[1]
n = 0
for d, dirs, files in os.walk(mnt):
    for f in files:
        p = os.path.join(d, f)
        if f.endswith(".json"):
            json.load(open(p))
            n += 1
        if f.endswith(".apr"):
            c = json.load(open(os.path.join(d, "config.json")))
            assert c["hidden_size"] == 256, c
            link = p[:-4] + ".gguf"
            if not os.path.lexists(link):
                link = p[:-4] + "-00001-of-00003.gguf"
            assert os.path.isabs(os.readlink(link)) and open(link, "rb").read(4) == b"GGUF"
d = os.path.join(mnt, "local/tied-qwen2")
assert open(d + "/tokenizer.json").read() == open(d + "/tied-qwen2.tokenizer.json").read()
json.load(open(mnt + "/.aprfs/index.json"))
print("#", n, "JSON files")
PY
    stop
    start nolinks "$T/store" -o gguf=none
    [ "$(find "$M" -type l | wc -l)" = 0 ]
    stop
    start owned "$T/store" -o uid=12,gid=34,umask=077
    [ "$(stat -c '%u %g %a' "$M/local/tied-qwen2/tied-qwen2.apr")" = "12 34 400" ]
    [ "$(stat -c '%u %g %a' "$M/local")" = "12 34 500" ]
    stop
}

t_narrow_access() { # allow_other as root never widens access to a source
    [ "$(id -u)" = 0 ] || skip "not root"
    big_store "$T/store/open.gguf" 1 1
    big_store "$T/store/shut.gguf" 1 1
    chmod 644 "$T/store/open.gguf"
    chmod 640 "$T/store/shut.gguf"
    chown 12:34 "$T/store/shut.gguf"
    # Links: into a folder that others may not enter, and into one that they may.
    mkdir "$T/private" "$T/public"
    big_store "$T/private/far.gguf" 1 1
    big_store "$T/public/near.gguf" 1 1
    chmod 644 "$T/private/far.gguf" "$T/public/near.gguf"
    chown 12:34 "$T/private/far.gguf"
    chmod 700 "$T/private"
    ln -s "$T/private/far.gguf" "$T/public/near.gguf" "$T/store/"
    # A file that others may read, in a folder of the store that they may not enter.
    mkdir -p "$T/store/a/closed"
    big_store "$T/store/a/closed/in.gguf" 1 1
    chmod 644 "$T/store/a/closed/in.gguf"
    chown 12:34 "$T/store/a/closed/in.gguf"
    chmod 700 "$T/store/a/closed"
    # Two parts, two owners: neither may read the other's.
    mkdir "$T/tmp"
    small_store "$T/tmp"
    mv "$T/tmp/acme/sharded" "$T/store/sharded"
    chown 12:34 "$T"/store/sharded/*
    chown 56:34 "$T"/store/sharded/*00002-of*
    chmod 640 "$T"/store/sharded/*
    start m "$T/store" -o allow_other,caps=read
    [ "$(stat -c '%u %g %a' "$M/local/open/open.apr")" = "0 0 444" ]
    [ -n "${TMPDIR:-}" ] || [ "$(stat -c '%u %g %a' "$M/local/near/near.apr")" = "0 0 444" ]
    [ "$(stat -c '%u %g %a' "$M/local/far/far.apr")" = "12 34 400" ]
    [ "$(stat -c '%u %g %a' "$M/a/closed/in.apr")" = "12 34 400" ]
    [ "$(stat -c '%g %a' "$M"/local/sharded/*.apr)" = "34 40" ]
    [ "$(stat -c '%u %g %a' "$M/local/shut/shut.apr")" = "12 34 440" ]
    stop
}

t_memory() {
    sanitized && skip "a sanitizer's memory says nothing"
    local f n=0
    [ -d "$MODELS" ] || skip "no folder $MODELS"
    start m "$MODELS"
    for f in "$M"/*/*/*.apr; do
        [ -e "$f" ] || continue
        n=$((n + 1))
        cat "$f" >/dev/null &
        cat "$f" >/dev/null &
    done
    [ $n -gt 0 ] || skip "no real model in $MODELS"
    for f in $(jobs -p); do [ "$f" = "$PID" ] || wait "$f"; done
    find "$M" -name '*.json' -exec cat {} + >/dev/null
    local rss
    rss=$(stat_of "$M" rss_anon_kib)
    echo "# $n models, RssAnon $rss KiB, peak $(awk '/VmHWM/ { print $2 }' /proc/$PID/status) KiB resident in all"
    [ "$rss" -le 65536 ] || fail "RssAnon $rss KiB"
    stop
}

t_copies_nothing() {
    big_store "$T/store/m.gguf" 16 1
    sync -f "$T/store"
    local before after
    before=$(find "$T/store" -printf '%P %s %b %T@ %C@\n' | sort)
    start m "$T/store"
    cat "$M/local/m/m.apr" >/dev/null
    stop
    after=$(find "$T/store" -printf '%P %s %b %T@ %C@\n' | sort)
    [ "$before" = "$after" ] || fail "the store changed"
}

run mount_bytes_equal_witness t_bytes_small 240
run mount_bytes_equal_independent_witness t_bytes_without_our_code 120
run mount_real_models_equal_witness t_bytes_real $((LONG ? 3600 : 180))
run mount_random_reads_equal_witness t_random_reads $((LONG ? 3600 : 240))
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
run mount_refuses_malformed_by_name t_malformed
run mount_hides_every_cut t_every_cut $((LONG ? 600 : 100))
run mount_ends_by_signal t_end_by_signal
run mount_after_kill_says_what_to_run t_killed
run mount_killed_while_scanning_mounts_nothing t_killed_while_scanning 120
run mount_background_returns_when_ready t_background
run mount_notifies_systemd t_notify
run mount_refuses_by_name t_refusals
run mount_takes_fstab_words t_fstab_words
run mount_unprivileged_through_fusermount t_unprivileged
run mount_stat_is_true_and_stable t_stat_stable 120
run mount_changes_are_erofs t_erofs
run mount_xattrs_are_true t_xattrs
run mount_siblings_are_json t_siblings
run mount_never_widens_access t_narrow_access
run mount_memory_is_bounded t_memory 240
run mount_copies_nothing t_copies_nothing
tests_end
