#!/usr/bin/env bash
# aprtool convert against witness.py, which shares no code with this project: small models of several
# architectures, every quantised type, shards, the real models that are there; all three profiles.
set -u
cd "$(dirname "$0")/.." || exit 2
. tests/tap.sh

verdict() { # status name why
    n=$((n + 1))
    if [ "$1" -eq 0 ]; then
        echo "ok $n - $2"
    else
        echo "not ok $n - $2"
        printf '%s\n' "$3" | sed 's/^/# /'
    fi
}

check() { # name gguf profile [part...]
    local name=$1 gguf=$2 profile=$3 out
    shift 3
    out=$("$B/aprtool" convert --profile "$profile" "$gguf" "$tmp/out.apr" 2>&1) &&
        out=$(python3 tests/witness.py --profile "$profile" "$tmp/out.apr" "$gguf" "$@" 2>&1)
    verdict $? "$name in profile $profile" "$(printf '%s\n' "$out" | grep -v '^ok' | tail -n 20)"
    rm -f "$tmp/out.apr"
}

"$B/tests/tool_seeds" "$tmp/seeds" >/dev/null || exit 1
for arch in llama qwen2 qwen3 gemma2 gemma3 phi3 falcon phi2 gpt2 gptneox starcoder2 tok-gpt2 tok-spm; do
    for profile in engine native strict; do
        check "$arch" "$tmp/seeds/$arch.gguf" $profile
    done
done

# And back: the .gguf of each .apr, ours and the original writers'.
back() { # name apr
    local out
    out=$("$B/aprtool" convert -f "$2" "$tmp/back.gguf" 2>&1) &&
        out=$(python3 -B tests/witness_gguf.py "$tmp/back.gguf" "$2" 2>&1)
    verdict $? "$1 back" "$(printf '%s\n' "$out" | grep -v '^ok' | tail -n 20)"
}
for arch in llama qwen2 gemma3 phi3 tok-spm; do
    for profile in engine native strict; do
        out=$("$B/aprtool" convert -f --profile $profile "$tmp/seeds/$arch.gguf" "$tmp/there.apr" 2>&1) ||
            { verdict 1 "$arch of profile $profile back" "$out"; continue; }
        back "$arch of profile $profile" "$tmp/there.apr"
    done
done
for file in aprender-writer q4k-converter-output; do
    back $file tests/data/$file.apr
done

for file in SmolLM2-135M-Instruct.Q4_1 Qwen2.5-Coder-0.5B-Instruct-Q4_K_M gemma-3-270m-Q4_K_M; do
    for profile in engine native strict; do
        if [ -f "$MODELS/$file.gguf" ]; then
            check "$file" "$MODELS/$file.gguf" $profile
        else
            skip "$file in profile $profile" "no $file.gguf (scripts/fetch_models all)"
        fi
    done
done
tap_end
