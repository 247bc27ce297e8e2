#!/usr/bin/env bash
# aprd on a GPU, or on the emulation of one, as a user calls it: what is said about the device, the
# gate, its cache and its refusals, one truth over every form of a file, and what happens when there is
# no GPU or too small a one. TAP. B: the build's folder; G: the folder of libgpu.a and its aprd.
# APRFS_MODELS: real models; without SmolLM2 its tests are skipped.
set -u
cd "$(dirname "$0")/.." || exit 2
. tests/tap.sh
G=$(realpath "${G:-$B/gpu-emu}")
APRD=$G/aprd
SMOL=$MODELS/SmolLM2-135M-Instruct.Q4_1.gguf
export XDG_CACHE_HOME=$tmp/cache # verdicts of these runs alone
unset SKIP_PARITY_GATE EMU_DEVICES EMU_MEM EMU_BAD_COPY EMU_CC
in=
# Sanitized and hooked builds are slow, and what they alone can find does not hide behind position 32
# (test_gpu_gate runs the probe of 256 there): one family, a short context. FAMILIES and CTX tell
# otherwise; of 32 positions the last two are replays of the graph.
families="llama qwen2 qwen3 gemma3"
ctx=
case $G in *emu-asan | *emu-hooks) families=llama ctx=32 ;; esac
families=${FAMILIES:-$families}
ctx=${CTX:-$ctx}
n_pos=${ctx:-256}

aprd() { expect "$1" "$APRD" "$2" ${ctx:+-c "$ctx"} "${@:3}"; }
with() { # NAME=VALUE, wanted exit status, verb, arguments
    expect "$2" env "$1" "$APRD" "$3" ${ctx:+-c "$ctx"} "${@:4}"
}
said() { err "^aprd: device gpu: [^;]+; gate $1$"; }
json() { # python expression over d, the document
    python3 -c 'import json,sys; d=json.load(open(sys.argv[1])); assert d["schema"]==1; assert eval("(" + sys.argv[2] + ")"), d' \
        "$tmp/out" "$1" 2>>"$tmp/err"
}
nmse() { # of two files of f32; prints it
    python3 -c 'import array,sys
a, b = (array.array("f", open(p, "rb").read()) for p in sys.argv[1:])
assert len(a) == len(b) > 0
print(sum((x - y) ** 2 for x, y in zip(a, b)) / sum(y * y for y in b))' "$1" "$2"
}

"$B/tests/test_forward" --write "$tmp" >"$tmp/out" 2>"$tmp/err"; ok small_models_are_written
L=$tmp/tiny-llama.gguf
if ! aprd 0 run --device gpu --temp 0 -n 1 "$L" the && err 'no GPU: '; then
    skip gpu "$(head -n 1 "$tmp/err")"
    tap_end
    exit 0
fi
emulated=false
said '.*' && grep -q 'emulat' "$tmp/err" && emulated=true
rm -rf "$XDG_CACHE_HOME"

# --- the gate and its cache ----------------------------------------------------------------
aprd 0 run --device cpu --temp 0 -n 8 "$L" 'the and' && [ -s "$tmp/out" ] && cp "$tmp/out" "$tmp/cpu"
aprd 0 run --device gpu --temp 0 -n 8 "$L" 'the and' && said 'passed' && cmp "$tmp/out" "$tmp/cpu" &&
    err '^aprd: PARITY-GATE: passed: '$n_pos' positions, ' && err '^aprd: F2: passed: '$n_pos' of '$n_pos' greedy tokens'
ok gate_runs_at_the_first_load
aprd 0 run --temp 0 -n 8 "$L" 'the and' && said 'passed \(cached\)' && cmp "$tmp/out" "$tmp/cpu" &&
    ! err 'PARITY-GATE'; ok auto_takes_the_gpu_and_its_verdict_is_kept
aprd 0 run -v --temp 0 -n 8 "$L" 'the and' && err 'PARITY-GATE: passed' && err 'F2: passed' &&
    err '8 written, .* length$'; ok verbose_says_what_the_kept_verdict_measured
aprd 0 run --no-graph --temp 0 -n 8 "$L" 'the and' && said 'passed' && cmp "$tmp/out" "$tmp/cpu"
ok no_graph_is_another_route_with_the_same_tokens
verdicts() { find "$XDG_CACHE_HOME/aprd/verdicts" -type f | sort; }
before=$(verdicts)
O=$tmp/other.gguf # the same vocabulary, so the same probe; a byte of a tensor differs
cp "$L" "$O" && printf '\125' | dd of="$O" bs=1 seek=$(($(stat -c %s "$L") - 2000)) conv=notrunc 2>/dev/null
! cmp -s "$L" "$O" && aprd 0 run -n 1 "$O" x && said 'passed'; ok verdict_of_another_model_is_not_taken
other=$(verdicts | grep -vxF "$before")
cp "$(head -n 1 <<<"$before")" "$other" && aprd 0 run -v -n 1 "$O" x && said 'passed' &&
    err 'no verdict found: verdict [0-9a-f]+: is of another model'; ok verdict_file_of_another_model_is_not_believed
aprd 0 verify "$L" && said 'passed' && out '^PARITY-GATE: passed: '$n_pos' positions' && out '^F2: passed' &&
    [ "$(wc -l <"$tmp/out")" = 2 ]; ok verify_measures_again
aprd 0 verify --json "$L" && json 'd["verdict"] == "passed" and [g["name"] for g in d["gates"]] == ["PARITY-GATE", "F2"]
    and all(g["passed"] for g in d["gates"]) and d["n_compared"] == '$n_pos' and d["first_bad_layer"] is None
    and all(m["worst"] <= m["limit"] for m in d["metrics"])'; ok verify_json
aprd 2 verify --device cpu "$L" && silent && err 'is what a GPU is compared with'; ok verify_needs_a_gpu

# --- unverified ----------------------------------------------------------------------------
with SKIP_PARITY_GATE=1 0 run -v --temp 0 -n 8 "$L" 'the and' && said 'unverified \(SKIP_PARITY_GATE=1\)' &&
    cmp "$tmp/out" "$tmp/cpu" && err 'length; unverified$' && err '^aprd: unverified: .*SKIP_PARITY_GATE=1'
ok skipped_gate_is_said_in_every_result
echo '3 4 5' >"$tmp/ids"
in=$tmp/ids
with SKIP_PARITY_GATE=1 0 logits "$L" && said 'unverified .*' && err '^aprd: unverified: '; ok logits_say_unverified
in=
with SKIP_PARITY_GATE=0 0 run -n 1 "$L" x && said 'passed \(cached\)'; ok skip_0_skips_nothing
with SKIP_PARITY_GATE=yes 1 run -n 1 "$L" x && silent && err 'SKIP_PARITY_GATE=yes: expected 0 or 1'
ok skip_of_another_value_is_an_error
with SKIP_PARITY_GATE=1 1 verify "$L" && silent && err 'SKIP_PARITY_GATE=1'; ok verify_is_not_skipped

# --- one truth -----------------------------------------------------------------------------
seq -s ' ' 3 11 200 >"$tmp/ids"
truths() { # model, the forms of it: logits of all equal on each device, NMSE between devices
    local gguf=$1 dev form
    shift
    in=$tmp/ids
    for dev in cpu gpu; do
        aprd 0 logits --device $dev "$gguf" && [ -s "$tmp/out" ] && cp "$tmp/out" "$tmp/truth-$dev" || return 1
        for form; do
            aprd 0 logits --device $dev "$form" && cmp "$tmp/out" "$tmp/truth-$dev" 2>>"$tmp/err" || return 1
            [ $dev = cpu ] || said 'passed \(cached\)' || return 1
        done
    done
    in=
    [ "$(nmse "$tmp/truth-gpu" "$tmp/truth-cpu" | awk '{ print ($1 <= 1e-6) }')" = 1 ]
}
mkdir -p "$tmp/store" "$tmp/mnt" "$tmp/copy"
for f in $families; do
    cp "$tmp/tiny-$f.gguf" "$tmp/store/"
done
if [ -f "$SMOL" ]; then
    cp --reflink=auto "$SMOL" "$tmp/store/"
fi
mounted "$tmp/store" "$tmp/mnt"
is_mounted=$?
mount_why=$why
for f in $families; do
    forms=()
    for p in engine native strict; do
        "$B/aprtool" convert --profile $p "$tmp/tiny-$f.gguf" "$tmp/copy/$f-$p.apr" >/dev/null 2>"$tmp/err" &&
            forms+=("$tmp/copy/$f-$p.apr")
    done
    truths "$tmp/tiny-$f.gguf" "${forms[@]}"; ok "one_truth_of_written_files_$f"
    if [ $is_mounted -ne 0 ]; then
        skip "one_truth_from_the_mount_$f" "$mount_why"
        continue
    fi
    apr=$(find "$mnt" -name "tiny-$f.apr" | head -n 1)
    cp "$apr" "$tmp/copy/" && truths "$tmp/tiny-$f.gguf" "$apr" "$tmp/copy/tiny-$f.apr"
    ok "one_truth_from_the_mount_$f"
done

# --- refusals ------------------------------------------------------------------------------
if $emulated; then
    for dev in auto gpu; do
        with EMU_MEM=269000000 1 run --device $dev "$L" x && silent && err 'not enough memory for backend gpu: weights [0-9]+ ' &&
            err 'available are 269000000' && err -- '--device cpu' && ! err 'device cpu$'
        ok "gpu_too_small_is_an_error_with_numbers_$dev"
        with EMU_MEM=269000000 0 run --device cpu -n 1 "$L" x; ok "gpu_too_small_leaves_the_cpu_$dev"
        rm -rf "$XDG_CACHE_HOME"
        with EMU_BAD_COPY=1025 1 run --device $dev "$L" x && silent && err 'PARITY-GATE: refused: .*position [0-9]+.*layer' &&
            err -- '--device cpu' && ! err '^aprd: device'; ok "gate_refuses_a_device_that_is_wrong_$dev"
        with EMU_DEVICES=broken 1 run --device $dev "$L" x && silent && err 'gpu: the driver cannot show its devices: ' &&
            err -- '--device cpu' && ! err '^aprd: device'; ok "gpu_whose_driver_fails_is_an_error_$dev"
        with EMU_CC=75 1 run --device $dev "$L" x && silent && err 'compute capability 7\.5, at least 8\.0 is needed' &&
            err -- '--device cpu' && ! err '^aprd: device'; ok "gpu_too_old_is_an_error_$dev"
    done
    with EMU_BAD_COPY=1025 1 verify "$L" && out '^PARITY-GATE: refused: ' && err 'PARITY-GATE: refused'; ok verify_refuses
    with EMU_BAD_COPY=1025 1 verify --json "$L" && json 'd["verdict"] == "refused" and not d["gates"][0]["passed"]
        and d["first_bad_layer"] == 0'; ok verify_refuses_in_json
    aprd 0 run -n 1 "$L" x && said passed; ok refusals_are_not_kept
    with EMU_DEVICES=0 0 run --temp 0 -n 8 "$L" 'the and' && cmp "$tmp/out" "$tmp/cpu" &&
        err '^aprd: device cpu \(no GPU: no CUDA device: .+\)$'; ok auto_without_a_device_takes_the_cpu_and_says_so
    with EMU_DEVICES=0 1 run --device gpu "$L" x && silent && err 'no GPU: no CUDA device'; ok gpu_without_a_device_is_an_error
    with EMU_DEVICES=0 1 verify "$L" && silent && err 'no GPU: no CUDA device'; ok verify_without_a_device_is_an_error
else
    for name in {gpu_too_small_is_an_error_with_numbers,gpu_too_small_leaves_the_cpu,gate_refuses_a_device_that_is_wrong,gpu_whose_driver_fails_is_an_error,gpu_too_old_is_an_error}_{auto,gpu} \
        verify_refuses verify_refuses_in_json refusals_are_not_kept auto_without_a_device_takes_the_cpu_and_says_so \
        gpu_without_a_device_is_an_error verify_without_a_device_is_an_error; do
        skip "$name" 'a device that lacks memory, is wrong or is absent is played by the emulation (make check-emu)'
    done
fi

# --- SmolLM2: the gate takes a minute on the emulation ----------------------------------------
if [ ! -f "$SMOL" ]; then
    skip smollm2_eight_tokens_from_the_mounted_path "no SmolLM2-135M-Instruct.Q4_1.gguf in $MODELS"
    skip smollm2_one_truth "no SmolLM2-135M-Instruct.Q4_1.gguf in $MODELS"
elif [ $is_mounted -ne 0 ]; then
    skip smollm2_eight_tokens_from_the_mounted_path "$mount_why"
    skip smollm2_one_truth "$mount_why"
else
    apr=$(find "$mnt" -name 'SmolLM2*.apr' | head -n 1)
    aprd 0 run --device cpu --temp 0 -n 8 "$apr" 'The capital of France is' && [ -s "$tmp/out" ] &&
        cp "$tmp/out" "$tmp/cpu" && aprd 0 run --device gpu --temp 0 -n 8 "$apr" 'The capital of France is' &&
        said passed && cmp "$tmp/out" "$tmp/cpu"; ok smollm2_eight_tokens_from_the_mounted_path
    echo '504 3575 282 4649 314' >"$tmp/ids" # the same words
    cp "$apr" "$tmp/copy/smol.apr" && truths "$SMOL" "$apr" "$tmp/copy/smol.apr"; ok smollm2_one_truth
fi
tap_end
