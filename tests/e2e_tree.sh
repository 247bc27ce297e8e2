#!/usr/bin/env bash
# Several stores in one mount: where each is shown, what merging makes of their names, GGUFs as files,
# and that one store's changes arrive and leave the others alone. TAP; see tests/mount.sh for the words
# of the environment.
set -u
cd "$(dirname "$0")/.." || exit 2
. tests/mount.sh


t_several() {
    put tied-qwen2 "$T/a/models/pub/m/x.gguf"
    put f16-norms "$T/b/models/pub/m/x.gguf"
    put types/llama-I16 "$T/b/models/pub/m/refused.gguf" # engine has no such type
    mkdir -p "$T/hub/models--org--repo/refs"
    start m "" "$T/a/models" "$T/hub" "$T/b/models"
    [ "$(ls "$M")" = $'hf\nmodels\nmodels-2' ] || fail "$(ls "$M")"
    [ "$(xattr "$M/models/pub/m/x.apr" source)" = "$T/a/models/pub/m/x.gguf" ]
    [ "$(xattr "$M/models-2/pub/m/x.apr" source)" = "$T/b/models/pub/m/x.gguf" ]
    for f in models models-2; do
        witness "$M/$f/pub/m/x.apr" "$T/$f.apr"
        cmp "$M/$f/pub/m/x.apr" "$T/$f.apr"
        [ -s "$M/.aprfs/extents/$f/pub/m/x.tsv" ]
    done
    grep -qP '^[A-Z]+\tmodels-2/pub/m/refused.gguf\t' "$M/.aprfs/problems.txt"
    xattr "$M/models-2/pub/m" problems | grep -q 'type I16'
    [ "$(ls -A "$M/hf")" = "" ]
    python3 - "$M" <<'PY'
import json, os, sys
m = sys.argv[1]
d = json.load(open(m + "/.aprfs/index.json"))
paths = sorted(e["path"] for e in d["entries"] if e["status"] == "ok")
assert paths == ["models-2/pub/m/x.apr", "models/pub/m/x.apr"], paths
for p in paths:
    os.stat(m + "/" + p)
PY
    # A model in one store: its name comes, and the others' nodes stay what they were.
    local before t0
    before=$(stat -c '%i %Y' "$M/models/pub/m/x.apr")
    t0=$(date +%s%N)
    put phi3-fused "$T/b/models/new/n/y.gguf"
    until_true 10 test -e "$M/models-2/new/n/y.apr"
    echo "# new name of the third store after $((($(date +%s%N) - t0) / 1000000)) ms"
    [ "$(stat -c '%i %Y' "$M/models/pub/m/x.apr")" = "$before" ]
    rm "$T/a/models/pub/m/x.gguf"
    until_true 10 test ! -e "$M/models/pub/m/x.apr"
    [ -e "$M/models-2/pub/m/x.apr" ]
    stop
}

t_merge() {
    put tied-qwen2 "$T/a/pub/m/x.gguf"
    put f16-norms "$T/b/pub/m/x.gguf"
    put phi3-fused "$T/b/pub/n/y.gguf"
    mkdir -p "$T/c/pub/m"
    ln "$T/a/pub/m/x.gguf" "$T/c/pub/m/x.gguf" # the same file: one model
    start m "" -o merge,gguf=file "$T/a" "$T/b" "$T/c"
    [ "$(ls "$M")" = pub ]
    [ "$(find "$M" -name '*.apr' | wc -l)" = 3 ] || fail "$(find "$M" -name '*.apr')"
    # Publisher, model, regular files: nothing deeper, nothing else.
    [ -z "$(find "$M" -mindepth 3 ! -type f)" ] || fail "$(find "$M" -mindepth 3 ! -type f)"
    [ -z "$(find "$M" -mindepth 1 -maxdepth 2 ! -type d)" ]
    # Other weights, so other bytes: the later source's got another name, and its own tokenizer's folder.
    [ "$(xattr "$M/pub/m/x.apr" source)" = "$T/a/pub/m/x.gguf" ]
    [ "$(xattr "$M/pub/m/x.apr" alias)" = pub/m/x.gguf ]
    local f
    find "$M" -name '*.apr' >"$T/list"
    while IFS= read -r f; do
        cmp "${f%.apr}.gguf" "$(xattr "$f" source)"
        witness "$f" "$T/w.apr"
        cmp "$f" "$T/w.apr"
    done <"$T/list"
    stop
}

# A part as a file: the bytes of the source, and its guards.
t_gguf_file() {
    mkdir -p "$T/s"
    cp -r "$(models)/acme" "$T/s/"
    put tied-qwen2 "$T/s/one.gguf"
    start m "$T/s" -o gguf=file
    local n=0 f
    for f in "$M"/acme/sharded/*-of-*.gguf; do
        cmp "$f" "$T/s/acme/sharded/$(basename "$f")"
        n=$((n + 1))
    done
    [ "$n" = 3 ] || fail "$n shards"
    cmp "$M/local/one/one.gguf" "$T/s/one.gguf"
    [ "$(stat -c '%F %s %Y' "$M/local/one/one.gguf")" = "$(stat -c '%F %s %Y' "$T/s/one.gguf")" ]
    # Two models, each once; in a copy, whose attributes say the same, the files are what they are: two.
    "$APRTOOL" ls "$M" >"$T/ls"
    [ "$(tail -n +2 "$T/ls" | cut -f 2 | sort | uniq -c | tr -s ' \n' ' ')" = " 2 apr " ] || fail "$(cat "$T/ls")"
    cp -r --preserve=xattr "$M/local" "$T/copy"
    "$APRTOOL" ls "$T/copy" >"$T/ls"
    [ "$(tail -n +2 "$T/ls" | cut -f 2 | sort | tr '\n' ' ')" = "apr gguf " ] || fail "a copy: $(cat "$T/ls")"
    # Cut under an open handle: EIO, and never bytes that are not there.
    exec 8<"$M/local/one/one.gguf"
    head -c 100 <&8 >/dev/null
    python3 -c 'import os, sys; os.truncate(sys.argv[1], 5000)' "$T/s/one.gguf" # waits for the lease
    cat <&8 >"$T/rest" 2>"$T/err" && fail "read on past the cut"
    grep -q 'Input/output error' "$T/err"
    exec 8<&-
    until_true 10 test ! -e "$M/local/one/one.gguf"
    # Another model in its place: new bytes, another number.
    put f16-norms "$T/s/one.gguf"
    until_true 10 test -e "$M/local/one/one.gguf"
    cmp "$M/local/one/one.gguf" "$T/s/one.gguf"
    stop
}

t_auto() {
    put tied-qwen2 "$T/home/.lmstudio/models/pub/m/x.gguf"
    mkdir -p "$T/auto"
    (unset HF_HUB_CACHE HUGGINGFACE_HUB_CACHE HF_HOME XDG_CACHE_HOME OLLAMA_MODELS LLAMA_CACHE
        export HOME=$T/home
        start m auto
        echo "$PID" >"$T/pid"
        echo "$M" >"$T/m")
    M=$(cat "$T/m")
    find "$M" -name x.apr | grep -q . || fail "$(find "$M")"
    grep -q "auto: $T/home/.lmstudio/models (lmstudio)" "$T/m.daemon"
    unmount "$M"
    cd "$T" || fail cd # a folder of that name is ./auto
    put tied-qwen2 "$T/auto/z.gguf"
    start n ./auto
    [ -e "$M/local/z/z.apr" ]
    stop
}

run tree_several_sources_have_a_folder_each t_several
run tree_merge_is_two_levels_of_regular_files t_merge
run tree_gguf_as_a_file_is_the_source t_gguf_file
run tree_auto_finds_known_stores t_auto
tests_end
