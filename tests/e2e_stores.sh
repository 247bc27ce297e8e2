#!/usr/bin/env bash
# Every kind of store through the mount: what ls shows, that each .apr is what aprtool convert writes,
# and what happens while a store changes. TAP; see tests/mount.sh for the words of the environment.
set -u
cd "$(dirname "$0")/.." || exit 2
. tests/mount.sh

# ---- stores ----

# hub_put REPO-FOLDER COMMIT WAY FILE: a blob by its SHA-256 and the snapshot's link to it.
hub_put() {
    local hash up
    hash=$(sha256sum <"$4" | cut -c1-64)
    up=$(dirname "x/$3" | sed 's|[^/]*|..|g')/..
    mkdir -p "$1/blobs" "$(dirname "$1/snapshots/$2/$3")"
    cp "$4" "$1/blobs/$hash"
    ln -s "$up/blobs/$hash" "$1/snapshots/$2/$3"
}
hub_ref() { # REPO-FOLDER REF COMMIT
    mkdir -p "$(dirname "$1/refs/$2")"
    printf %s "$3" >"$1/refs/$2"
}
C1=a1b2c3d4e5f60718293a4b5c6d7e8f9001122334 C2=b2c3d4e5f60718293a4b5c6d7e8f900112233445

# A repository with two quantisations, words, an older revision; one with shards in a folder and no ref.
hub_store() { # ROOT
    local m r=$1/models--acme--tiny-GGUF s
    m=$(models)
    hub_put "$r" $C1 tiny-Q4_K.gguf "$m/types/llama-Q4_K.gguf"
    hub_put "$r" $C1 tiny-Q6_K.gguf "$m/types/llama-Q6_K.gguf"
    for s in "$m"/acme/sharded/*.gguf; do hub_put "$1/models--acme--big" $C1 "BF16/big-${s##*shard-model-}" "$s"; done
    echo words >"$T/README.md"
    hub_put "$r" $C1 README.md "$T/README.md"
    hub_put "$r" $C2 tiny-Q4_K.gguf "$m/types/llama-Q4_0.gguf"
    hub_ref "$r" main $C1
    hub_ref "$r" pr/1 $C2
    mkdir -p "$1/.locks" "$1/datasets--acme--words/snapshots/$C1" "$r/.no_exist/$C1"
    : >"$r/.no_exist/$C1/adapter_config.json"
}

# Names below M, one a line, sorted; links with an arrow and the path below $1.
shown() { (cd "$M" && find . -mindepth 1 \( -type l -printf '%P -> %l\n' -o -type f -printf '%P\n' \) | sed "s| -> $1/| -> |" | LC_ALL=C sort); }
want() { # ROOT, the expected lines on stdin
    diff - <(shown "$1")
}

# Every .apr is, byte for byte, what the writer that is not the mount makes of the same source.
all_equal() {
    local apr
    find "$M" -name '*.apr' >"$T/aprs"
    [ -s "$T/aprs" ] || fail "no .apr at all"
    while read -r apr; do
        rm -f "$T/witness.apr"
        witness "$apr" "$T/witness.apr"
        [ "$(sha256sum <"$apr")" = "$(sha256sum <"$T/witness.apr")" ] || fail "$apr differs from aprtool convert's"
    done <"$T/aprs"
}

# ---- Hugging Face's hub cache ----

R=models--acme--tiny-GGUF
t_hub() {
    mkdir "$T/hub"
    hub_store "$T/hub"
    start m "$T/hub"
    want "$T/hub" <<END
acme/big/big-00001-of-00003.gguf -> models--acme--big/snapshots/$C1/BF16/big-00001-of-00003.gguf
acme/big/big-00002-of-00003.gguf -> models--acme--big/snapshots/$C1/BF16/big-00002-of-00003.gguf
acme/big/big-00003-of-00003.gguf -> models--acme--big/snapshots/$C1/BF16/big-00003-of-00003.gguf
acme/big/big.apr
acme/big/big.tokenizer.json
acme/big/config.json
acme/big/tokenizer.json
acme/tiny-GGUF/config.json
acme/tiny-GGUF/tiny-Q4_K.apr
acme/tiny-GGUF/tiny-Q4_K.gguf -> $R/snapshots/$C1/tiny-Q4_K.gguf
acme/tiny-GGUF/tiny-Q4_K.tokenizer.json
acme/tiny-GGUF/tiny-Q6_K.apr
acme/tiny-GGUF/tiny-Q6_K.gguf -> $R/snapshots/$C1/tiny-Q6_K.gguf
acme/tiny-GGUF/tiny-Q6_K.tokenizer.json
acme/tiny-GGUF/tokenizer.json
END
    all_equal
    [ "$(xattr "$M/acme/tiny-GGUF/tiny-Q4_K.apr" store)" = hf ]
    [ "$(xattr "$M/acme/tiny-GGUF/tiny-Q4_K.apr" sha256)" = "$(sha256sum <"$(models)/types/llama-Q4_K.gguf" | cut -c1-64)" ]
    [ "$(xattr "$M/acme/tiny-GGUF/tiny-Q4_K.apr" alias | head -n 1)" = acme/tiny-GGUF ]
    cmp "$M/acme/tiny-GGUF/tiny-Q6_K.gguf" "$(models)/types/llama-Q6_K.gguf"
    stop
}

t_hub_revisions() {
    mkdir "$T/hub"
    hub_store "$T/hub"
    start m "$T/hub" --revisions all
    [ "$(ls "$M/acme")" = "big
tiny-GGUF
tiny-GGUF@b2c3d4e5" ]
    cmp "$M/acme/tiny-GGUF@b2c3d4e5/tiny-Q4_K.gguf" "$(models)/types/llama-Q4_0.gguf"
    all_equal
    stop
}

# The folder that holds the cache, a told kind, another kind.
t_hub_home() {
    mkdir -p "$T/huggingface/hub"
    hub_store "$T/huggingface/hub"
    start m "$T/huggingface"
    [ -f "$M/acme/tiny-GGUF/tiny-Q4_K.apr" ]
    stop
    start n "$T/huggingface" -o store=hf
    [ -f "$M/acme/tiny-GGUF/tiny-Q4_K.apr" ]
    stop
}

# What a download does: refs/main is rewritten, blobs and links of the new snapshot arrive; then the old
# revision is pruned. Who has the old file open reads on.
t_hub_live() {
    local r=$T/hub/$R m old new
    mkdir "$T/hub"
    hub_store "$T/hub"
    m=$(models)
    start m "$T/hub"
    old=$(sha256sum <"$M/acme/tiny-GGUF/tiny-Q4_K.apr")
    exec 8<"$M/acme/tiny-GGUF/tiny-Q4_K.apr"
    : >"$r/blobs/c0ffee.incomplete"
    until_true 20 grep -q "blobs/c0ffee.incomplete.*download in progress" "$M/.aprfs/problems.txt"
    mkdir -p "$r/snapshots/c3c3c3c3" # in this order the client does it
    hub_ref "$r" main c3c3c3c3
    until_true 20 grep -q "refs/main.*names c3c3c3c3, which is empty yet" "$M/.aprfs/problems.txt"
    echo words >"$T/README.md"
    hub_put "$r" c3c3c3c3 README.md "$T/README.md" # small files come first
    until_true 20 grep -q "refs/main.*names c3c3c3c3, which has no whole model yet" "$M/.aprfs/problems.txt"
    [ "$(sha256sum <"$M/acme/tiny-GGUF/tiny-Q4_K.apr")" = "$old" ]
    hub_put "$r" c3c3c3c3 tiny-Q4_K.gguf "$m/types/llama-Q5_K.gguf"
    rm "$r/blobs/c0ffee.incomplete"
    "$APRTOOL" convert "$m/types/llama-Q5_K.gguf" "$T/new.apr" >/dev/null
    until_true 20 cmp -s "$M/acme/tiny-GGUF/tiny-Q4_K.apr" "$T/new.apr"
    new=$(sha256sum <"$M/acme/tiny-GGUF/tiny-Q4_K.apr")
    [ "$new" != "$old" ]
    until_true 20 test ! -e "$M/acme/tiny-GGUF/tiny-Q6_K.apr" # only the old revision had it
    rm -r "$r/snapshots/$C1" # hf cache rm
    find "$r/blobs" -type f ! -name "$(sha256sum <"$m/types/llama-Q5_K.gguf" | cut -c1-64)" -delete
    [ "$(sha256sum <&8)" = "$old" ]
    exec 8<&-
    rm "$r"/blobs/* # a blob that goes alone
    until_true 20 grep -q 'ENOENT.*tiny-Q4_K.gguf.*blob .* is gone' "$M/.aprfs/problems.txt"
    until_true 20 test ! -e "$M/acme/tiny-GGUF/tiny-Q4_K.apr"
    stop
}

# huggingface_hub 2: repositories share blobs by a second link. The blob that goes takes both models.
# A server that fails does not say that there is no main: neither is another snapshot shown, nor none.
t_hub_main_unreadable() {
    is_root
    local r=$T/hub/models--acme--tiny dead
    hub_put "$r" $C1 tiny-Q4_K.gguf "$(models)/types/llama-Q4_K.gguf"
    hub_put "$r" $C2 other-Q4_0.gguf "$(models)/types/llama-Q4_0.gguf"
    hub_ref "$r" main $C1
    start m "$T/hub"
    main_only() { [ -e "$M/acme/tiny/tiny-Q4_K.apr" ] && [ ! -e "$M/acme/tiny/other-Q4_0.apr" ]; }
    main_only || fail "$(find "$M")"
    mkdir "$T/inner" "$T/dead"
    "$APRFS" -f --ready-fd 9 "$T/inner" "$T/dead" 9> >(read -r _; touch "$T/up") 2>"$T/inner.log" &
    dead=$!
    echo $dead >>"$T/pids"
    until_true 20 test -e "$T/up"
    kill -9 $dead
    wait $dead || true
    mount --bind "$T/dead" "$r/refs"
    kill -HUP "$PID"
    until_true 10 grep -qP '^ENOTCONN\tmodels--acme--tiny\trefs/main cannot be read now: ' "$M/.aprfs/problems.txt" ||
        fail "$(cat "$M/.aprfs/problems.txt")"
    main_only || fail "$(find "$M")"
    umount "$r/refs"
    umount "$T/dead"
    kill -HUP "$PID"
    all_well() { [ ! -s "$M/.aprfs/problems.txt" ] && main_only; }
    until_true 10 all_well || fail "$(cat "$M/.aprfs/problems.txt"; find "$M")"
    stop
}

t_hub_shared() {
    local m r blob xet=ab00000000000000000000000000000000000000000000000000000000000000
    m=$(models)
    mkdir -p "$T/hub/blobs/ab"
    echo 1 >"$T/hub/blobs/.huggingface-shared-blobs"
    cp "$m/types/llama-Q4_K.gguf" "$T/hub/blobs/ab/$xet"
    blob=$(sha256sum <"$T/hub/blobs/ab/$xet" | cut -c1-64)
    for r in one two; do
        mkdir -p "$T/hub/models--acme--$r/blobs" "$T/hub/models--acme--$r/snapshots/$C1"
        ln -s "../../blobs/ab/$xet" "$T/hub/models--acme--$r/blobs/$blob"
        ln -s "../../blobs/$blob" "$T/hub/models--acme--$r/snapshots/$C1/m.gguf"
    done
    start m "$T/hub"
    all_equal
    [ "$(find "$M" -name '*.apr' -printf '%P\n' | LC_ALL=C sort | tr '\n' ' ')" = "acme/one/m.apr acme/two/m.apr " ]
    [ "$(xattr "$M/acme/two/m.apr" sha256)" = "$blob" ]
    cp "$m/types/llama-Q6_K.gguf" "$T/new"
    mv "$T/new" "$T/hub/blobs/ab/$xet" # another content under the links
    until_true 20 cmp -s "$M/acme/one/m.gguf" "$m/types/llama-Q6_K.gguf"
    # shellcheck disable=SC2016
    until_true 20 eval '[ "$(stat -c %i "$T/hub/blobs/ab/$xet")" = "$(xattr "$M/acme/two/m.apr" part_generation | cut -d: -f2)" ]'
    all_equal
    rm "$T/hub/blobs/ab/$xet"
    until_true 20 test ! -e "$M/acme/one/m.apr"
    until_true 20 test ! -e "$M/acme/two/m.apr"
    grep -q "ENOENT.*models--acme--two/.*blob $blob is gone" "$M/.aprfs/problems.txt"
    stop
}

# ---- LM Studio, llama.cpp ----

t_lmstudio() {
    local m s=$T/.lmstudio/models
    m=$(models)
    mkdir -p "$s/acme/tiny-GGUF" "$s/solo/one"
    cp "$m/types/llama-Q4_K.gguf" "$s/acme/tiny-GGUF/tiny-Q4_K.gguf"
    cp "$m/acme/sharded"/*.gguf "$s/solo/one/"
    cp "$m/types/llama-Q6_K.gguf" "$s/acme/tiny-GGUF/tiny-Q6_K.gguf.part"
    start m "$T/.lmstudio"
    want "$s" <<END
acme/tiny-GGUF/config.json
acme/tiny-GGUF/tiny-Q4_K.apr
acme/tiny-GGUF/tiny-Q4_K.gguf -> acme/tiny-GGUF/tiny-Q4_K.gguf
acme/tiny-GGUF/tiny-Q4_K.tokenizer.json
acme/tiny-GGUF/tokenizer.json
solo/one/config.json
solo/one/shard-model-00001-of-00003.gguf -> solo/one/shard-model-00001-of-00003.gguf
solo/one/shard-model-00002-of-00003.gguf -> solo/one/shard-model-00002-of-00003.gguf
solo/one/shard-model-00003-of-00003.gguf -> solo/one/shard-model-00003-of-00003.gguf
solo/one/shard-model.apr
solo/one/shard-model.tokenizer.json
solo/one/tokenizer.json
END
    all_equal
    [ "$(xattr "$M/solo/one/shard-model.apr" store)" = lmstudio ]
    grep -q 'tiny-Q6_K.gguf.part.*download in progress' "$M/.aprfs/problems.txt"
    mv "$s/acme/tiny-GGUF/tiny-Q6_K.gguf.part" "$s/acme/tiny-GGUF/tiny-Q6_K.gguf" # the download ends
    until_true 20 test -f "$M/acme/tiny-GGUF/tiny-Q6_K.apr"
    stop
}

llamacpp_store() { # ROOT
    local m
    m=$(models)
    mkdir -p "$1"
    cp "$m/types/llama-Q4_K.gguf" "$1/acme_tiny-GGUF_tiny-Q4_K.gguf"
    echo '"abc"' >"$1/acme_tiny-GGUF_tiny-Q4_K.gguf.etag"
    echo '{"ggufFile":{"rfilename":"tiny-Q4_K.gguf"}}' >"$1/manifest=acme=tiny-GGUF=Q4_K.json"
    cp "$m/types/llama-Q6_K.gguf" "$1/other_m.gguf"
}
t_llamacpp() {
    llamacpp_store "$T/llama"
    start m "$T/llama"
    want "$T/llama" <<END
acme/tiny-GGUF/config.json
acme/tiny-GGUF/tiny-Q4_K.apr
acme/tiny-GGUF/tiny-Q4_K.gguf -> acme_tiny-GGUF_tiny-Q4_K.gguf
acme/tiny-GGUF/tiny-Q4_K.tokenizer.json
acme/tiny-GGUF/tokenizer.json
llama.cpp/other_m/config.json
llama.cpp/other_m/other_m.apr
llama.cpp/other_m/other_m.gguf -> other_m.gguf
llama.cpp/other_m/other_m.tokenizer.json
llama.cpp/other_m/tokenizer.json
END
    all_equal
    [ "$(xattr "$M/acme/tiny-GGUF/tiny-Q4_K.apr" alias)" = "acme/tiny-GGUF
acme/tiny-GGUF:Q4_K
acme_tiny-GGUF_tiny-Q4_K.gguf" ]
    stop
}

# New builds move their files into the hub's layout, here in the same folder: the name stays, an open
# file reads on, and what has not moved does not vanish.
t_llamacpp_moves() {
    local r=$T/llama/$R hash old f
    llamacpp_store "$T/llama"
    start m "$T/llama"
    f=$M/acme/tiny-GGUF/tiny-Q4_K
    old=$(sha256sum <"$f.apr")
    exec 8<"$f.apr"
    hash=$(sha256sum <"$f.gguf" | cut -c1-64)
    mkdir -p "$r/blobs" "$r/snapshots/$C1" "$r/refs"
    mv "$T/llama/acme_tiny-GGUF_tiny-Q4_K.gguf" "$r/blobs/$hash"
    ln -s "../../blobs/$hash" "$r/snapshots/$C1/tiny-Q4_K.gguf"
    hub_ref "$r" main $C1
    # shellcheck disable=SC2016
    until_true 20 eval '[ "$(readlink "$f.gguf")" = "$r/snapshots/$C1/tiny-Q4_K.gguf" ]'
    [ "$(sha256sum <"$f.apr")" = "$old" ]
    [ "$(sha256sum <&8)" = "$old" ]
    exec 8<&-
    [ "$(xattr "$f.apr" store)" = hf ]
    [ -f "$M/llama.cpp/other_m/other_m.apr" ]
    stop
}

# ---- Ollama ----

# ollama_layer ROOT TYPE FILE: a blob by its SHA-256; prints the layer as a manifest has it.
ollama_layer() {
    local hash type=application/vnd.ollama.image.$2
    hash=$(sha256sum <"$3" | cut -c1-64)
    [ "$2" = config ] && type=application/vnd.docker.container.image.v1+json
    mkdir -p "$1/blobs"
    [ -e "$1/blobs/sha256-$hash" ] || cp --reflink=auto "$3" "$1/blobs/sha256-$hash"
    printf '{"mediaType":"%s","digest":"sha256:%s","size":%s}' "$type" "$hash" "$(stat -Lc %s "$3")"
}
# ollama_name ROOT WAY LAYER...: the manifest, as Ollama writes it.
ollama_name() {
    local root=$1 IFS=,
    local way=$root/$2
    shift 2
    printf '%s' '{"model_format":"gguf","model_family":"llama","model_families":["llama"],"model_type":"134.52M","file_type":"unknown","architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}' >"$T/config"
    mkdir -p "$(dirname "$way")"
    printf '{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":%s,"layers":[%s]}\n' \
        "$(ollama_layer "$root" config "$T/config")" "$*" >"$way.new"
    mv "$way.new" "$way"
}
LIB=manifests/registry.ollama.ai/library
ollama_store() { # ROOT
    local m a b f s=()
    m=$(models)
    a=$(ollama_layer "$1" model "$m/types/llama-Q4_K.gguf")
    b=$(ollama_layer "$1" model "$m/types/llama-Q6_K.gguf")
    echo '{"stop":["</s>"]}' >"$T/params"
    ollama_name "$1" $LIB/tiny/1b "$a" "$(ollama_layer "$1" params "$T/params")"
    ollama_name "$1" $LIB/tiny/latest "$a" "$(ollama_layer "$1" params "$T/params")"
    ollama_name "$1" manifests/hf.co/acme/tiny-GGUF/Q6_K "$b"
    while read -r f; do s+=("$(ollama_layer "$1" model "$f")"); done < <(ls -r "$m"/acme/sharded/*.gguf)
    ollama_name "$1" manifests/registry.ollama.ai/me/big/v1 "${s[@]}"
    printf GGUF >"$1/blobs/sha256-$(printf %064d 7)-partial"
}

# The bytes of each .apr. aprtool cannot be told shards by hashes: the original's are converted.
ollama_equal() {
    local m
    m=$(models)
    "$APRTOOL" convert "$m/types/llama-Q4_K.gguf" "$T/4.apr" >/dev/null
    "$APRTOOL" convert "$m/types/llama-Q6_K.gguf" "$T/6.apr" >/dev/null
    "$APRTOOL" convert "$(compgen -G "$m/acme/sharded/*-00001-of-*.gguf")" "$T/s.apr" >/dev/null
    cmp "$M"/library/tiny/*.apr "$T/4.apr"
    cmp "$M"/hf.co+acme/tiny-GGUF/*.apr "$T/6.apr"
    cmp "$M"/me/big/*.apr "$T/s.apr"
}
t_ollama() {
    local q4 f
    mkdir "$T/ollama"
    ollama_store "$T/ollama"
    q4=$(sha256sum <"$(models)/types/llama-Q4_K.gguf" | cut -c1-64)
    start m "$T/ollama"
    [ "$(cd "$M" && find . -name '*.apr' | LC_ALL=C sort | sed 's|/[^/]*$||' | tr '\n' ' ')" = "./hf.co+acme/tiny-GGUF ./library/tiny ./me/big " ] || fail "$(find "$M")"
    ollama_equal
    f=$(echo "$M"/library/tiny/*.apr)
    [ "$(xattr "$f" store)" = ollama ]
    [ "$(xattr "$f" sha256)" = "$q4" ]
    [ "$(xattr "$f" revision)" = "$(sha256sum <"$T/ollama/$LIB/tiny/1b" | cut -c1-64)" ]
    [ "$(xattr "$f" alias)" = "tiny:1b
$LIB/tiny/1b
tiny:latest
tiny
$LIB/tiny/latest" ] || fail "$(xattr "$f" alias)"
    [ "$(readlink "${f%.apr}.gguf")" = "$T/ollama/blobs/sha256-$q4" ]
    grep -q 'EAGAIN.*-partial.*download in progress' "$M/.aprfs/problems.txt"
    stop
}

# Pulled, tagged anew, pruned, removed, while mounted and open.
latest_is_gone() { ! xattr "$1" alias | grep -q latest; }
t_ollama_live() {
    local o=$T/ollama m a old
    mkdir "$o"
    ollama_store "$o"
    m=$(models)
    start m "$o"
    a=$(echo "$M"/library/tiny/*.apr)
    exec 8<"$a"
    old=$(sha256sum <"$a")
    ollama_name "$o" $LIB/more/8b "$(ollama_layer "$o" model "$m/types/llama-Q5_K.gguf")"
    until_true 20 compgen -G "$M/library/more/*.apr"
    rm "$o/$LIB/tiny/latest" # ollama rm tiny
    until_true 20 latest_is_gone "$a"
    [ "$(sha256sum <"$a")" = "$old" ]
    rm "$o/blobs/sha256-$(sha256sum <"$m/types/llama-Q4_K.gguf" | cut -c1-64)"
    until_true 20 grep -q "ENOENT.*tiny/1b.*blob sha256-.* is gone" "$M/.aprfs/problems.txt"
    until_true 20 test ! -e "$a"
    [ "$(sha256sum <&8)" = "$old" ]
    exec 8<&-
    stop
}

# Parameters that change while their blob stays: the .apr is the same file, generation_config.json another.
# Who has the old one open reads it to its end.
t_ollama_params() {
    local o=$T/ollama m g ino apr layer
    m=$(models)
    mkdir "$o"
    layer=$(ollama_layer "$o" model "$m/types/llama-Q4_K.gguf")
    printf '{"temperature":0.25,"stop":["</s>"],"num_ctx":4096}' >"$T/params"
    ollama_name "$o" $LIB/tiny/1b "$layer" "$(ollama_layer "$o" params "$T/params")"
    start m "$o"
    g=$M/library/tiny/generation_config.json
    [ "$(cat "$g")" = '{"bos_token_id":1,"do_sample":true,"eos_token_id":2,"stop_strings":["</s>"],"temperature":0.25}' ] ||
        fail "$(cat "$g")"
    [ "$(stat -c %s "$g")" = "$(wc -c <"$g")" ]
    ino=$(stat -c %i "$g")
    apr=$(stat -c %i "$M"/library/tiny/*.apr)
    exec 8<"$g"
    printf '{"temperature":0}' >"$T/params"
    ollama_name "$o" $LIB/tiny/1b "$layer" "$(ollama_layer "$o" params "$T/params")"
    until_true 20 grep -q '"do_sample":false,"eos_token_id":2}$' "$g"
    [ "$(stat -c %i "$g")" != "$ino" ] || fail "the same inode for another text"
    [ "$(stat -c %i "$M"/library/tiny/*.apr)" = "$apr" ] || fail "another inode for the same .apr"
    grep -q '"temperature":0.25}$' <&8 || fail "the open file has another text"
    exec 8<&-
    printf '{"temperature":"hot"}' >"$T/params"
    ollama_name "$o" $LIB/tiny/1b "$layer" "$(ollama_layer "$o" params "$T/params")"
    until_true 20 grep -q 'EUCLEAN.*no generation_config.json: params: temperature is no number' "$M/.aprfs/problems.txt"
    until_true 20 test ! -e "$g"
    [ -e "$M/library/tiny/config.json" ]
    stop
}

# What Ollama 2026 writes: a name is a link to the blob that holds its manifest. And the folder above.
t_ollama_v2() {
    local o=$T/.ollama/models d hash
    mkdir -p "$o"
    ollama_store "$o"
    d=$o/manifests-v2/ollama.com/library/tiny
    mkdir -p "$d"
    hash=$(sha256sum <"$o/$LIB/tiny/1b" | cut -c1-64)
    mv "$o/$LIB/tiny/1b" "$o/blobs/sha256-$hash"
    ln -s "../../../../blobs/sha256-$hash" "$d/1b"
    ln -s /etc/passwd "$d/evil"
    start m "$T/.ollama"
    [ "$(xattr "$M"/library/tiny/*.apr alias | grep -c '^tiny:')" = 2 ]
    [ "$(xattr "$M"/library/tiny/*.apr revision)" = "$hash" ]
    grep -q "EXDEV.*tiny/evil.*a link to '/etc/passwd', not to a file of blobs/" "$M/.aprfs/problems.txt"
    ollama_equal
    stop
}

t_ollama_real() {
    local f=SmolLM2-135M-Instruct.Q4_1
    [ -f "$MODELS/$f.gguf" ] || skip "no $f.gguf (scripts/fetch_models)"
    mkdir "$T/ollama"
    ollama_name "$T/ollama" $LIB/smollm2/135m "$(ollama_layer "$T/ollama" model "$MODELS/$f.gguf")"
    "$APRTOOL" convert "$MODELS/$f.gguf" "$T/want.apr" >/dev/null
    start m "$T/ollama"
    find "$M/library" -printf '# %P\n'
    cmp "$M"/library/smollm2/*.apr "$T/want.apr"
    stop
}

# One real model in each layout: one .apr, whatever the store that it lies in.
t_real_model() {
    local f=SmolLM2-135M-Instruct.Q4_1 want s hash
    [ -f "$MODELS/$f.gguf" ] || skip "no $f.gguf (scripts/fetch_models)"
    mkdir -p "$T/plain/acme/smol" "$T/.lmstudio/models/acme/smol" "$T/llama" "$T/hub/$R/blobs" "$T/hub/$R/snapshots/$C1"
    cp --reflink=auto "$MODELS/$f.gguf" "$T/plain/acme/smol/"
    ln "$T/plain/acme/smol/$f.gguf" "$T/.lmstudio/models/acme/smol/"
    ln "$T/plain/acme/smol/$f.gguf" "$T/llama/acme_smol_$f.gguf"
    echo '{}' >"$T/llama/manifest=acme=smol=latest.json"
    hash=$(sha256sum <"$T/plain/acme/smol/$f.gguf" | cut -c1-64)
    ln "$T/plain/acme/smol/$f.gguf" "$T/hub/$R/blobs/$hash"
    ln -s "../../blobs/$hash" "$T/hub/$R/snapshots/$C1/$f.gguf"
    mv "$T/hub/$R" "$T/hub/models--acme--smol"
    "$APRTOOL" convert "$T/plain/acme/smol/$f.gguf" "$T/want.apr" >/dev/null
    want=$(sha256sum <"$T/want.apr")
    for s in plain .lmstudio llama hub; do
        start "m$s" "$T/$s"
        [ "$(cd "$M" && ls -R | tr '\n' ' ')" = ".: acme  ./acme: smol  ./acme/smol: $f.apr $f.gguf $f.tokenizer.json config.json tokenizer.json " ] || fail "$s: $(ls -R "$M")"
        [ "$(sha256sum <"$M/acme/smol/$f.apr")" = "$want" ] || fail "$s: other bytes"
        stop
    done
}

# A copy of nothing: the store is as it was, to the byte and the second.
t_untouched() {
    mkdir "$T/hub"
    hub_store "$T/hub"
    (cd "$T/hub" && find . -printf '%p %y %s %T@ %C@ %l\n' | LC_ALL=C sort) >"$T/before"
    start m "$T/hub"
    all_equal
    stop
    (cd "$T/hub" && find . -printf '%p %y %s %T@ %C@ %l\n' | LC_ALL=C sort) >"$T/after"
    diff "$T/before" "$T/after"
}

run stores_hub_tree_is_exact t_hub
run stores_hub_shows_all_revisions t_hub_revisions
run stores_hub_is_found_below_its_home t_hub_home
run stores_hub_follows_a_download_and_a_pruning t_hub_live
run stores_hub_keeps_what_was_main_while_it_cannot_be_read t_hub_main_unreadable
run stores_hub_follows_shared_blobs t_hub_shared
run stores_lmstudio_tree_is_exact t_lmstudio
run stores_llamacpp_tree_is_exact t_llamacpp
run store_llamacpp_then_hub_same_stem t_llamacpp_moves
run stores_ollama_tree_is_exact t_ollama
run stores_ollama_follows_pull_remove_and_prune t_ollama_live
run stores_ollama_params_are_generation_config t_ollama_params
run stores_ollama_reads_linked_manifests t_ollama_v2
run stores_ollama_shows_a_real_model t_ollama_real 300
run stores_show_one_model_alike t_real_model 300
run stores_are_left_as_they_were t_untouched
tests_end
