# shellcheck shell=bash
# 3: fio reads by three engines, and a mapper, what has to be the pattern of the file.

fio_run() { # NAME OPTION...: 64 KiB blocks at random; fio's own verdict, and that it did read
    local name=$1 end=$((SECONDS + SECS)) n=0
    shift
    # (With a queue, fio 3.33 ends after one pass over the file when it compares: again, then.)
    while [ $n = 0 ] || [ $SECONDS -lt $end ]; do
        fio --name="$name" --filename="$APR" --readonly --rw=randread --bs=64k --offset="$FROM" --size="$LEN" \
            --time_based --runtime="$SECS" --verify=pattern --verify_pattern=%o --verify_fatal=1 --thread \
            --group_reporting --allow_file_create=0 --randrepeat=0 --output-format=json --output="$T/$name.json" "$@" ||
            { grep -m 5 '^fio\|failed' "$T/$name.json"; return 1; }
        n=$((n + $(python3 -c '
import json, sys
text = open(sys.argv[1]).read()
j = json.loads(text[text.index("{"):])["jobs"][0]
assert j["error"] == 0 and j["read"]["total_ios"] > 0, j
print(j["read"]["io_bytes"] >> 20)' "$T/$name.json")))
    done
    echo "# $name: $n MiB compared"
}

r_fio() {
    command -v fio >/dev/null || skip "no fio"
    SECS=$((LONG ? 120 : 1))
    pattern_model "$T/store/m.gguf" $((LONG ? 512 : 24)) 65536
    start m "$T/store"
    APR=$M/local/m/m.apr
    fio_run psync --ioengine=psync --numjobs=16
    fio_run libaio --ioengine=libaio --direct=1 --iodepth=32
    if fio --enghelp | grep -q io_uring; then
        fio_run io_uring --ioengine=io_uring --iodepth=32
        fio_run io_uring_direct --ioengine=io_uring --direct=1 --iodepth=32
    fi
    # fio 3.33's mmap engine reads elsewhere when the offset is not 0, of any file: our own mapper.
    local end=$((SECONDS + SECS))
    while [ $SECONDS -le $end ]; do
        "$B/tests/tool_pattern" storm "$APR" "$FROM" "$LEN" 65536 16 "$SECS" $SECONDS
    done >"$T/storms"
    echo "# mmap: $(wc -l <"$T/storms") times 16 processes"
    stop
    # fio finds a wrong word where there is one.
    printf 'wrong!!!' | dd of="$T/store/m.gguf" bs=1 seek=$(($(stat -c %s "$T/store/m.gguf") / 2)) conv=notrunc status=none
    start wrong "$T/store"
    APR=$M/local/m/m.apr
    fio_run control --ioengine=psync --rw=read --time_based=0 >"$T/control" 2>&1 && fail "fio compares nothing"
    grep -q 'got pattern' "$T/control" "$T/control.json"
    stop
}
