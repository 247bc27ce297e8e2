#!/usr/bin/env bash
# scripts/prove_gpu tried on the emulation, so that it works on the day a GPU is at hand: every step
# that needs none is done once, kept, and a machine without a device is told so. Prints TAP.
# shellcheck disable=SC2154
set -u
cd "$(dirname "$0")/.." || exit 2
. tests/tap.sh
unset MAKEFLAGS MFLAGS MAKELEVEL # its own make is no part of ours
prove() { GPU=emu scripts/prove_gpu --quick --out "$tmp/prove" "$@"; }

expect 0 prove && out '^ok +device +.*CPU emulation' && out '^ok +test ptx_conf +.* 10 passed' &&
    out '^ok +test test_gpu_ops ' && out '^skipped +racecheck test_gpu_forward .*for devices' &&
    out '^ok +verify tiny .*PARITY-GATE: passed.*F2: passed' && out ' 0 failed, '
ok prove_gpu_does_its_steps

# start, load, prefill, decode; llama.cpp's three beside them, which nobody measured here
rows=$tmp/prove/gpu.csv
[ "$(grep -c ',aprd,tiny.gguf,random,' "$rows")" = 4 ] &&
    [ "$(grep -c ',llama.cpp,.*,not measured,' "$rows")" = 3 ]
ok prove_gpu_writes_rows

cp "$rows" "$tmp/before" && expect 0 prove && cmp -s "$rows" "$tmp/before" && out ' 0 failed, '
ok prove_gpu_keeps_what_is_done

rm -r "$tmp/prove" && expect 3 prove --budget 0 && out 'run the same command again$'
ok prove_gpu_stops_when_time_is_up

rm -r "$tmp/prove" && EMU_DEVICES=0 expect 1 prove && out '^failed +device .*no CUDA device'
ok prove_gpu_without_device_fails
tap_end
