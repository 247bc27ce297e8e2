#!/usr/bin/env bash
# The index on disk, end to end: what a restart knows, what it does not believe, and that a mount never
# depends on it. Prints TAP. See tests/mount.sh for what it needs and takes.
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/mount.sh

inodes() { find "$1" -path '*/.aprfs' -prune -o -printf '%P %i\n' | sort; }
parsed() { stat_of "$M" headers_parsed; }
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
    ! "$APRFS" -o index=here "$T/store" "$M" 2>"$T/said"
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
    local was
    was=$(stat -c %i "$T/idx"/*.idx)
    big_store "$T/store/a/three.gguf" 1 4
    until_true 30 test -e "$M/local/a/three.apr"
    replaced() { [ "$(stat -c %i "$T/idx"/*.idx)" != "$was" ]; }
    until_true 30 replaced
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
    : >"$T/file"
    without 'Not a directory; working without' "$T/file"
    if [ "$(id -u)" = 0 ]; then
        chmod 755 "$T/idx"
        chown 12345 "$T/idx"
        without 'belongs to another user; working without'
    fi
}

run index_restart_parses_nothing_and_keeps_inodes t_restart
run index_changed_files_are_parsed_and_written_soon t_changed
run index_that_is_damaged_is_made_anew t_broken
run index_that_others_may_write_is_not_used t_hostile
tests_end
