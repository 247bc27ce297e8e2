#!/usr/bin/env bash
# The tiers of mount.md §2 and §3: 1a on loop-mounted XFS and btrfs, direct and cached opens, and that a
# fallback is told and never felt. Prints TAP. See tests/mount.sh.
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/mount.sh

# loop_fs TYPE: an image of that file system, mounted at $T/TYPE.
loop_fs() {
    local t=$1
    command -v "mkfs.$t" >/dev/null || skip "no mkfs.$t"
    truncate -s 400M "$T/$t.img"
    case $t in
    xfs) mkfs.xfs -q -m reflink=1 "$T/$t.img" ;;
    btrfs) mkfs.btrfs -q "$T/$t.img" ;;
    ext4) mkfs.ext4 -q "$T/$t.img" ;;
    esac || skip "mkfs.$t fails here"
    mkdir -p "$T/$t"
    mount -o loop "$T/$t.img" "$T/$t" 2>"$T/why" || skip "no loop mount of $t here: $(tail -n 1 "$T/why")"
    mkdir "$T/$t/store" "$T/$t/tmp"
}

needs_passthrough() { # of this kernel, by what the mount M was granted
    grep -q 'granted:.* passthrough' "$M/.aprfs/status.txt" || skip "no FUSE passthrough here: $(sed -n 2p "$M/.aprfs/status.txt")"
}

opened() { sed -n "s/^opened:.* \([0-9][0-9]*\) $2.*/\1/p" "$1/.aprfs/status.txt"; } # MOUNT "as 1a"|direct|cached

cut_to() { python3 -c 'import os, sys; os.truncate(sys.argv[2], int(sys.argv[1]))' "$1" "$2"; } # waits for a lease

# reader FILE: holds FILE open and mapped; each line asked for is answered by the SHA-256 of all its bytes
# by read and by map.
start_reader() {
    coproc READER { python3 -c '
import hashlib, mmap, os, sys
f = open(sys.argv[1], "rb")
m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
print("open", flush=True)
for line in sys.stdin:
    f.seek(0)
    print(hashlib.sha256(f.read()).hexdigest(), hashlib.sha256(m).hexdigest(), flush=True)
' "$1"; }
    read -r -u "${READER[0]}" line
    [ "$line" = open ] || fail "reader says '$line'"
}
reader_says() { echo go >&"${READER[1]}"; read -r -u "${READER[0]}" line && echo "$line"; }

t_1a() { # TYPE
    local fs=$1 apr before after sum used
    loop_fs "$fs"
    big_store "$T/$fs/store/m.gguf" 24 1
    sync -f "$T/$fs"
    used=$(df --output=used -k "$T/$fs" | tail -n 1)
    start m "$T/$fs/store" -o "compose_dir=$T/$fs/tmp,compose_keep=0"
    needs_passthrough
    apr=$M/local/m/m.apr
    [ "$(xattr "$apr" tier)" = 1a ] || fail "tier: $(xattr "$apr" tier)"
    witness "$apr" "$T/w.apr"
    exec 8<"$apr"
    until_true 20 open_files_are 1 || fail "open_files $(stat_of "$M" open_files)"
    before="$(stat_of "$M" file_bytes) $(stat_of "$M" head_bytes)"
    same_by_every_way "$apr" "$T/w.apr"
    xattr "$apr" extents >"$T/extents.tsv"
    "$B/tests/tool_randcmp" --quiet 1 --ops 2000 --threads 4 --align 4096 --extents "$T/extents.tsv" "$apr" "$T/w.apr"
    after="$(stat_of "$M" file_bytes) $(stat_of "$M" head_bytes)"
    [ "$before" = "$after" ] || fail "$(cat "$M/.aprfs/status.txt") bytes came through the daemon: $before, then $after"
    [ "$(opened "$M" direct) $(opened "$M" cached)" = "0 0" ] || fail "$(grep opened "$M/.aprfs/status.txt")"
    grep -q 'tier 1a$' "$M/.aprfs/status.txt" || fail "$(cat "$M/.aprfs/status.txt")"
    # The composed file takes its head's space and no more; the source's blocks are shared.
    sync -f "$T/$fs"
    used=$(($(df --output=used -k "$T/$fs" | tail -n 1) - used))
    echo "# $fs: $used KiB more in use while a model of 24 MiB is open"
    [ "$used" -lt 4096 ] || fail "$used KiB more in use"
    filefrag -v "$T/$fs/store/m.gguf" | grep -q shared || fail "no shared block: $(filefrag -v "$T/$fs/store/m.gguf")"
    exec 8<&-
    # compose_keep=0: once nobody has it open the id goes.
    until_true 10 grep -q ' 0 kept' "$M/.aprfs/status.txt" || fail "$(grep kept "$M/.aprfs/status.txt")"
    [ -z "$(ls -A "$T/$fs/tmp")" ] || fail "left behind: $(ls -A "$T/$fs/tmp")"
    stop
}
t_1a_xfs() { t_1a xfs; }
t_1a_btrfs() { t_1a btrfs; }

t_1a_kept() { # a second open within compose_keep composes nothing
    loop_fs xfs
    big_store "$T/xfs/store/m.gguf" 8 1
    start m "$T/xfs/store" -o "compose_dir=$T/xfs/tmp"
    needs_passthrough
    cat "$M/local/m/m.apr" >/dev/null
    cat "$M/local/m/m.apr" >/dev/null
    until_true 20 grep -q 'opened: 2 as 1a.* 1 composed, 1 kept' "$M/.aprfs/status.txt" || fail "$(grep opened "$M/.aprfs/status.txt")"
    stop
}

t_1a_other_files() { # what gguf=file and as=gguf show is composed like a .apr
    local f want
    loop_fs xfs
    big_store "$T/xfs/store/m.gguf" 8 1
    cp "$T/xfs/store/m.gguf" "$T/m.gguf"
    want=$(sha256sum <"$T/m.gguf")
    want="${want%% *} ${want%% *}"
    start file "$T/xfs/store" -o "compose_dir=$T/xfs/tmp,gguf=file"
    needs_passthrough
    f=$M/local/m/m.gguf
    same_by_every_way "$f" "$T/m.gguf"
    [ "$(opened "$M" direct) $(opened "$M" cached)" = "0 0" ] || fail "gguf=file: $(grep opened "$M/.aprfs/status.txt")"
    # What is at either end of an extent is copied once, when the file is composed; the rest is shared.
    [ "$(stat_of "$M" file_bytes)" -lt 131072 ] || fail "$(stat_of "$M" file_bytes) bytes came through the daemon"
    start_reader "$f"
    dd if=/dev/urandom of="$T/xfs/store/m.gguf" bs=1M seek=2 count=4 conv=notrunc status=none
    [ "$(reader_says)" = "$want" ] || fail "gguf=file, overwritten: other bytes"
    exec {READER[1]}>&-
    wait "$READER_PID"
    stop
    mkdir "$T/xfs/aprs"
    "$APRTOOL" convert --profile native "$T/m.gguf" "$T/xfs/aprs/m.apr" >/dev/null
    start reverse "$T/xfs/aprs" -o "compose_dir=$T/xfs/tmp,as=gguf"
    f=$(find "$M" -name '*.gguf')
    [ "$(xattr "$f" tier)" = 1a ] || fail "as=gguf: $(xattr "$f" tier)"
    same_by_every_way "$f" "$T/m.gguf"
    [ "$(opened "$M" direct) $(opened "$M" cached)" = "0 0" ] || fail "as=gguf: $(grep opened "$M/.aprfs/status.txt")"
    [ "$(stat_of "$M" file_bytes)" -lt 131072 ] || fail "$(stat_of "$M" file_bytes) bytes came through the daemon"
    stop
}

t_1a_no_large_files() { # `ulimit -f`: composing fails, and the signal that says so ends nothing
    loop_fs xfs
    big_store "$T/xfs/store/m.gguf" 24 1
    ulimit -S -f 8192
    start m "$T/xfs/store" -o "compose_dir=$T/xfs/tmp"
    ulimit -S -f unlimited
    needs_passthrough
    witness "$M/local/m/m.apr" "$T/w.apr"
    exec 8<"$M/local/m/m.apr"
    cmp - "$T/w.apr" <&8
    [ "$(xattr "$M/local/m/m.apr" tier)" = "2 write in $T/xfs/tmp: File too large" ] || fail "$(xattr "$M/local/m/m.apr" tier)"
    exec 8<&-
    stop
}

t_1a_unharmed() { # overwritten, truncated, deleted, killed: who reads by 1a goes on
    local want how fs
    for fs in xfs btrfs; do
        loop_fs "$fs"
        for how in overwrite truncate delete kill; do
            big_store "$T/$fs/store/m.gguf" 8 1
            start "$fs-$how" "$T/$fs/store" -o "compose_dir=$T/$fs/tmp"
            needs_passthrough
            witness "$M/local/m/m.apr" "$T/w.apr"
            want=$(sha256sum <"$T/w.apr")
            want="${want%% *} ${want%% *}"
            start_reader "$M/local/m/m.apr"
            case $how in
            overwrite) dd if=/dev/urandom of="$T/$fs/store/m.gguf" bs=1M seek=2 count=4 conv=notrunc status=none ;;
            truncate) cut_to 1048576 "$T/$fs/store/m.gguf" ;;
            delete) rm "$T/$fs/store/m.gguf" ;;
            kill) kill -9 "$PID" ;;
            esac
            [ "$(reader_says)" = "$want" ] || fail "$fs, $how: other bytes"
            exec {READER[1]}>&-
            wait "$READER_PID"
            if [ $how = kill ]; then
                wait "$PID" || true
                fusermount3 -uz "$M"
            else
                stop
            fi
            rm -f "$T/$fs/store/m.gguf"
        done
    done
}

t_fallback() { # each reason is told, and the bytes are the same
    local apr
    loop_fs ext4
    big_store "$T/ext4/store/m.gguf" 8 1
    start ext4 "$T/ext4/store" -o "compose_dir=$T/ext4/tmp"
    apr=$M/local/m/m.apr
    needs_passthrough
    [ "$(xattr "$apr" tier)" = "2 source file system has no reflink" ] || fail "$(xattr "$apr" tier)"
    witness "$apr" "$T/w.apr"
    same_by_every_way "$apr" "$T/w.apr"
    grep -q 'tier 2 source file system has no reflink' "$M/.aprfs/status.txt" || fail "$(cat "$M/.aprfs/status.txt")"
    stop
    loop_fs xfs
    cp "$T/ext4/store/m.gguf" "$T/xfs/store/"
    start elsewhere "$T/xfs/store" -o "compose_dir=$T/ext4/tmp"
    [[ $(xattr "$M/local/m/m.apr" tier) == "2 $T/ext4/tmp is on another file system than the source"* ]] || fail "$(xattr "$M/local/m/m.apr" tier)"
    same_by_every_way "$M/local/m/m.apr" "$T/w.apr"
    stop
    start never "$T/xfs/store" -o compose=never
    [ "$(xattr "$M/local/m/m.apr" tier)" = "2 compose=never" ] || fail "$(xattr "$M/local/m/m.apr" tier)"
    stop
    # No space for the head: the probe's block takes none, composing fails, three times is enough.
    start full "$T/xfs/store" -o "compose_dir=$T/xfs/tmp,compose_keep=0"
    apr=$M/local/m/m.apr
    [ "$(xattr "$apr" tier)" = 1a ] || fail "$(xattr "$apr" tier)"
    fallocate -l 400M "$T/xfs/fill" 2>/dev/null || dd if=/dev/zero of="$T/xfs/fill" bs=64k status=none 2>/dev/null || true
    dd if=/dev/zero of="$T/xfs/fill2" bs=4k status=none 2>/dev/null || true
    sync -f "$T/xfs"
    for _ in 1 2 3 4; do
        cmp "$apr" "$T/w.apr"
        until_true 10 grep -q '^open_files 0' "$M/.aprfs/stats.txt"
    done
    echo "# full: $(grep -E 'opened|tier' "$M/.aprfs/status.txt" | tr '\n' ';')"
    if [[ $(xattr "$apr" tier) == "2 off after 3 failures"* ]]; then
        rm -f "$T/xfs/fill" "$T/xfs/fill2"
        kill -HUP "$PID"
        until_true 10 eval '[ "$(xattr "$apr" tier)" = 1a ]' || fail "after SIGHUP: $(xattr "$apr" tier)"
        cmp "$apr" "$T/w.apr"
        grep -q 'opened: 1 as 1a' "$M/.aprfs/status.txt" || fail "$(grep opened "$M/.aprfs/status.txt")"
    else
        [ "$(opened "$M" 'as 1a')" = 4 ] || fail "neither 1a nor off: $(xattr "$apr" tier)"
    fi
    stop
}

t_direct() { # by the program's name; shared maps of direct opens; converted files stay cached
    local apr
    big_store "$T/store/m.gguf" 8 1
    start m "$T/store" -o compose=never
    grep -q 'granted:.* direct_io_allow_mmap' "$M/.aprfs/status.txt" || skip "no shared maps of direct opens here"
    apr=$M/local/m/m.apr
    witness "$apr" "$T/w.apr"
    cat "$apr" | cmp - "$T/w.apr"
    [ "$(opened "$M" direct) $(opened "$M" cached)" = "1 0" ] || fail "cat: $(grep opened "$M/.aprfs/status.txt")"
    cmp "$apr" "$T/w.apr"
    [ "$(opened "$M" direct) $(opened "$M" cached)" = "1 1" ] || fail "cmp: $(grep opened "$M/.aprfs/status.txt")"
    same_by_every_way "$apr" "$T/w.apr"
    cp --reflink=auto "$apr" "$T/copy2"
    cmp "$T/copy2" "$T/w.apr"
    stop
    local cache
    for cache in never always; do
        start "$cache" "$T/store" -o "compose=never,cache=$cache"
        apr=$M/local/m/m.apr
        same_by_every_way "$apr" "$T/w.apr"
        xattr "$apr" extents >"$T/extents.tsv"
        "$B/tests/tool_randcmp" --quiet 1 --ops 3000 --threads 4 --extents "$T/extents.tsv" "$apr" "$T/w.apr"
        if [ $cache = never ]; then
            [ "$(opened "$M" cached)" = 0 ] || fail "$cache: $(grep opened "$M/.aprfs/status.txt")"
        else
            [ "$(opened "$M" direct)" = 0 ] || fail "$cache: $(grep opened "$M/.aprfs/status.txt")"
        fi
        stop
    done
}

t_direct_small() { # every kind of small model by direct reads: placed, converted, sharded
    local apr
    small_store "$T/store"
    start m "$T/store" -o "compose=never,cache=never" --profile strict
    while IFS= read -r apr; do
        witness "$apr" "$T/w.apr" --profile strict
        cmp "$apr" "$T/w.apr"
    done < <(find "$M" -name '*.apr' | if brief; then head -n 6; else cat; fi)
    stop
}

t_direct_truncated() { # right bytes, then EIO; never a short success; the daemon lives
    local apr rc=0
    big_store "$T/store/m.gguf" 16 1
    start m "$T/store" -o "compose=never,cache=never"
    apr=$M/local/m/m.apr
    witness "$apr" "$T/w.apr"
    exec 8<"$apr"
    head -c 4194304 <&8 | cmp - <(head -c 4194304 "$T/w.apr")
    cut_to 6291456 "$T/store/m.gguf"
    cat <&8 >"$T/rest" 2>"$T/err" || rc=$?
    [ $rc -ne 0 ] || fail "a truncated source ended well"
    cmp "$T/rest" <(tail -c +4194305 "$T/w.apr" | head -c "$(stat -c %s "$T/rest")")
    exec 8<&-
    kill -0 "$PID"
    stop
}

t_refused() { # by name
    local o
    mkdir -p "$T/store" "$T/mnt"
    for o in compose=erofs io_uring compose=fast compose_dir=relative compose_keep=x; do
        if "$APRFS" -o "$o" "$T/store" "$T/mnt" 2>"$T/err"; then fail "$o was accepted"; fi
        grep -q "${o%%=*}" "$T/err" || fail "$o: $(cat "$T/err")"
    done
    "$APRFS" -o compose=erofs "$T/store" "$T/mnt" 2>&1 | grep -q 'compose=erofs: not in this version'
    "$APRFS" -o io_uring "$T/store" "$T/mnt" 2>&1 | grep -q 'io_uring: not in this version'
}

run tiers_1a_on_xfs t_1a_xfs
run tiers_1a_on_btrfs t_1a_btrfs
run tiers_1a_kept_for_the_next_open t_1a_kept
run tiers_1a_of_gguf_files_and_the_reverse_view t_1a_other_files
run tiers_1a_without_leave_for_large_files t_1a_no_large_files
run tiers_1a_readers_unharmed t_1a_unharmed
run tiers_fallback_told_not_felt t_fallback
run tiers_direct_by_program t_direct
run tiers_direct_small_models t_direct_small
run tiers_direct_truncated_source t_direct_truncated
run tiers_refused_by_name t_refused
tests_end
