#!/usr/bin/env bash
# Every verb of aprtool as a user calls it: output, exit codes, what is left on the disk. TAP.
set -u
cd "$(dirname "$0")/.." || exit 2
. tests/tap.sh
T=$B/aprtool
run() { expect "$1" "$T" "${@:2}"; }
json() { # python expression over d, the document
    python3 -c 'import json,sys; d=json.load(open(sys.argv[1])); assert d["schema"]==1; assert eval(sys.argv[2]), d' \
        "$tmp/out" "$1" 2>>"$tmp/err"
}
tab=$(printf '\t')

"$B/tests/tool_seeds" "$tmp/seeds" >/dev/null 2>&1 || mkdir -p "$tmp/seeds"
[ -f "$tmp/seeds/llama.gguf" ] || "$B/tests/tool_seeds" "$tmp/seeds" >/dev/null
cp "$tmp/seeds/llama.gguf" "$tmp/m.gguf"
G=$tmp/m.gguf

# --- options and usage
run 0 --help && out '^usage: aprtool VERB' && out 'cat-tensor' && quiet; ok help_goes_to_stdout
run 0 -h && out '^usage'; ok help_short
run 0 verify --help && out '^usage: aprtool verify' && out '--deep' && ! out '--profile'; ok help_of_a_verb_lists_its_options_only
run 0 --version && [ "$(cat "$tmp/out")" = "aprtool 0.1.0" ]; ok version
run 2 && err 'which verb'; ok usage_no_verb
run 2 frobnicate x && err "unknown verb 'frobnicate'"; ok usage_unknown_verb
run 2 show --frob "$G" && err "unknown option '--frob'"; ok usage_unknown_option
run 2 show && err 'usage: aprtool show'; ok usage_missing_argument
run 2 show --deep "$G" && err 'show: takes no --deep'; ok usage_option_of_another_verb
run 2 convert --profile fast "$G" "$tmp/x.apr" && err 'engine, native or strict'; ok usage_bad_choice
run 2 convert --profile && err "needs an argument"; ok usage_option_without_its_argument
run 2 validate "$G" && err "'verify'"; ok usage_validate_points_to_verify
run 1 show "$tmp/absent.gguf" && err '^aprtool: .*absent.gguf.*No such file'; ok missing_file_is_named

# --- show, tensors
run 0 show "$G" && out "^format${tab}GGUF v3\$" && out "^llama.block_count${tab}1\$" && out "^type F32${tab}" && quiet; ok show_text
run 0 inspect "$G" && out "^format${tab}GGUF v3\$"; ok show_is_inspect
run 0 show --json "$G" && json 'd["format"]=="gguf" and d["metadata"]["general.architecture"]=="llama" and d["n_tensor"]==sum(t["tensors"] for t in d["types"])'; ok show_json
run 0 tensors "$G" && out "^NAME${tab}TYPE${tab}SHAPE${tab}OFFSET${tab}SIZE\$" && out "^blk.0.attn_norm.weight${tab}F32${tab}"; ok tensors_tab_separated
run 0 tensors "$G" 'blk.0.*norm*' && [ "$(grep -c '^blk.0.*norm' "$tmp/out")" -eq "$(($(wc -l <"$tmp/out") - 1))" ] && out '^blk.0.ffn_norm' && ! out attn_q; ok tensors_glob
run 1 tensors "$G" 'nope*' && err "no tensor fits 'nope\*'"; ok tensors_glob_that_fits_nothing_fails
"$T" tensors --json "$G" >"$tmp/a" && run 0 tensors --json --gguf-order "$G" && python3 - "$tmp/a" "$tmp/out" <<'P'
import json, sys
a, b = (json.load(open(p))["tensors"] for p in sys.argv[1:])
assert a and all(x["shape"] == y["shape"][::-1] and x["name"] == y["name"] for x, y in zip(a, b))
assert any(len(x["shape"]) == 2 and x["shape"][0] != x["shape"][1] for x in a)
P
ok tensors_gguf_order_reverses_shapes

# --- explain
run 0 explain "$G" && out "^rms_norm_eps${tab}1e-05${tab}key${tab}llama.attention.layer_norm_rms_epsilon${tab}"; ok explain_names_value_and_source
run 0 explain "$G" && ! out generation_config && run 0 explain --json "$G" && json 'd["generation_config"] is None'; ok explain_says_nothing_of_sampling_where_the_file_does_not
python3 - "$G" "$tmp/sampling.gguf" <<'P' # two keys in front of the others, and one that keeps the data aligned to 32
import struct, sys
raw = open(sys.argv[1], "rb").read()
text = lambda s: struct.pack("<Q", len(s)) + s
keys = text(b"general.sampling.temp") + struct.pack("<If", 6, 0.25) + text(b"general.sampling.top_k") + struct.pack("<Ii", 5, 7)
pad = text(b"pad") + struct.pack("<I", 8)
keys += pad + text(b"x" * (-(len(keys) + len(pad) + 8) % 32))
magic, version, n_tensor, n_key = struct.unpack("<4sIQQ", raw[:24])
open(sys.argv[2], "wb").write(struct.pack("<4sIQQ", magic, version, n_tensor, n_key + 3) + keys + raw[24:])
P
run 0 explain "$tmp/sampling.gguf" && out '^note.generation_config.json: .*"do_sample":true,.*"temperature":0.25,"top_k":7}$' && run 0 explain --json "$tmp/sampling.gguf" && json 'd["generation_config"]["top_k"] == 7'; ok explain_tells_what_the_file_says_of_sampling
run 0 explain "$G" rope_type && [ "$(wc -l <"$tmp/out")" -eq 2 ] && out "^rope_type${tab}0${tab}"; ok explain_one_key
run 0 explain "$G" llama.rope.freq_base && out "^rope_theta${tab}10000${tab}key"; ok explain_by_the_gguf_key
run 1 explain "$G" general.name && err "comes from the key 'general.name'"; ok explain_key_that_nothing_comes_from
run 1 explain "$G" nothing && err "'nothing'"; ok explain_unknown_key_fails
run 0 explain --json "$G" && json '{f["name"]: f["stamped"] for f in d["fields"]}["num_layers"]==1 and d["error"] is None'; ok explain_json
run 0 explain --json "$G" && json '(lambda f: f["norm"]["reference"]=="rms" and f["ffn_gated"]["stamped"] is True and abs(f["rms_norm_eps"]["reference"]-1e-5)<1e-12 and f["n_rot"]["compat"] is None)({f["name"]: f for f in d["fields"]})'; ok explain_json_values_are_typed
run 0 explain --extents --json "$G" && json 'd["extents"][0]["kind"]=="head" and d["extents"][-1]["offset"]+d["extents"][-1]["length"]==d["size"]'; ok explain_extents

# --- convert
for p in native engine strict; do
    run 0 convert --profile $p "$G" "$tmp/$p.apr" && quiet && [ ! -s "$tmp/out" ] && run 0 verify "$tmp/$p.apr" && [ "$(cat "$tmp/out")" = "$tmp/$p.apr: ok" ]; ok "convert_${p}_verifies"
    run 0 diff "$G" "$tmp/$p.apr" && [ ! -s "$tmp/out" ]; ok "convert_${p}_differs_in_nothing"
    run 0 explain "$tmp/$p.apr" aprfs.profile && out "\"$p\""; ok "convert_${p}_says_its_profile"
done
# apr-v2.md 5: 8 is Q8_0 by GGML's numbers, and APR's own Q4 to every reader but the F32 loader and ours
"$T" tensors --json "$tmp/native.apr" >"$tmp/a" && run 0 verify --readers --json "$tmp/native.apr" && python3 - "$tmp/a" "$tmp/out" <<'P'
import json, sys
q8 = {t["name"] for t in json.load(open(sys.argv[1]))["tensors"] if t["type"] == "Q8_0"}
got = {r["reader"]: set(r["wrong"]) for r in json.load(open(sys.argv[2]))["files"][0]["readers"]}
assert q8, "the seed has no Q8_0"
for reader in ("aprender-feb", "aprender-mid", "AprV2Model", "quantized"):
    assert got[reader] == q8, (reader, got[reader])
assert not got["f32-loader"] and not got["aprd"]
P
ok verify_readers_native_q8_0_is_misread
run 0 convert --values compat "$G" "$tmp/compat.apr" && run 0 explain "$tmp/compat.apr" aprfs.values && out compat; ok convert_values_compat
run 1 convert "$G" "$tmp/native.apr" && err 'exists; --force'; ok convert_refuses_to_overwrite
run 0 convert --force --json "$G" "$tmp/native.apr" && json 'd["profile"]=="engine"' && run 0 diff "$tmp/native.apr" "$tmp/engine.apr"; ok convert_force
run 1 convert "$tmp/engine.apr" "$tmp/again.apr" && err 'is a .apr already' && [ ! -e "$tmp/again.apr" ]; ok convert_refuses_apr_by_name
run 2 convert "$G" "$tmp/again.bin" && err 'must end in .apr'; ok convert_wants_an_apr_name
run 1 convert "$tmp/seeds/bad-tensor_past_end.gguf" "$tmp/bad.apr" && [ ! -e "$tmp/bad.apr" ]; ok convert_of_a_bad_file_leaves_nothing
run 1 convert "$G" "$tmp/no/such/dir.apr" && err 'dir.apr.tmp'; ok convert_into_a_missing_folder
! ls "$tmp"/*.tmp >/dev/null 2>&1; ok convert_leaves_no_temporary_file
(ulimit -f 64 && run 1 convert "$G" "$tmp/limit.apr") && err 'File too large' && [ ! -e "$tmp/limit.apr" ] && [ ! -e "$tmp/limit.apr.tmp" ]; ok convert_over_a_size_limit_leaves_nothing
if [ -w /dev/full ]; then
    "$T" tensors "$G" >/dev/full 2>"$tmp/err"
    [ $? -eq 1 ] && err 'stdout'; ok full_disk_on_stdout_is_a_failure
fi
"$T" tensors "$G" 2>"$tmp/err" | head -n 1 >/dev/null && quiet; ok closed_pipe_is_silent

# --- verify
run 0 convert --footer crc "$G" "$tmp/foot.apr" && run 0 verify --json "$tmp/foot.apr" && json 'd["files"][0]["ok"] and d["files"][0]["footer"]'; ok verify_footer
size=$(stat -c %s "$tmp/foot.apr")
crc=$(python3 -c 'import sys; print("%08x" % int.from_bytes(open(sys.argv[1],"rb").read()[-4:], "little"))' "$tmp/foot.apr")
run 0 verify --deep "$tmp/foot.apr" && out "CRC-32 $crc\$"; ok verify_deep_of_a_footer_is_the_footer
printf '\377' | dd of="$tmp/foot.apr" bs=1 seek=$((size - 200)) conv=notrunc status=none
run 1 verify "$tmp/foot.apr" && out 'foot.apr: footer CRC is'; ok verify_sees_one_byte_by_the_footer
cp "$tmp/engine.apr" "$tmp/head.apr"
printf '\001' | dd of="$tmp/head.apr" bs=1 seek=50 conv=notrunc status=none
run 1 verify "$tmp/engine.apr" "$tmp/head.apr" "$G" && out 'engine.apr: ok$' && out 'head.apr: header: checksum' && out 'm.gguf: ok$'; ok verify_goes_on_and_fails
bad=0
for f in "$tmp"/seeds/bad-*.gguf; do
    run 1 verify "$f" && out "^$f: ." || { bad=1; echo "# $f"; break; }
done
[ $bad -eq 0 ]; ok verify_names_a_reason_for_every_malformed_gguf
off=$("$T" tensors "$tmp/engine.apr" blk.0.attn_norm.weight | awk -F'\t' 'NR==2{print $4}')
cp "$tmp/engine.apr" "$tmp/nan.apr"
printf '\000\000\300\177\000\000\200\377' | dd of="$tmp/nan.apr" bs=1 seek="$off" conv=notrunc status=none
run 0 verify "$tmp/nan.apr" && run 1 verify --deep "$tmp/nan.apr" && out "'blk.0.attn_norm.weight': 1 NaN" && out "'blk.0.attn_norm.weight': 1 infinite"; ok verify_deep_finds_nan_and_inf
cp "$tmp/engine.apr" "$tmp/zero.apr"
dd if=/dev/zero of="$tmp/zero.apr" bs=1 seek="$off" count="$("$T" tensors --bytes "$tmp/engine.apr" blk.0.attn_norm.weight | awk -F'\t' 'NR==2{print $5}')" conv=notrunc status=none
run 0 verify --deep "$tmp/zero.apr" && out 'zero.apr: ok, CRC-32 [0-9a-f]{8}$' && err "'blk.0.attn_norm.weight': all zero"; ok verify_deep_says_all_zero
crc=$(python3 -c 'import sys,zlib; print("%08x" % zlib.crc32(open(sys.argv[1],"rb").read()))' "$tmp/zero.apr")
out "CRC-32 $crc\$"; ok verify_deep_crc_is_zlibs
run 0 verify --readers --json "$tmp/strict.apr" && json 'all(r["accepts"] and not r["wrong"] for r in d["files"][0]["readers"])'; ok verify_readers_strict_is_read_right_by_all
# A file with every type, among them what no Rust reader knows.
run 1 convert --profile strict "$tmp/seeds/types.gguf" "$tmp/types.apr" && [ ! -e "$tmp/types.apr" ]; ok convert_strict_refuses_types
printf 'APR\000\002\000' >"$tmp/short.apr"
run 1 verify --readers "$tmp/short.apr" && out '^aprd'"${tab}no" && out '^aprender-feb'"${tab}no"; ok verify_readers_of_a_broken_file
: >"$tmp/empty.apr"
run 1 verify "$tmp/empty.apr" && out 'neither a .apr nor a .gguf'; ok verify_empty_file

# --- diff
run 0 diff "$G" "$G"; ok diff_of_a_file_with_itself
cp "$tmp/engine.apr" "$tmp/other.apr"
printf '\125\252' | dd of="$tmp/other.apr" bs=1 seek=$((off + 6)) conv=notrunc status=none
run 1 diff "$tmp/engine.apr" "$tmp/other.apr" && out "^bytes${tab}blk.0.attn_norm.weight${tab}first at byte 6${tab}2 of " && [ "$(wc -l <"$tmp/out")" -eq 2 ]; ok diff_names_tensor_and_byte
run 1 diff --json "$G" "$tmp/other.apr" && json '[x["name"] for x in d["differences"]]==["blk.0.attn_norm.weight"]'; ok diff_gguf_against_apr
run 1 diff "$tmp/seeds/llama.gguf" "$tmp/seeds/qwen2.gguf" && out "^metadata${tab}general.architecture${tab}\"llama\"${tab}\"qwen2\"" && out "^tensor${tab}blk.0.attn_q.bias${tab}-${tab}F32"; ok diff_of_two_models
run 1 diff "$tmp/engine.apr" "$tmp/compat.apr"; rc=$?; [ $rc -eq 0 ] && out "^metadata${tab}aprfs.values"; ok diff_of_two_value_sets

# --- files of the original writers (tests/data/README.md)
run 0 verify --deep tests/data/tiny.apr && out 'CRC-32 67c3a8c6$'; ok verify_tiny_has_the_footer_its_writer_gave_it
run 0 verify tests/data/aprender-writer.apr tests/data/q4k-converter-output.apr && quiet; ok verify_original_writers
run 1 diff tests/data/q4k-converter-input.gguf tests/data/q4k-converter-output.apr && ! out '^(bytes|type|shape|size|tensor)' && out "^metadata${tab}model_type${tab}\"llama\"${tab}\"transformer_lm_q4k\""; ok diff_with_the_original_converter_is_metadata_only

for f in q4k-converter-input.gguf q4k-converter-output.apr; do # shapes as the original converter has them
    "$T" tensors "tests/data/$f" | cut -f1-3 | sort >"$tmp/$f.txt"
done
cmp -s "$tmp/q4k-converter-input.gguf.txt" "$tmp/q4k-converter-output.apr.txt" && grep -q "attn_k.weight${tab}Q4_K${tab}128x256" "$tmp/q4k-converter-input.gguf.txt"; ok tensors_shapes_are_row_major

# --- cat-tensor
"$T" cat-tensor "$tmp/engine.apr" blk.0.attn_norm.weight >"$tmp/raw" 2>"$tmp/err"
dd if="$tmp/engine.apr" bs=1 skip="$off" count="$(stat -c %s "$tmp/raw")" status=none | cmp -s - "$tmp/raw" && [ -s "$tmp/raw" ]; ok cat_tensor_raw
"$T" cat-tensor --as f32 "$G" blk.0.attn_norm.weight | cmp -s - "$tmp/raw"; ok cat_tensor_f32
"$T" cat-tensor --as text "$G" blk.0.attn_norm.weight >"$tmp/out" && python3 - "$tmp/raw" "$tmp/out" <<'P'
import struct, sys
raw = open(sys.argv[1], "rb").read()
want = struct.unpack("<%df" % (len(raw) // 4), raw)
got = [struct.unpack("<f", struct.pack("<f", float(x)))[0] for x in open(sys.argv[2])]
assert list(want) == got and got
P
ok cat_tensor_text_reads_back
run 1 cat-tensor --as text "$G" no.such && err "no tensor 'no.such'"; ok cat_tensor_unknown
run 1 cat-tensor --as text "$tmp/seeds/types.gguf" IQ1_S && err 'type IQ1_S'; ok cat_tensor_refuses_what_it_cannot_read
run 0 cat-tensor --as text "$tmp/seeds/types.gguf" I64 && out '^-?[0-9]+$'; ok cat_tensor_integers
"$T" cat-tensor --json "$G" blk.0.attn_norm.weight >"$tmp/json" 2>"$tmp/err" && python3 - "$tmp/json" "$tmp/raw" <<'P'
import json, struct, sys
d = json.load(open(sys.argv[1]))
raw = open(sys.argv[2], "rb").read()
want = struct.unpack("<%df" % (len(raw) // 4), raw)
got = struct.unpack("<%df" % len(d["values"]), struct.pack("<%df" % len(d["values"]), *d["values"]))
sys.exit(got != want or d["shape"] != [len(want)] or d["type"] != "F32" or d["schema"] != 1)
P
ok cat_tensor_json
run 2 cat-tensor --json --as text "$G" blk.0.attn_norm.weight && err 'no --as'; ok cat_tensor_json_has_one_form
cp "$G" "$tmp/a"$'\033'"[31m.gguf"
run 0 verify "$tmp/a"$'\033'"[31m.gguf" && out 'a.033.31m\.gguf: ok$'; ok verify_escapes_names

# --- ls
mkdir -p "$tmp/store/a" && cp "$G" "$tmp/store/a/one.gguf" && cp "$tmp/engine.apr" "$tmp/store/two.apr" && cp "$tmp/seeds/bad-dim_0.gguf" "$tmp/store/three.gguf"
run 0 ls "$tmp/store" && out "/one${tab}gguf${tab}" && out "^two${tab}apr${tab}" && ! out '^[^ ]*three' && err 'three.gguf'; ok ls_folder
run 0 ls "$tmp/seeds/llama.gguf" "$tmp/store" && ! err 'no tokenizer.json' && run 0 ls --all "$tmp/store" && err 'no tokenizer.json'; ok ls_is_silent_about_what_it_lists
run 0 ls --all --json "$tmp/store" && json 'any("dimension" in m["why"] for m in d["models"]) and len(d["models"])==3'; ok ls_all_json_has_reasons
run 0 ls "$G" "$tmp/engine.apr" && [ "$(wc -l <"$tmp/out")" -eq 3 ]; ok ls_files
mkdir -p "$tmp/home/.lmstudio/models/p/m" "$tmp/home/llama" "$tmp/home/none" && cp "$G" "$tmp/home/.lmstudio/models/p/m/one.gguf" && cp "$G" "$tmp/home/llama/two.gguf"
known() { env -u HF_HUB_CACHE -u HUGGINGFACE_HUB_CACHE -u HF_HOME -u XDG_CACHE_HOME -u OLLAMA_MODELS -u LLAMA_CACHE HOME="$tmp/home" "$@"; }
if [ -e /usr/share/ollama/.ollama ]; then
    skip ls_without_a_path_is_the_known_stores "a service's store is here"
    skip ls_without_a_store_says_so "a service's store is here"
else
    expect 0 known env LLAMA_CACHE="$tmp/home/llama" "$T" ls && out "^p/m/one${tab}gguf" && out "^llama.cpp/two/two${tab}gguf" && [ "$(wc -l <"$tmp/out")" -eq 3 ]; ok ls_without_a_path_is_the_known_stores
    expect 0 known env HOME="$tmp/home/none" "$T" ls && err 'no store of a program is here' && [ "$(wc -l <"$tmp/out")" -eq 1 ]; ok ls_without_a_store_says_so
fi
run 1 ls "$tmp/absent" "$G" && err 'absent' && out 'm.gguf'; ok ls_missing_path_fails_after_the_rest

mkdir -p "$tmp/mnt" && ln -s "$G" "$tmp/mnt/one.gguf" && cp "$tmp/engine.apr" "$tmp/mnt/one.apr"
run 0 ls "$tmp/mnt" && [ "$(wc -l <"$tmp/out")" -eq 2 ] && out "^one${tab}apr${tab}" && run 0 ls --all "$tmp/mnt" && [ "$(wc -l <"$tmp/out")" -eq 3 ]; ok ls_of_a_mount_shows_each_model_once

# --- a terminal
if script -qec true /dev/null </dev/null >/dev/null 2>&1; then
    tty() { script -qec "$1" /dev/null </dev/null >"$tmp/out" 2>"$tmp/err"; }
    tty "'$T' tensors '$G' 'blk.0.*norm*'" && out '^NAME  +TYPE  +SHAPE' && ! out "$tab"; ok terminal_gets_aligned_columns
    tty "'$T' cat-tensor '$G' blk.0.attn_norm.weight"; [ $? -eq 2 ] && out 'stdout is a terminal'; ok terminal_gets_no_binary
    tty "'$T' convert --force '$G' '$tmp/t.apr'" && out '\[####'; ok terminal_gets_a_progress_bar
    run 0 convert --force "$G" "$tmp/t.apr" && quiet; ok no_terminal_no_progress_bar
else
    for t in terminal_gets_aligned_columns terminal_gets_no_binary terminal_gets_a_progress_bar; do
        skip $t "script(1) gets no pseudo-terminal here"
    done
fi

# --- signals, on a file large enough to be caught at it
big=${APRFS_MODELS:-.cache/models}/SmolLM2-135M-Instruct.Q4_1.gguf
if [ -f "$big" ]; then
    "$T" convert --footer crc --profile strict "$big" "$tmp/big.apr" 2>"$tmp/err" &
    pid=$!
    for _ in $(seq 1 500); do
        [ -s "$tmp/big.apr.tmp" ] && break
        sleep 0.01
    done
    kill -INT $pid 2>/dev/null
    wait $pid
    rc=$?
    if [ $rc -eq 0 ]; then
        skip convert_interrupted_leaves_nothing "it was done before the signal came"
    else
        [ $rc -eq 1 ] && err interrupted && [ ! -e "$tmp/big.apr.tmp" ] && [ ! -e "$tmp/big.apr" ]; ok convert_interrupted_leaves_nothing
    fi
    run 0 convert "$big" "$tmp/big.apr" && run 0 verify --deep "$tmp/big.apr" && run 0 diff "$big" "$tmp/big.apr"; ok convert_real_model_round_trip
else
    skip convert_interrupted_leaves_nothing "no SmolLM2-135M-Instruct.Q4_1.gguf (scripts/fetch_models)"
    skip convert_real_model_round_trip "no SmolLM2-135M-Instruct.Q4_1.gguf (scripts/fetch_models)"
fi
tap_end
