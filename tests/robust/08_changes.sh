# shellcheck shell=bash
# 8 for an hour under memory pressure (22); the count of 10,000 is e2e_mount.sh's.

r_hour_changes() {
    [ -n "${HOUR:-}" ] || skip "asked for by --hour"
    mkdir -p "$T/store" "$T/parts"
    "$B/tests/tool_store" "$T/parts" >/dev/null
    start m "$T/store"
    pressure 1024 $((HOUR + 60))
    watch_daemon "$PID" "$T/samples" $((HOUR > 600 ? 60 : HOUR / 10 + 1)) &
    python3 tests/robust/changes.py --seconds "$HOUR" --seed "${APRFS_SEED:-1}" "$T/store" "$T/parts" "$M"
    until_true 20 open_files_are 0 || fail "$(stat_of "$M" open_files) files are open"
    stop
    keep "$T/samples"
    flat "$T/samples"
}
