# shellcheck shell=bash
# 17: 64 processes map one file with MADV_RANDOM, and all of them, the daemon too, have half its size.

r_mmap_storm() {
    local mib=$((LONG ? 1024 : 192))
    brief && skip "a sanitizer's memory does not fit"
    pattern_model "$T/store/m.gguf" $mib 4096
    [ -n "$GROUP" ] && cg_limit "$GROUP" $((mib << 19)) || skip "no control group whose memory can be limited"
    start m "$T/store"
    "$B/tests/tool_pattern" storm "$M/local/m/m.apr" $FROM $LEN 4096 64 $((LONG ? 280 : 2)) "${APRFS_SEED:-1}"
    kill -0 "$PID" || fail "the daemon is gone"
    local killed
    killed=$(cg_oom_kills "$GROUP")
    [ "${killed:-0}" = 0 ] || fail "$killed processes killed for memory"
    echo "# in $((mib / 2)) MiB, RssAnon $(stat_of "$M" rss_anon_kib) KiB"
    stop
}
