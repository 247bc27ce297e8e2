#!/usr/bin/env bash
# The mount, end to end: what mount.md §9 asks of it (tests 1, 2, 10, 15, 16; 4 is test_vapr_layout's).
# Sources that change: e2e_mount_changes.sh; the program: e2e_daemon.sh. Prints TAP. Names of tests as
# arguments: only these. See tests/mount.sh.
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
run mount_refuses_malformed_by_name t_malformed
run mount_hides_every_cut t_every_cut $((LONG ? 600 : 100))
run mount_stat_is_true_and_stable t_stat_stable 120
run mount_changes_are_erofs t_erofs
run mount_xattrs_are_true t_xattrs
run mount_siblings_are_json t_siblings
run mount_never_widens_access t_narrow_access
run mount_memory_is_bounded t_memory 240
run mount_copies_nothing t_copies_nothing
tests_end
