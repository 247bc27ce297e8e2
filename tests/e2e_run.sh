#!/usr/bin/env bash
# aprd's verbs as a user calls them: the text SmolLM2 writes, from a .gguf, from .apr files of every
# profile and from a mount; tokens; seeds; errors and exit codes. TAP. B: the build's folder.
# APRFS_MODELS: real models (default .cache/models); without SmolLM2 its tests are skipped.
set -u
cd "$(dirname "$0")/.." || exit 2
. tests/tap.sh
APRD=$B/aprd
SMOL=$MODELS/SmolLM2-135M-Instruct.Q4_1.gguf
in=
# What is told here is the CPU's affair, wherever it runs; tests/e2e_gpu.sh tells the GPU's.
aprd() {
    local want=$1 verb=${2:-}
    shift
    case $verb in
    run | logits) shift && expect "$want" "$APRD" "$verb" --device cpu "$@" ;;
    *) expect "$want" "$APRD" "$@" ;;
    esac
}
case_of() { # index, field: of tests/data/run_smollm2.json; lists joined by spaces
    python3 -c 'import json,sys
v = json.load(open("tests/data/run_smollm2.json"))[int(sys.argv[1])][sys.argv[2]]
sys.stdout.write(v if isinstance(v, str) else " ".join(map(str, v)))' "$1" "$2"
}

# --- options -------------------------------------------------------------------------------
aprd 0 --help && grep -q '^usage: aprd' "$tmp/out" && ! [ -s "$tmp/err" ]; ok help_goes_to_stdout
aprd 0 run -h && grep -q -- '--temp' "$tmp/out" && ! grep -q -- '--ids' "$tmp/out"; ok help_of_a_verb
aprd 0 --version && grep -qx 'aprd [0-9.]*' "$tmp/out"; ok version
aprd 2 && err 'verb'; ok usage_no_verb
aprd 2 serve x && err "no verb 'serve'"; ok usage_unknown_verb
aprd 2 run --frob x y && err "unknown option '--frob'"; ok usage_unknown_option
aprd 2 run --ids x y && err 'run: takes no --ids'; ok usage_option_of_another_verb
aprd 2 logits --temp 1 x && err 'logits: takes no --temp'; ok usage_sampling_of_another_verb
aprd 2 run x && err '1 operands given; .*PATH PROMPT'; ok usage_missing_prompt
aprd 2 run --temp hot x y && err "'hot'"; ok usage_no_number
aprd 2 run --temp 101 x y && err 'temperature is 101'; ok usage_out_of_range
aprd 2 run --top-p 1.5 x y && err 'top_p'; ok usage_top_p
aprd 2 run --threads 0 x y && err "'0': expected 1 to 64"; ok usage_no_threads
aprd 2 run -n 1e3 x y && err "'1e3'"; ok usage_no_integer
aprd 2 run --top-k 99999999999 x y && err 'top_k is 99999999999: from -1 to 2147483647$'; ok usage_top_k_says_whole_numbers
"$APRD" --help >/dev/full 2>"$tmp/err"; [ $? -eq 1 ] && err 'stdout: No space left'; ok help_that_cannot_be_written_says_so
aprd 1 run '' x && err "^aprd: '': "; ok empty_path_is_shown
aprd 2 tokenize --device gpu x && err 'tokenize: takes no --device'; ok usage_device_where_none_computes
expect 2 "$APRD" run --device tpu x y && err "'tpu': expected auto, cpu or gpu"; ok usage_unknown_device

# --- small models --------------------------------------------------------------------------
"$B/tests/test_forward" --write "$tmp" >"$tmp/out" 2>"$tmp/err"; ok small_models_are_written
L=$tmp/tiny-llama.gguf
aprd 1 run "$tmp/absent.apr" x && silent && err '^aprd: .*absent.apr'; ok missing_file_is_named
mkdir -p "$tmp/dir"
aprd 1 run "$tmp/dir" x && silent && err 'dir'; ok directory_is_no_model
printf 'hello' >"$tmp/text"
aprd 1 run "$tmp/text" x && silent && err 'text'; ok text_is_no_model
head -c 100000 "$L" >"$tmp/short.gguf"
aprd 1 run "$tmp/short.gguf" x && silent && err 'short.gguf'; ok truncated_gguf_is_refused
"$B/aprtool" convert --profile native "$L" "$tmp/l.apr" >/dev/null 2>"$tmp/err"; ok small_apr_is_written
head -c 300000 "$tmp/l.apr" >"$tmp/short.apr"
aprd 1 run "$tmp/short.apr" x && silent && err 'short.apr'; ok truncated_apr_is_refused
aprd 0 run --temp 0 -n 6 -t 1 "$L" the && cp "$tmp/out" "$tmp/want" &&
    aprd 0 run --temp 0 -n 6 -t 3 "$tmp/l.apr" the && cmp "$tmp/out" "$tmp/want"; ok small_model_writes_the_same_from_both_forms
aprd 0 run --temp 0 -n 0 "$L" the && silent; ok no_tokens_asked_none_written
[ "$(cat "$tmp/err")" = 'aprd: device cpu' ]; ok device_cpu_is_said
if expect 0 "$APRD" run --temp 0 -n 6 "$L" the && err '^aprd: device gpu: '; then
    for name in device_auto_without_a_gpu_takes_the_cpu_and_says_so device_gpu_without_one_is_an_error; do
        skip $name "$(head -n 1 "$tmp/err")"
    done
else
    err '^aprd: device cpu \(no GPU: .+\)$' && cp "$tmp/out" "$tmp/want" && aprd 0 run --temp 0 -n 6 "$L" the &&
        cmp "$tmp/out" "$tmp/want"; ok device_auto_without_a_gpu_takes_the_cpu_and_says_so
    expect 1 "$APRD" run --device gpu -n 1 "$L" the && silent && err '^aprd: .*tiny-llama.gguf: no GPU: .+'
    ok device_gpu_without_one_is_an_error
fi
if ! python3 -c 'import pty; pty.openpty()' 2>/dev/null; then
    skip terminal_gets_a_bar_that_is_wiped "no pseudo-terminal is to be had here"
else
    python3 -c 'import os, pty, subprocess, sys
master, slave = pty.openpty()
p = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=slave)
os.close(slave)
seen = b""
try:
    while True:
        part = os.read(master, 4096)
        if not part:
            break
        seen += part
except OSError: # the other end is closed
    pass
open(sys.argv[1], "wb").write(seen)
sys.exit(p.wait())' "$tmp/err" "$APRD" run --device cpu --temp 0 -n 1 "$L" the && err 'loading \[#+\.*\] [0-9.]+ of [0-9.]+ MB' &&
    grep -q "$(printf '\r\033\\[Kaprd: device cpu')" "$tmp/err"; ok terminal_gets_a_bar_that_is_wiped
fi
aprd 0 run --temp 0 -n 1 "$L" the && ! grep -q "$(printf '\033')" "$tmp/err"; ok no_terminal_gets_no_bar
aprd 1 run -c 3 "$L" 'the ing and the' && silent && err 'prompt has [0-9]+ tokens, the context 3'; ok long_prompt_is_an_error_with_both_numbers
aprd 1 run -c 257 "$L" x && err '257' && err '256'; ok context_beyond_training_is_refused
aprd 0 run --temp 0 -c 12 "$L" the && err 'context of 12 tokens is full'; ok full_context_is_said
aprd 0 run --seed 5 -n 12 "$L" the && cp "$tmp/out" "$tmp/want" &&
    aprd 0 run --seed 5 -n 12 -t 2 "$L" the && cmp "$tmp/out" "$tmp/want" &&
    aprd 0 run --seed 6 -n 12 "$L" the && ! cmp -s "$tmp/out" "$tmp/want"; ok seeds_repeat_and_differ
aprd 0 run -n 12 "$L" the && cp "$tmp/out" "$tmp/want" && aprd 0 run -n 12 "$L" the &&
    ! cmp -s "$tmp/out" "$tmp/want"; ok seed_is_random_unless_given
aprd 0 run -v --seed 9 -n 2 "$L" the && err 'seed 9'; ok verbose_says_the_seed_on_stderr
"$APRD" run --temp 0 -n 5 "$L" the >/dev/full 2>"$tmp/err"
[ $? -eq 1 ] && err 'No space left'; ok full_disk_is_an_error
(trap '' PIPE; "$APRD" run --seed 1 -n 200 "$L" the 2>"$tmp/err"; echo $? >"$tmp/rc") | head -c 1 >/dev/null
[ "$(cat "$tmp/rc")" = 1 ] && err 'Broken pipe'; ok reader_that_leaves_is_an_error
echo '3 4 5' >"$tmp/ids"
in=$tmp/ids
aprd 0 logits -t 1 "$L" && [ "$(stat -c %s "$tmp/out")" = $((3 * 285 * 4)) ] && cp "$tmp/out" "$tmp/want"; ok logits_are_a_row_a_token
aprd 0 logits -t 2 "$tmp/l.apr" && cmp "$tmp/out" "$tmp/want"; ok logits_same_from_both_forms
mkdir "$tmp/tiny" "$tmp/tinymnt"
cp "$L" "$tmp/tiny/"
if mounted "$tmp/tiny" "$tmp/tinymnt"; then
    apr=$(find "$mnt" -name 'tiny-llama.apr' | head -n 1)
    aprd 0 logits "$apr" && cmp "$tmp/out" "$tmp/want" && cp "$apr" "$tmp/copied.apr" &&
        aprd 0 logits "$tmp/copied.apr" && cmp "$tmp/out" "$tmp/want"; ok logits_same_from_the_mount
    unmounted
else
    skip logits_same_from_the_mount "$why"
fi
for ids in '3 x' '3 -4' '3 4.0' '99999999999' '3,4'; do
    echo "$ids" >"$tmp/ids"
    aprd 1 logits "$L" && silent && err 'is no token id' || break
done; ok logits_refuse_what_is_no_id
echo '3 285' >"$tmp/ids"
aprd 1 logits "$L" && silent && err '285'; ok logits_refuse_ids_outside_the_vocabulary
: >"$tmp/ids"
aprd 0 logits "$L" && silent; ok logits_of_nothing_are_nothing
printf 'the and' >"$tmp/text"
in=$tmp/text
aprd 0 tokenize --ids "$L" && tr ' ' '\n' <"$tmp/out" >"$tmp/column" && aprd 0 tokenize "$L" &&
    [ "$(cut -f1 "$tmp/out")" = "$(cat "$tmp/column")" ] && head -n 1 "$tmp/out" | grep -q '<s>'; ok tokenize_in_both_forms
aprd 0 tokenize --no-bos "$L" && ! grep -q '<s>' "$tmp/out"; ok tokenize_without_bos
in=
if "$B/tests/tool_seeds" "$tmp/seeds" >/dev/null 2>&1; then
    for arch in phi3 falcon gpt2; do
        [ -f "$tmp/seeds/$arch.gguf" ] || continue
        aprd 1 run "$tmp/seeds/$arch.gguf" x && silent && err "'$arch' is not supported" || break
    done; ok unproven_families_are_refused_by_name
fi

# --- SmolLM2 -------------------------------------------------------------------------------
if [ ! -f "$SMOL" ]; then
    skip smollm2 "no SmolLM2-135M-Instruct.Q4_1.gguf in $MODELS"
    tap_end
    exit 0
fi
cases="0 1 2 3"
limit=64
tsan=
case $B in
*asan | *tsan) cases=0 limit=3 ;; # sanitizers are ten times slower
esac
case ${LONG:-0}$B in
0*tsan) tsan=1 ;; # twenty times: nothing twice that starts the same threads
esac
for i in $cases; do
    case_of "$i" prompt >"$tmp/text"
    in=$tmp/text
    aprd 0 tokenize --ids "$SMOL" && [ "$(cat "$tmp/out")" = "$(case_of "$i" ids)" ]; ok "smollm2_tokens_of_prompt_$i"
    in=
    want=$(case_of "$i" hex)
    prompt=$(cat "$tmp/text"; echo .)
    aprd 0 run --temp 0 -n $limit "$SMOL" "${prompt%.}" && got=$(hex "$tmp/out") && [ -n "$got" ] &&
        { [ "$got" = "$want" ] || { [ $limit -lt 64 ] && [ "${want#"$got"}" != "$want" ]; }; }; ok "smollm2_writes_what_llama_cpp_writes_$i"
    case_of "$i" out >"$tmp/ids"
    in=$tmp/ids
    aprd 0 detokenize "$SMOL" && [ "$(hex "$tmp/out")" = "$want" ]; ok "smollm2_detokenizes_$i"
done
in=
if [ $tsan ]; then
    skip smollm2_tokens_give_the_text_back "under TSan: starts no thread (LONG=1 runs it)"
else
    for f in README.md LICENSE tests/tool_seeds.c; do
        [ -f $f ] && cat $f
    done >"$tmp/text"
    printf 'na\303\257ve \346\227\245\346\234\254 \360\237\231\202\n\n\t  x' >>"$tmp/text"
    in=$tmp/text
    aprd 0 tokenize --ids "$SMOL" && cp "$tmp/out" "$tmp/ids" && in=$tmp/ids && aprd 0 detokenize "$SMOL" &&
        cmp "$tmp/out" "$tmp/text"; ok smollm2_tokens_give_the_text_back
fi

case_of 0 ids >"$tmp/ids"
in=$tmp/ids
aprd 0 logits "$SMOL" && cp "$tmp/out" "$tmp/want"; ok smollm2_logits_from_the_gguf
mkdir "$tmp/alone"
for p in native engine strict; do
    [ ! $tsan ] || { skip "smollm2_logits_from_a_copied_apr_$p" "under TSan: threads as in smollm2_logits_from_the_gguf (LONG=1 runs it)"; continue; }
    "$B/aprtool" convert -f --profile $p "$SMOL" "$tmp/alone/m.apr" >/dev/null 2>"$tmp/err" &&
        aprd 0 logits "$tmp/alone/m.apr" && cmp "$tmp/out" "$tmp/want"; ok "smollm2_logits_from_a_copied_apr_$p"
done
rm -rf "$tmp/alone"
mkdir "$tmp/store" "$tmp/mnt"
cp --reflink=auto "$SMOL" "$tmp/store/m.gguf"
if mounted "$tmp/store" "$tmp/mnt"; then
    apr=$(find "$mnt" -name '*.apr' | head -n 1)
    in=$tmp/ids
    aprd 0 logits "$apr" && cmp "$tmp/out" "$tmp/want"; ok smollm2_logits_from_the_mount
    in=
    want=$(case_of 0 hex)
    aprd 0 run --temp 0 -n $limit "$apr" "$(case_of 0 prompt)" && got=$(hex "$tmp/out") && [ -n "$got" ] &&
        [ "${want#"$got"}" != "$want" ]; ok smollm2_answers_from_the_mounted_path
else
    skip smollm2_logits_from_the_mount "$why"
    skip smollm2_answers_from_the_mounted_path "$why"
fi
tap_end
