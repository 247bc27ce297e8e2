# shellcheck shell=bash
# What the tests of this folder share.

# pattern_model FILE MIB BS: a model whose tensor bytes say where they stand in its .apr: each 8 bytes
# are the virtual offset of their block of BS. Sets FROM and LEN, whole blocks of the .apr.
pattern_model() {
    local src=$1 bs=$3 apr map
    big_store "$src" "$2" 1
    start pattern "$(dirname "$src")"
    apr=$(find "$M" -name "$(basename "$src" .gguf).apr")
    # map VIRTUAL LENGTH PART SOURCE: the longest range is the extent.
    map=$(xattr "$apr" extents | awk '$1 == "map" && $4 == "0" && $3 > n { n = $3; l = $2 " " $3 " " $5 } END { print l }')
    stop
    local at n from
    read -r at n from <<<"$map"
    FROM=$(((at + bs - 1) / bs * bs))
    LEN=$(((at + n) / bs * bs - FROM))
    [ $LEN -ge $(($2 << 19)) ] || fail "the extent of $src: $map"
    "$B/tests/tool_pattern" fill "$src" $((from + FROM - at)) $LEN $FROM "$bs"
}

# pressure MIB SECONDS: the test's own group gets a limit, and a program that holds 80 % of it.
pressure() {
    command -v stress-ng >/dev/null || skip "no stress-ng"
    [ -n "$GROUP" ] && cg_limit "$GROUP" $(($1 << 20)) || skip "no control group whose memory can be limited"
    nice -n 19 stress-ng --quiet --vm 1 --vm-bytes $(($1 * 8 / 10))M --vm-keep --vm-hang 2 --timeout "$2" &
    echo "# pressure: $1 MiB for all, $(($1 * 8 / 10)) MiB of them taken"
}

# watch_daemon PID FILE SECONDS: its anonymous memory (KiB), descriptors and threads, for ever.
watch_daemon() {
    while [ -e "/proc/$1/status" ]; do
        printf '%s\t%s\t%s\t%s\n' "$(date +%s)" \
            "$(awk '/^RssAnon/ { r = $2 } /^Threads/ { t = $2 } END { print r "\t" t }' "/proc/$1/status")" \
            "$(ls "/proc/$1/fd" | wc -l)" "$(awk '/^VmHWM/ { print $2 }' "/proc/$1/status")" >>"$2"
        sleep "$3"
    done
}

# flat FILE: what watch_daemon wrote does not grow: the last third against the first, and 64 MiB for all.
# In runs of minutes the two caches of 16 MiB (heads and texts; converted units) may still fill.
flat() {
    python3 - "$1" <<'PY'
import sys
rows = [[int(x) for x in l.split("\t")] for l in open(sys.argv[1]) if l.count("\t") == 4]
assert len(rows) >= 6, "%d samples" % len(rows)
third = len(rows) // 3
rss, fds = [r[1] for r in rows], [r[3] for r in rows]
print("# %d samples: RssAnon %d..%d KiB, first third at most %d, last third %d; descriptors %d..%d, %d and %d; threads at most %d"
      % (len(rows), min(rss), max(rss), max(rss[:third]), max(rss[-third:]), min(fds), max(fds),
         max(fds[:third]), max(fds[-third:]), max(r[2] for r in rows)))
assert max(rss) <= 65536, "RssAnon above 64 MiB"
slack = 4096 if rows[-1][0] - rows[0][0] > 1800 else 32768
assert max(rss[-third:]) <= max(rss[:third]) + slack, "RssAnon grows"
assert max(fds[-third:]) <= max(fds[:third]) + 8, "descriptors grow"
PY
}

# Pages of FILE in the page cache.
cached_pages() {
    python3 - "$1" <<'PY'
import ctypes, mmap, os, sys
f = os.open(sys.argv[1], os.O_RDONLY)
n = os.fstat(f).st_size
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
p = libc.mmap(None, n, 1, 1, f, 0)
if p == ctypes.c_void_p(-1).value: # opened without cache, where that excludes mappings
    assert ctypes.get_errno() == 19, ctypes.get_errno()
    print(0)
    sys.exit()
vec = (ctypes.c_ubyte * ((n + 4095) // 4096))()
assert libc.mincore(ctypes.c_void_p(p), ctypes.c_size_t(n), vec) == 0, ctypes.get_errno()
print(sum(v & 1 for v in vec))
PY
}

drop_cache() { python3 -c 'import os,sys
f = os.open(sys.argv[1], os.O_RDONLY)
os.fsync(f)
os.posix_fadvise(f, 0, 0, os.POSIX_FADV_DONTNEED)' "$1"; }
