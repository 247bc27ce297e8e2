#!/usr/bin/env bash
# Where aprd reads a model's tensors from: the files behind a mount, the mount, or the file it was
# given; the same logits, bit for bit, from all of them. TAP. B: the build's folder. Needs /dev/fuse,
# else every test is skipped with the reason.
set -u
cd "$(dirname "$0")/.." || exit 2
. tests/tap.sh
APRD=$B/aprd
families="llama qwen2 qwen3 gemma3"
names="mounted_models_are_read_from_the_files_behind copies_are_read_as_they_are
    copies_that_kept_the_attribute_are_read_as_they_are gguf_is_read_as_it_is
    unreachable_parts_are_read_through_the_mount exchanged_parts_are_not_read shards_are_read_from_every_part
    published_checksum_that_agrees published_checksum_that_differs_is_refused
    checksums_of_a_mount_agree"
skip_all() {
    for name in $names; do skip "$name" "$1"; done
    tap_end
    exit 0
}

# logits PATH OUT: of five ids
logits() { printf '3 4 5 6 7' | "$APRD" logits --device cpu -t 1 "$1" >"$2" 2>"$tmp/err"; }
# source PATH: what aprd run -v says about where the bytes came from
source_of() {
    "$APRD" run --device cpu -t 1 -v --temp 0 -n 1 "$1" the >/dev/null 2>"$tmp/err" || return 1
    sed -n 's/^aprd: loaded [0-9]* bytes in [0-9.]* s, source: //p' "$tmp/err"
}

mkdir -p "$tmp/store" "$tmp/tiny" "$tmp/mnt"
"$B/tests/test_forward" --write "$tmp/tiny" >"$tmp/out" 2>"$tmp/err" || { false; ok small_models_are_written; tap_end; exit 1; }
for f in $families; do cp "$tmp/tiny/tiny-$f.gguf" "$tmp/store/"; done
mkdir -p "$tmp/small"
"$B/tests/tool_store" "$tmp/small" >/dev/null 2>&1 # for its shards
shard=$(find "$tmp/small" -name '*-00001-of-00003.gguf' | head -n 1)
cp "${shard%-00001-of-00003.gguf}"-*-of-00003.gguf "$tmp/store/"
shard=$tmp/store/${shard##*/}
mounted "$tmp/store" "$tmp/mnt" || skip_all "$why"

apr_of() { find "$mnt" -name "tiny-$1.apr" | head -n 1; }
all() { # function: for every family
    local f
    for f in $families; do "$1" "$f" || { echo "family $f" >>"$tmp/err"; return 1; }; done
}

behind() {
    [ "$(source_of "$(apr_of "$1")")" = extents ] && logits "$(apr_of "$1")" "$tmp/$1.mounted" &&
        [ -s "$tmp/$1.mounted" ]
}
all behind; ok mounted_models_are_read_from_the_files_behind

copied() {
    cp "$(apr_of "$1")" "$tmp/$1.apr" && [ "$(source_of "$tmp/$1.apr")" = file ] &&
        logits "$tmp/$1.apr" "$tmp/$1.copy" && cmp "$tmp/$1.copy" "$tmp/$1.mounted"
}
all copied; ok copies_are_read_as_they_are

# A copy may be changed afterwards; what its attribute says is then no longer so.
kept() {
    cp --preserve=xattr,timestamps "$(apr_of "$1")" "$tmp/$1.kept.apr" 2>/dev/null
    [ "$(source_of "$tmp/$1.kept.apr")" = file ]
}
if cp --preserve=xattr "$(apr_of llama)" "$tmp/try.apr" 2>/dev/null && getfattr -n user.aprfs.extents "$tmp/try.apr" >/dev/null 2>&1; then
    all kept; ok copies_that_kept_the_attribute_are_read_as_they_are
else
    skip copies_that_kept_the_attribute_are_read_as_they_are "no user attributes on $tmp, or no getfattr"
fi

plain() {
    [ "$(source_of "$tmp/store/tiny-$1.gguf")" = file ] &&
        logits "$tmp/store/tiny-$1.gguf" "$tmp/$1.gguf.logits" && cmp "$tmp/$1.gguf.logits" "$tmp/$1.mounted"
}
all plain; ok gguf_is_read_as_it_is

# In a mount namespace where another file system lies over the store.
hidden='mount -t tmpfs none "$1" && shift && exec "$@"'
if unshare -m true 2>/dev/null; then
    apr=$(apr_of qwen3)
    apart private sh -c "$hidden" sh "$tmp/store" "$APRD" run --device cpu -t 1 -v --temp 0 -n 1 "$apr" the >/dev/null 2>"$tmp/err" &&
        err 'source: mount: .*/store/tiny-qwen3.gguf: No such file' &&
        printf '3 4 5 6 7' | apart private sh -c "$hidden" sh "$tmp/store" "$APRD" logits --device cpu -t 1 "$apr" >"$tmp/through" 2>>"$tmp/err" &&
        cmp "$tmp/through" "$tmp/qwen3.mounted"; ok unreachable_parts_are_read_through_the_mount
    # Another file stands at that path there: another model, even.
    other='mount -t tmpfs none "$1" && cp "$2" "$1/tiny-qwen3.gguf" && shift 2 && exec "$@"'
    cp "$tmp/tiny/tiny-llama.gguf" "$tmp/other.gguf"
    apart private sh -c "$other" sh "$tmp/store" "$tmp/other.gguf" "$APRD" run --device cpu -t 1 -v --temp 0 -n 1 "$apr" the >/dev/null 2>"$tmp/err" &&
        err 'source: mount: .*tiny-qwen3.gguf: is another file here'; ok exchanged_parts_are_not_read
else
    skip unreachable_parts_are_read_through_the_mount "no mount namespace of our own"
    skip exchanged_parts_are_not_read "no mount namespace of our own"
fi

sharded=$(find "$mnt" -name "$(basename "${shard%-00001-of-00003.gguf}").apr" | head -n 1)
[ "$(source_of "$sharded")" = extents ] && logits "$sharded" "$tmp/a" && logits "$shard" "$tmp/b" &&
    [ -s "$tmp/a" ] && cmp "$tmp/a" "$tmp/b"; ok shards_are_read_from_every_part

# --- checksums that come with a file -----------------------------------------------------------
copy=$tmp/qwen2.apr
crc=$(python3 - "$copy" <<'PY'
import json, struct, sys, zlib
b = open(sys.argv[1], "rb").read()
at, data = struct.unpack_from("<QQ", b, 24)
for _ in range(struct.unpack_from("<I", b, 8)[0]):
    n, = struct.unpack_from("<H", b, at)
    name = b[at + 2:at + 2 + n].decode()
    dims = b[at + 3 + n]
    off, size = struct.unpack_from("<QQ", b, at + 4 + n + 8 * dims)
    at += 20 + n + 8 * dims
    print("%08x %s" % (zlib.crc32(b[data + off:data + off + size]), name))
PY
)
if setfattr -n user.aprfs.crc32 -v "$crc" "$copy" 2>/dev/null; then
    [ "$(source_of "$copy")" = file ]; ok published_checksum_that_agrees
    good=$(echo "$crc" | sed -n 's/ blk.1.ffn_up.weight$//p')
    setfattr -n user.aprfs.crc32 -v "$(echo "$crc" | sed 's/^........ blk.1.ffn_up.weight$/0000abcd blk.1.ffn_up.weight/')" "$copy"
    expect 1 "$APRD" run --device cpu "$copy" the && silent &&
        err "tensor 'blk.1.ffn_up.weight': CRC-32 of its bytes is $good, published is 0000abcd"; ok published_checksum_that_differs_is_refused
else
    skip published_checksum_that_agrees "no user attributes on $tmp, or no setfattr"
    skip published_checksum_that_differs_is_refused "no user attributes on $tmp, or no setfattr"
fi

# A mount computes them once somebody read the footer, for what stands in several parts too.
unmounted
mounted "$tmp/store" "$tmp/mnt" footer=crc
summed() { # APR LOGITS: the same as without
    tail -c 4 "$1" >/dev/null &&
        python3 -c 'import os, sys; os.getxattr(sys.argv[1], "user.aprfs.crc32")' "$1" &&
        [ "$(source_of "$1")" = extents ] && logits "$1" "$tmp/summed" && cmp "$tmp/summed" "$2"
}
of_family() { summed "$(apr_of "$1")" "$tmp/$1.mounted"; }
all of_family && summed "$sharded" "$tmp/b"; ok checksums_of_a_mount_agree
tap_end
