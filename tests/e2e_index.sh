#!/usr/bin/env bash
# The index on disk, end to end: what a restart knows, what it does not believe, and that a mount never
# depends on it. Prints TAP. See tests/mount.sh for what it needs and takes.
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/mount.sh

inodes() { find "$1" -path '*/.aprfs' -prune -o -printf '%P %i\n' | sort; }
parsed() { stat_of "$M" headers_parsed; }
written() { grep -q "^index: .* written $1 times" "$M/.aprfs/status.txt"; }
files() { find "$1" -name '*.idx' | wc -l; }

t_restart() {
    small_store "$T/store"
    start m "$T/store" -o "index=$T/idx"
    local first
    first=$(parsed)
    [ "$first" -gt 3 ] || fail "$first headers of a whole store"
    inodes "$M" >"$T/before"
    stop
    [ "$(files "$T/idx")" = 1 ]
    [ "$(stat -c %a "$T/idx" "$T/idx"/*.idx | tr '\n' ' ')" = "700 600 " ]
    start m "$T/store" -o "index=$T/idx"
    [ "$(parsed)" = 0 ] || fail "$(parsed) headers parsed again, of $first"
    inodes "$M" >"$T/after"
    cmp "$T/before" "$T/after"
    local f
    f=$(find "$M" -name '*.apr' -type f | sort | head -n 1)
    witness "$f" "$T/w.apr"
    cmp "$f" "$T/w.apr"
    stop
    ! grep -h 'index:' "$T/m.daemon" || fail "it says something of a good index"
    # Other options: nothing of it is believed, and it is made anew.
    start m "$T/store" -o "index=$T/idx,values=compat"
    [ "$(parsed)" = "$first" ]
    grep -q 'index:.*other options; removed, made anew' "$T/m.daemon"
    stop
    start m "$T/store" -o "index=none"
    [ "$(parsed)" = "$first" ]
    stop
    "$APRFS" -o index=here "$T/store" "$M" 2>"$T/said" && fail "index=here was taken"
    grep -q 'index=here: expected an absolute path or none' "$T/said"
}

t_changed() {
    big_store "$T/store/a/one.gguf" 1 1
    big_store "$T/store/a/two.gguf" 1 2
    start m "$T/store" -o "index=$T/idx"
    stop
    big_store "$T/store/a/two.gguf" 1 3
    start m "$T/store" -o "index=$T/idx"
    [ "$(parsed)" = 1 ] || fail "$(parsed) headers parsed"
    local f=$M/local/a/two.apr
    witness "$f" "$T/w.apr"
    cmp "$f" "$T/w.apr"
    # While it runs: written some time after the change, without waiting for the end.
    until_true 30 written 1
    big_store "$T/store/a/three.gguf" 1 4
    until_true 30 test -e "$M/local/a/three.apr"
    until_true 30 written 2
    kill -9 "$PID"
    wait "$PID" || true
    fusermount3 -uz "$M" 2>/dev/null || umount -l "$M"
    start m "$T/store" -o "index=$T/idx"
    [ "$(parsed)" = 0 ] || fail "$(parsed) headers parsed after a crash"
    stop
}

t_broken() {
    big_store "$T/store/a/one.gguf" 1 1
    start m "$T/store" -o "index=$T/idx"
    stop
    local idx good
    idx=$(echo "$T/idx"/*.idx)
    good=$(wc -c <"$idx")
    again() { # TEXT: the index is not believed, the mount is right, the index whole after it
        start m "$T/store" -o "index=$T/idx"
        [ "$(parsed)" = 1 ] || fail "$1: $(parsed) headers parsed"
        [ "$(grep -c "index:.*$1" "$T/m.daemon")" = 1 ] || fail "$1: $(cat "$T/m.daemon")"
        [ -s "$M/local/a/one.apr" ]
        stop
        start m "$T/store" -o "index=$T/idx"
        [ "$(parsed)" = 0 ] || fail "$1: not made anew"
        stop
    }
    printf x | dd of="$idx" bs=1 seek=100 conv=notrunc status=none
    again 'CRC-32 is .*; removed, made anew'
    truncate -s $((good - 1)) "$idx"
    again 'its counts make .*; removed, made anew'
    : >"$idx"
    again '0 bytes; .*; removed, made anew'
    printf 'APRFSIX0' | dd of="$idx" bs=1 conv=notrunc status=none
    again 'no index: .*; removed, made anew'
    printf '\377' | dd of="$idx" bs=1 seek=8 conv=notrunc status=none
    again 'schema 255, .*; removed, made anew'
}

# without TEXT [DIR]: it works without an index, says so once and touches nothing of DIR.
without() {
    local text=$1 dir=${2:-$T/idx} was
    was=$(find "$T/idx" "$T/else" -printf '%p %i %s %T@\n')
    start m "$T/store" -o "index=$dir"
    [ "$(parsed)" = 1 ] || fail "$text: $(parsed) headers parsed"
    [ -s "$M/local/a/one.apr" ]
    stop
    [ "$(grep -c "index:.*$text" "$T/m.daemon")" = 1 ] || fail "$text: $(cat "$T/m.daemon")"
    [ "$was" = "$(find "$T/idx" "$T/else" -printf '%p %i %s %T@\n')" ] || fail "$text: written to"
}

t_hostile() {
    mkdir "$T/else"
    big_store "$T/store/a/one.gguf" 1 1
    start m "$T/store" -o "index=$T/idx"
    stop
    local idx
    idx=$(echo "$T/idx"/*.idx)
    chmod 777 "$T/idx"
    without 'may be written by others; working without'
    chmod 700 "$T/idx"
    chmod 666 "$idx"
    without 'may be written by others; working without'
    chmod 600 "$idx"
    mv "$idx" "$T/else/target"
    ln -s "$T/else/target" "$idx"
    without 'is a link; working without'
    rm "$idx"
    mkfifo "$idx"
    without 'is no regular file; working without'
    rm "$idx"
    start m "$T/store" -o "index=$T/idx"
    until_true 20 test -e "$idx"
    ln -sf "$T/else/target" "$idx" # while it is mounted: nothing is kept any more, which is said, too
    big_store "$T/store/b/two.gguf" 1 1
    until_true 20 test -e "$M/local/b/two.apr"
    stop
    [ -L "$idx" ]
    [ "$(grep -c "index: none is kept of $T/store: " "$T/m.daemon")" = 1 ] || fail "$(cat "$T/m.daemon")"
    rm -r "$idx" "$T/store/b"
    : >"$T/file"
    without 'Not a directory; working without' "$T/file"
    if [ "$(id -u)" = 0 ]; then
        chmod 755 "$T/idx"
        chown 12345 "$T/idx"
        without 'belongs to another user; working without'
    fi
}

# The sums of every tensor and of the file, by zlib over the bytes that the mount shows.
sums() { # APR: lines "XXXXXXXX NAME", in the index's order; then "XXXXXXXX" of all before the footer
    "$APRTOOL" tensors --json "$1" >"$T/tensors"
    python3 - "$1" "$T/tensors" <<'PY'
import json, sys, zlib
b = open(sys.argv[1], "rb").read()
for t in json.load(open(sys.argv[2]))["tensors"]:
    print("%08x %s" % (zlib.crc32(b[t["offset"]:t["offset"] + t["size"]]), t["name"]))
print("%08x" % zlib.crc32(b[:-4]))
assert zlib.crc32(b[:-4]) == int.from_bytes(b[-4:], "little")
PY
}

# Computed once, remembered over a restart, told by an attribute and, whatever its length, by a file.
t_checksums() {
    small_store "$T/store"
    find "$T/store" -name '*.gguf' -not -name 'tied-qwen2*' -not -path '*/sharded/*' -delete
    start m "$T/store" -o "index=$T/idx,footer=crc"
    local f list n=0
    find "$M" -name '*.apr' >"$T/models"
    while IFS= read -r f; do
        list="$M/.aprfs/extents/${f#"$M"/}"
        list=${list%.apr}.crc32
        ! xattr "$f" crc32 2>"$T/said" || fail "$f: checksums that nobody computed"
        grep -q 'No data available' "$T/said"
        [ ! -e "$list" ] || fail "$list is there already"
        getfattr -d "$f" | grep crc32 && fail "$f: lists checksums that nobody computed"
        tail -c 4 "$f" >/dev/null
        sums "$f" >"$T/sums.$n"
        xattr "$f" crc32 >"$T/attr.$n"
        cmp "$T/attr.$n" <(head -c -1 <(head -n -1 "$T/sums.$n"))
        until_true 30 test -e "$list" # a name that was not there is asked again after 1 s
        cmp "$list" <(head -n -1 "$T/sums.$n")
        getfattr -d "$f" | grep -q 'user.aprfs.crc32='
        n=$((n + 1))
    done <"$T/models"
    [ $n = 2 ] || fail "$n models"
    ! find "$M/.aprfs/extents" -name '*.crc32' | grep . || fail "listed, though it need not be there"
    stop
    start m "$T/store" -o "index=$T/idx,footer=crc"
    [ "$(parsed)" = 0 ]
    n=0
    while IFS= read -r f; do
        xattr "$f" crc32 | cmp - "$T/attr.$n"
        [ "$(tail -c 4 "$f" | od -An -tx4 --endian=little | tr -d ' ')" = "$(tail -n 1 "$T/sums.$n")" ]
        n=$((n + 1))
    done <"$T/models"
    # Of 8 MiB, a page at the end and the head were read: no checksum was computed.
    [ "$(stat_of "$M" file_bytes)" -lt 300000 ] || fail "$(stat_of "$M" file_bytes) bytes of sources read"
    stop
    start m "$T/store" -o "index=$T/idx2"
    ! xattr "$f" crc32 2>/dev/null || fail "checksums without a footer"
    stop
}

# forge IDX OFFSET DELTA: adds to the u64 at that byte of the first record, with a right checksum over it
# (format/store_index.h: records begin at 64; size at 48, head_len at 128 of a record).
forge() {
    python3 - "$@" <<'PY'
import struct, sys, zlib
p, at, delta = sys.argv[1], 64 + int(sys.argv[2]), int(sys.argv[3])
b = bytearray(open(p, "rb").read())
struct.pack_into("<Q", b, at, struct.unpack_from("<Q", b, at)[0] + delta)
struct.pack_into("<I", b, 28, zlib.crc32(b[32:]))
open(p, "r+b").write(b)
PY
}

# A record that the head built again contradicts: EIO, then another node with the truth, and the record
# is made anew.
t_wrong() {
    big_store "$T/store/a/one.gguf" 1 1
    start m "$T/store" -o "index=$T/idx"
    local f=$M/local/a/one.apr idx size was ino at
    size=$(stat -c %s "$f")
    ino=$(stat -c %i "$f")
    witness "$f" "$T/w.apr"
    stop
    idx=$(echo "$T/idx"/*.idx)
    for at in 48 128; do
        forge "$idx" $at 64
        start m "$T/store" -o "index=$T/idx"
        [ "$(parsed)" = 0 ] || fail "byte $at: not believed at first"
        [ "$(stat -c %s "$f")" = $((size + (at == 48 ? 64 : 0))) ]
        [ "$(stat -c %i "$f")" = "$ino" ]
        ! cat "$f" >"$T/got" 2>"$T/said" || fail "byte $at: a wrong record was read by"
        grep -q 'Input/output error' "$T/said"
        right() { cmp "$f" "$T/w.apr"; }
        until_true 30 right || fail "byte $at: not read again"
        was=$(stat -c %i "$f")
        [ "$was" != "$ino" ] || fail "byte $at: the same number for another size"
        grep -q 'planned again it has .* recorded were' "$T/m.daemon"
        stop
        start m "$T/store" -o "index=$T/idx"
        [ "$(parsed)" = 0 ] || fail "byte $at: not made anew"
        cmp "$f" "$T/w.apr"
        [ "$(stat -c %i "$f")" = "$was" ] || fail "byte $at: number $(stat -c %i "$f") after a restart, was $was"
        stop
        ino=$was
    done
}

# A source whose index cannot be written is no reason for the others'; status.txt says what is going on.
t_each_by_itself() {
    big_store "$T/one/a/one.gguf" 1 1
    big_store "$T/two/a/two.gguf" 1 2
    local one
    one=$(printf %s "$(realpath "$T/one")" | sha256sum | head -c 16).idx
    mkdir -p "$T/idx/$one.new" # in the way of the temporary name
    chmod 700 "$T/idx"
    start m "" -o "index=$T/idx" "$T/one" "$T/two"
    [ "$(parsed)" = 2 ]
    until_true 30 grep -q "^index: $T/idx, 0 records known at the start, written 1 times, not the last: .*/$one: File exists" "$M/.aprfs/status.txt" ||
        fail "$(grep '^index' "$M/.aprfs/status.txt")"
    stop
    [ "$(files "$T/idx")" = 1 ] || fail "$(ls "$T/idx")"
    [ "$(grep -c 'index: .*File exists; the next start may parse again' "$T/m.daemon")" = 1 ]
    rmdir "$T/idx/$one.new"
    start m "" -o "index=$T/idx" "$T/one" "$T/two"
    [ "$(parsed)" = 1 ] || fail "$(parsed) headers parsed"
    until_true 30 grep -qx "index: $T/idx, 1 records known at the start, written 1 times, now 2 records" "$M/.aprfs/status.txt" ||
        fail "$(grep '^index' "$M/.aprfs/status.txt")"
    stop
    start m "" -o "index=none" "$T/one" "$T/two"
    grep -qx 'index: none' "$M/.aprfs/status.txt"
    stop
    # Another mount is writing when this one ends: it waits for that.
    rm "$T/idx"/*
    start m "" -o "index=$T/idx" "$T/one" "$T/two"
    until_true 30 written 1
    rm "$T/idx"/*
    big_store "$T/one/a/three.gguf" 1 3
    until_true 30 test -e "$M/one/local/a/three.apr"
    flock "$T/idx" sh -c ': >"$1" && sleep 0.3' sh "$T/locked" &
    until_true 30 test -e "$T/locked"
    stop
    wait $!
    [ "$(files "$T/idx")" = 2 ] || fail "not written at the end: $(ls "$T/idx")"
}

run index_restart_parses_nothing_and_keeps_inodes t_restart
run index_remembers_checksums t_checksums 240
run index_record_that_is_wrong_is_eio_and_goes t_wrong
run index_of_each_source_by_itself t_each_by_itself
run index_changed_files_are_parsed_and_written_soon t_changed
run index_that_is_damaged_is_made_anew t_broken
run index_that_others_may_write_is_not_used t_hostile
tests_end
