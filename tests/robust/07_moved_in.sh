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
