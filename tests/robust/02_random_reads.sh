# shellcheck shell=bash
# 2: random reads by every call against a file of the other writer, and the same for an hour under memory
# pressure (22).

# randcmp APR [OPTION...]: against $T/witness.apr.
randcmp() {
    local apr=$1
    shift
    "$B/tests/tool_randcmp" --seed "${APRFS_SEED:-1}" "$@" \
        --extents "$M/.aprfs/extents/$(realpath --relative-to="$M" "${apr%.apr}.tsv")" "$apr" "$T/witness.apr"
}

maps() { python3 -c 'import mmap,sys
with open(sys.argv[1], "rb") as f:
    mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)' "$1" 2>/dev/null; }

# Cached, without cache, as a program whose opens are direct, one thread: the same bytes.
r_random_reads() {
    local ops=$((LONG ? 8000000 : 2400)) apr mode map
    brief && ops=800
    small_store "$T/store"
    for mode in "" "-o cache=never" "-o cache=always" "-s"; do
        # shellcheck disable=SC2086 # options
        start "m${mode//[^a-z]/}" "$T/store" $mode
        for apr in "$M/local/tied-qwen2/tied-qwen2.apr" "$M"/acme/sharded/*.apr; do
            witness "$apr" "$T/witness.apr"
            map=1
            maps "$apr" || map=0
            randcmp "$apr" --ops $((ops / 8)) --mmap $map --quiet 1
            randcmp "$apr" --ops $((ops / 8)) --mmap $map --comm dd
        done
        stop
    done
}

r_hour_random_reads() {
    [ -n "${HOUR:-}" ] || skip "asked for by --hour"
    local apr
    small_store "$T/store"
    big_store "$T/store/big.gguf" 256 1
    start m "$T/store"
    pressure 1024 $((HOUR + 60))
    watch_daemon "$PID" "$T/samples" $((HOUR > 600 ? 60 : HOUR / 10 + 1)) &
    local part=$((HOUR / 4))
    for apr in "$M/local/big/big.apr" "$M/local/tied-qwen2/tied-qwen2.apr" "$M"/acme/sharded/*.apr; do
        witness "$apr" "$T/witness.apr"
        randcmp "$apr" --seconds $part --threads 8
    done
    apr=$M/local/big/big.apr
    witness "$apr" "$T/witness.apr"
    randcmp "$apr" --seconds $part --threads 8 --comm dd
    stop
    keep "$T/samples"
    flat "$T/samples"
}
