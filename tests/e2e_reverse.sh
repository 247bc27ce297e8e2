#!/usr/bin/env bash
# The reverse view: folders of .apr files, ours and the original writers', as .gguf. The witness of
# ours is the GGUF that they were made from, byte for byte. TAP; see tests/mount.sh for the words of
# the environment.
set -u
cd "$(dirname "$0")/.." || exit 2
. tests/mount.sh

# aprs DIR PROFILE: each model of a small store as a .apr in DIR, by the writer that is no mount, and
# beside it in $T/want the GGUF it was made of, where that is one file.
aprs() {
    local f stem
    [ -d "$T/models" ] || small_store "$T/models"
    mkdir -p "$1" "$T/want"
    find "$T/models" -name '*.gguf' | sort | while read -r f; do
        stem=$(basename "$f" .gguf)
        case $stem in
        *-0000[2-9]-of-*) continue ;;
        *-00001-of-*) "$APRTOOL" convert --profile "$2" "$f" "$1/${stem%-00001*}.apr" 2>/dev/null || true ;;
        *) "$APRTOOL" convert -f --profile "$2" "$f" "$1/$stem.apr" 2>/dev/null && cp -f "$f" "$T/want/$stem.gguf" || true ;;
        esac
    done
}

# sources: each file shown, a tab, the .apr that it comes from.
sources() {
    shown | python3 -c 'import os,sys
for f in sys.stdin.read().split("\n")[:-1]:
    print(f, os.getxattr(f, "user.aprfs.source").decode(), sep="\t")'
}

shown() { find "$M" -path "$M/.aprfs" -prune -o -type f -name '*.gguf' -print | sort; }

t_round_trip() {
    local p f src n=0
    for p in native engine strict; do
        aprs "$T/$p" $p
        start $p "$T/$p" -o as=gguf
        while IFS=$'\t' read -r f src; do
            src=$(basename "$src" .apr)
            if [ -f "$T/want/$src.gguf" ]; then
                cmp "$f" "$T/want/$src.gguf" || fail "$p: $f is not $src.gguf"
                n=$((n + 1))
            else # of several parts: what the other writer writes
                "$APRTOOL" convert -f "$T/$p/$src.apr" "$T/again.gguf"
                cmp "$f" "$T/again.gguf"
                "$APRTOOL" verify "$f" >/dev/null
            fi
        done < <(sources)
        stop
    done
    [ $n -ge 30 ] || fail "only $n files were compared"
    echo "# $n files equal to their GGUF"
}

t_every_way() {
    mkdir "$T/s"
    big_store "$T/big.gguf" 3 1
    "$APRTOOL" convert --profile native "$T/big.gguf" "$T/s/big.apr"
    start m "$T/s" --as gguf
    local f
    f=$(shown)
    same_by_every_way "$f" "$T/big.gguf"
    [ "$(xattr "$f" layout)" = congruent ]
    # One extent, from behind the head to the end, at a shift of 64 KiB.
    [ "$(xattr "$f" extents | awk '$1 == "map" && $4 == 0 { n++; if (($2 - $5) % 65536) bad = 1 } END { print n + 0, bad + 0 }')" = "1 0" ]
    stop
}

t_names() {
    mkdir -p "$T/s/acme/tiny"
    cp tests/data/aprender-writer.apr "$T/s/acme/tiny/first.apr"
    cp tests/data/q4k-converter-output.apr "$T/s/second.bin" # by its magic
    cp tests/data/q4k-converter-input.gguf "$T/s/other.gguf" # none of ours here
    start m "$T/s" -o as=gguf
    [ "$(cd "$M" && find . -path ./.aprfs -prune -o -type f -print | wc -l)" = 2 ] || fail "$(find "$M")"
    [ -z "$(find "$M" -type l)" ]
    [ -z "$(find "$M" -name '*.json' -not -path "$M/.aprfs/*")" ]
    [ -f "$M"/acme/tiny/*.gguf ]
    local f
    f=$(ls "$M"/acme/tiny/*.gguf)
    ! xattr "$f" profile 2>/dev/null || fail "a profile: $(xattr "$f" profile)"
    [ "$(xattr "$f" arch)" = llama ]
    grep -q '^WARN	acme/tiny/first.apr	derived: tensor names' "$M/.aprfs/problems.txt" || fail "$(cat "$M/.aprfs/problems.txt")"
    python3 -c 'import json,sys; d = json.load(open(sys.argv[1])); assert all(e["path"].endswith(".gguf") for e in d["entries"]), d' "$M/.aprfs/index.json"
    stop
}

t_problems() {
    mkdir "$T/s"
    cp tests/data/tiny.apr "$T/s/tiny.apr"
    cp tests/data/q4k-converter-output.apr "$T/s/good.apr"
    head -c 300000 tests/data/q4k-converter-output.apr >"$T/s/cut.apr"
    echo none >"$T/s/text.apr"
    echo >"$T/s/short.apr"
    cp tests/data/q4k-converter-output.apr "$T/s/arriving.apr.part"
    start m "$T/s" -o as=gguf
    local p=$M/.aprfs/problems.txt
    grep -q "^ENOENT	tiny.apr	metadata: num_layers is missing" "$p" || fail "$(cat "$p")"
    grep -q "^EUCLEAN	cut.apr	" "$p" || fail "$(cat "$p")"
    grep -q "^EUCLEAN	text.apr	no APR file" "$p" || fail "$(cat "$p")"
    grep -q "^EAGAIN	short.apr	needs at least 64 bytes" "$p" || fail "$(cat "$p")"
    grep -q "^EAGAIN	arriving.apr.part	download in progress" "$p" || fail "$(cat "$p")"
    [ "$(shown | wc -l)" = 1 ]
    stop
    ! "$APRFS" --as gguf --store hf "$T/s" "$M" 2>"$T/err" || fail "store=hf was taken"
    grep -q 'as=gguf shows .apr files of plain folders' "$T/err" || fail "$(cat "$T/err")"
}

# Files spoilt in one place: each is shown, as the other writer writes it, or is one line of the problems;
# the daemon goes on (a sanitizer's word ends the test).
t_spoilt() {
    local n=120 f src k=0
    [ "$LONG" = 0 ] || n=2000
    mkdir "$T/s"
    big_store "$T/ours.gguf" 1 1
    "$APRTOOL" convert --profile strict "$T/ours.gguf" "$T/ours.apr"
    python3 - "$T/s" $n "$T/ours.apr" <<'PY'
import importlib.machinery, importlib.util, random, sys
out, n, ours = sys.argv[1], int(sys.argv[2]), sys.argv[3]
loader = importlib.machinery.SourceFileLoader("check_readers", "scripts/check_readers")
m = importlib.util.module_from_spec(importlib.util.spec_from_loader("check_readers", loader))
sys.dont_write_bytecode = True
loader.exec_module(m)
good = [open(p, "rb").read() for p in ("tests/data/aprender-writer.apr", "tests/data/q4k-converter-output.apr", "tests/data/tiny.apr", ours)]
r = random.Random(20261123)
for i in range(n):
    with open("%s/m%04d.apr" % (out, i), "wb") as f:
        f.write(m.spoil(r, r.choice(good)))
PY
    start m "$T/s" -o as=gguf
    sources >"$T/shown"
    while IFS=$'\t' read -r f src; do
        "$APRTOOL" convert -f "$src" "$T/again.gguf" 2>/dev/null
        cmp "$f" "$T/again.gguf"
        basename "$src"
        k=$((k + 1))
    done <"$T/shown" >"$T/seen"
    awk -F'\t' '$1 != "WARN" { print $2 }' "$M/.aprfs/problems.txt" >>"$T/seen"
    [ -z "$(sort "$T/seen" | uniq -d)" ] || fail "told twice: $(sort "$T/seen" | uniq -d)"
    diff <(sort "$T/seen") <(ls "$T/s")
    [ $k -gt $((n / 20)) ] && [ $k -lt $n ] || fail "$k of $n shown"
    echo "# $k of $n spoilt files still say all that a GGUF needs"
    stop
}

# A reader that holds the old file never gets a byte of the new one; who opens it again does.
t_replaced() {
    mkdir "$T/s"
    big_store "$T/a.gguf" 2 1
    big_store "$T/b.gguf" 2 2
    "$APRTOOL" convert "$T/a.gguf" "$T/s/m.apr"
    "$APRTOOL" convert "$T/b.gguf" "$T/b.apr"
    start m "$T/s" -o as=gguf
    local f
    f=$(shown)
    exec 7<"$f"
    head -c 100000 <&7 | cmp -n 100000 - "$T/a.gguf"
    cp "$T/b.apr" "$T/s/m.apr" # in place
    until_true 20 cmp "$f" "$T/b.gguf" || fail "the new file is not shown"
    if cat <&7 >"$T/rest" 2>/dev/null; then fail "the old handle went on"; fi
    cmp -n "$(stat -c %s "$T/rest")" -i 0:100000 "$T/rest" "$T/a.gguf" || fail "bytes of another generation"
    exec 7<&-
    rm "$T/s/m.apr"
    until_true 20 eval '[ -z "$(shown)" ]' || fail "still shown"
    stop
}

# The view of a mount of ours: there and back.
t_stacked() {
    small_store "$T/models"
    start one "$T/models" --profile native -o gguf=none
    local m1=$M p1=$PID f src n=0
    start two "$m1" -o as=gguf
    while IFS=$'\t' read -r f src; do
        src=$(python3 -c 'import os,sys; print(os.getxattr(sys.argv[1], "user.aprfs.source").decode())' "$src")
        [ "$(echo "$src" | wc -l)" = 1 ] || continue
        cmp "$f" "$src" || fail "$f is not $src"
        n=$((n + 1))
    done < <(sources | head -n 12)
    [ $n -ge 5 ] || fail "only $n files"
    stop
    M=$m1 PID=$p1
    stop
}

# A scan parses the whole metadata of each file; nobody keeps what that took, the broker forked behind it
# neither (mount.md §7: RssAnon of 64 MiB; a scan of this file alone takes more).
t_memory() {
    sanitized && skip "a sanitizer's memory says nothing"
    local p rss all=
    python3 - "$T/v.gguf" <<'PY'
import struct, sys
n = 400000
text = lambda t: struct.pack("<Q", len(t)) + t.encode()
u32 = lambda k, v: text(k) + struct.pack("<II", 4, v)
keys = [text("general.architecture") + struct.pack("<I", 8) + text("llama"), u32("llama.block_count", 1),
        u32("llama.embedding_length", 32), u32("llama.feed_forward_length", 32), u32("llama.context_length", 64),
        u32("llama.attention.head_count", 2), text("llama.attention.layer_norm_rms_epsilon") + struct.pack("<If", 6, 1e-5),
        text("tokenizer.ggml.model") + struct.pack("<I", 8) + text("gpt2"),
        text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, n) + b"".join(text("token%06d" % i) for i in range(n)),
        text("tokenizer.ggml.token_type") + struct.pack("<IIQ", 9, 5, n) + struct.pack("<%di" % n, *[1] * n)]
head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(keys)) + b"".join(keys)
head += text("token_embd.weight") + struct.pack("<IQQIQ", 2, 32, n, 2, 0)
with open(sys.argv[1], "wb") as f:
    f.write(head + bytes(-len(head) % 32) + bytes(18 * n))
PY
    mkdir "$T/s"
    "$APRTOOL" convert "$T/v.gguf" "$T/s/v.apr"
    start m "$T/s" -o as=gguf
    for p in $PID $(pgrep -P $PID); do
        rss=$(awk '$1 == "RssAnon:" { print $2 }' /proc/$p/status)
        [ "$rss" -le 32768 ] || fail "process $p: RssAnon $rss KiB behind the scan"
        all="$all $rss"
    done
    cmp "$(shown)" "$T/v.gguf"
    rss=$(stat_of "$M" rss_anon_kib)
    [ "$rss" -le 65536 ] || fail "RssAnon $rss KiB"
    echo "# RssAnon behind the scan$all KiB, once read $rss KiB, peak $(awk '/VmHWM/ { print $2 }' /proc/$PID/status) KiB"
    stop
}

run reverse_gives_every_gguf_back t_round_trip 300
run reverse_reads_by_every_way t_every_way 60
run reverse_shows_apr_files_only t_names 30
run reverse_tells_what_it_cannot_show t_problems 30
run reverse_shows_or_tells_of_spoilt_files t_spoilt 300
run reverse_never_mixes_generations t_replaced 60
run reverse_keeps_no_memory_of_a_scan t_memory 60
run reverse_of_a_mount t_stacked 60
tests_end
