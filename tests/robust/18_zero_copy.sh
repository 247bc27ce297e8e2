# shellcheck shell=bash
# 18: three times the memory is read in each mode, from a file system of its own: no byte is stored twice
# (df), the daemon stays small, and what lies in the page cache afterwards is what mount.md §7 says.

# A file system of its own in a file: $T/disk; df and reflinks are its own.
own_disk() { # MIB
    local fs
    [ "$(id -u)" = 0 ] || return 1
    truncate -s "$1M" "$T/disk.img"
    mkdir -p "$T/disk"
    for fs in xfs btrfs ext4; do
        command -v "mkfs.$fs" >/dev/null || continue
        "mkfs.$fs" -q "$T/disk.img" >/dev/null 2>&1 && mount -o loop "$T/disk.img" "$T/disk" 2>/dev/null && return 0
    done
    return 1
}

used() { df -B 4096 --output=used "$T/disk" | tail -n 1; }
counter() { awk -v k="$1" '$1 == k { print $2 }' "$M/.aprfs/stats.txt"; }

# Reads it all and says what that left. Sets SEEN (bytes the daemon was asked for), MINE and SOURCE
# (pages in the cache of the .apr and of the GGUF), TOUCHED (bytes its own code handled).
zero_copy_round() { # NAME DIRECT OPTION...
    local name=$1 direct=$2 before after apr=$T/$1.mnt/local/m/m.apr
    shift 2
    drop_cache "$T/disk/store/m.gguf"
    before=$(used)
    start "$name" "$T/disk/store" "$@"
    local rss=0 seen touched
    head -c 4096 "$apr" >/dev/null # the head is made
    seen=$(counter read_bytes)
    touched=$(($(counter conv_bytes) + $(counter head_bytes)))
    # shellcheck disable=SC2086 # no word, or one
    "$B/tests/tool_pattern" read "$apr" $FROM $LEN 4096 1048576 $direct
    SEEN=$(($(counter read_bytes) - seen))
    TOUCHED=$(($(counter conv_bytes) + $(counter head_bytes) - touched))
    MINE=$(cached_pages "$apr")
    SOURCE=$(cached_pages "$T/disk/store/m.gguf")
    TIER=$(xattr "$apr" tier)
    rss=$(counter rss_anon_kib)
    after=$(used)
    echo "# $name (tier ${TIER%% *}): $((LEN >> 20)) MiB; $((SEEN >> 20)) MiB asked of the daemon, $TOUCHED bytes through its code; $((MINE >> 8)) MiB of the .apr and $((SOURCE >> 8)) MiB of the GGUF cached; RssAnon $rss KiB; df +$(((after - before) * 4)) KiB"
    [ "$after" -le $((before + 64)) ] || fail "$name: $(((after - before) * 4)) KiB more on the disk"
    sanitized || [ "$rss" -le 65536 ] || fail "$name: RssAnon $rss KiB"
    [ "$TOUCHED" -le 65536 ] || fail "$name: $TOUCHED bytes went through the daemon's code"
    stop
}

r_zero_copy() {
    local mib=$((LONG ? 1536 : 48)) pages
    brief && skip "a sanitizer's memory says nothing"
    own_disk $((mib + 512)) || skip "no file system of its own (root, mkfs and a loop device)"
    pattern_model "$T/disk/store/m.gguf" $mib 4096
    sync -f "$T/disk"
    pages=$((LEN / 4096))
    if [ "$LONG" = 1 ]; then
        [ -n "$GROUP" ] && cg_limit "$GROUP" $((mib / 3 << 20)) || skip "no control group whose memory can be limited"
        pages=$((pages / 3))
    fi
    echo "# on $(stat -f -c %T "$T/disk")"
    zero_copy_round cached "" -o cache=always
    [ "$LONG" = 1 ] || [ "$MINE" -ge $((pages * 9 / 10)) ] || fail "a cached read leaves $MINE pages of $pages"
    [ "$MINE" -le $((pages * 11 / 10)) ] || [ "$LONG" = 0 ]
    zero_copy_round never "" -o cache=never
    [ "$MINE" -le $((pages / 10)) ] || fail "without cache $MINE pages of the .apr are cached"
    zero_copy_round odirect direct
    [ "$MINE" -le $((pages / 10)) ] || fail "O_DIRECT leaves $MINE pages of the .apr"
    zero_copy_round auto ""
    case $TIER in
    1a*) [ "$SEEN" -le 1048576 ] || fail "tier 1a, and the daemon was asked for $SEEN bytes" ;;
    esac
    umount "$T/disk"
}
