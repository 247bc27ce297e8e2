#!/usr/bin/env bash
# How the daemon begins and ends, end to end: mount.md §9, tests 11 and 12, and the program around it.
# Prints TAP. Names of tests as arguments: only these. See tests/mount.sh.
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/mount.sh

# --- 12 and the life of the daemon ---------------------------------------------------------

t_end_by_signal() {
    big_store "$T/store/m.gguf" 16 1
    start m "$T/store"
    witness "$M/local/m/m.apr" "$T/witness.apr"
    # umount of a busy mount: EBUSY, and nothing changes.
    exec 5<"$M/local/m/m.apr"
    fusermount3 -uq "$M" 2>/dev/null && fail "a busy mount was unmounted"
    # The first SIGTERM: no new names, but the reader finishes; exit 0 at its close.
    kill -TERM "$PID"
    gone() { ! mountpoint -q "$M"; }
    until_true 30 gone
    cmp /proc/self/fd/5 "$T/witness.apr"
    kill -0 "$PID" || fail "the daemon left its reader"
    exec 5<&-
    local rc=0
    wait "$PID" || rc=$?
    [ $rc -eq 0 ] || fail "exit status $rc after SIGTERM"
    # The second: an end at once, ENOTCONN for the reader.
    start m2 "$T/store"
    exec 5<"$M/local/m/m.apr"
    kill -TERM "$PID"
    until_true 30 gone
    kill -TERM "$PID"
    rc=0
    wait "$PID" || rc=$?
    [ $rc -eq 0 ] || fail "exit status $rc after two SIGTERMs"
    dd bs=1M iflag=direct of=/dev/null status=none <&5 2>"$T/dd" && fail "read without a daemon"
    grep -qE 'not connected|connection abort' "$T/dd"
    exec 5<&-
    # SIGINT with nothing open: 0.
    start m3 "$T/store"
    kill -INT "$PID"
    rc=0
    wait "$PID" || rc=$?
    [ $rc -eq 0 ] || fail "exit status $rc after SIGINT"
    mountpoint -q "$M" && fail "still mounted after SIGINT"
    return 0
}

t_killed() { # 11: kill -9, the next mount says what to run
    big_store "$T/store/m.gguf" 8 1
    start m "$T/store"
    exec 5<"$M/local/m/m.apr"
    kill -9 "$PID"
    wait "$PID" 2>/dev/null || true
    dd bs=1M iflag=direct of=/dev/null status=none <&5 2>"$T/dd" && fail "read without a daemon"
    grep -qE 'not connected|connection abort' "$T/dd"
    exec 5<&-
    local rc=0
    "$APRFS" "$T/store" "$M" 2>"$T/err" || rc=$?
    [ $rc -eq 1 ]
    grep -q "run fusermount3 -u $M" "$T/err"
    unmount "$M"
    start m "$T/store"
    cat "$M/local/m/m.apr" >/dev/null
    stop
}

t_background() {
    big_store "$T/store/m.gguf" 1 1
    mkdir "$T/m"
    "$APRFS" "$T/store" "$T/m" 2>"$T/err" # returns when the mount works
    [ -e "$T/m/local/m/m.apr" ]
    local pid
    pid=$(sed -n 's/.*pid \([0-9]*\)$/\1/p' "$T/m/.aprfs/status.txt" | head -n 1)
    echo "$pid" >>"$T/pids"
    [ "$(awk '{ print $4 }' "/proc/$pid/stat")" != $$ ]
    unmount "$T/m"
    ended() { ! kill -0 "$pid"; }
    until_true 30 ended
}

t_notify() {
    big_store "$T/store/m.gguf" 1 1
    python3 - "$T/notify" "$T/said" <<'PY' &
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
s.settimeout(30)
open(sys.argv[2], "wb").write(s.recv(4096))
PY
    local p=$!
    until_true 10 test -S "$T/notify"
    NOTIFY_SOCKET=$T/notify start m "$T/store"
    wait $p
    grep -q '^READY=1$' "$T/said"
    grep -q '^STATUS=1 models' "$T/said"
    stop
}

t_refusals() {
    local rc out
    mkdir -p "$T/store/inside" "$T/m" "$T/outer/store"
    refuses() { # STATUS TEXT COMMAND...
        local want=$1 text=$2
        shift 2
        rc=0
        out=$("$@" 2>&1) || rc=$?
        [ "$rc" = "$want" ] || fail "$*: exit status $rc, expected $want: $out"
        case $out in *"$text"*) ;; *) fail "$*: says '$out', expected '$text'" ;; esac
    }
    refuses 2 "unknown option 'bogus'" "$APRFS" -o bogus "$T/store" "$T/m"
    refuses 2 "unknown option '--bogus'" "$APRFS" --bogus "$T/store" "$T/m"
    refuses 2 "unknown option '-z'" "$APRFS" -z "$T/store" "$T/m"
    refuses 2 "profile=fast" "$APRFS" -o profile=fast "$T/store" "$T/m"
    refuses 2 "'profile' needs a value" "$APRFS" -o profile "$T/store" "$T/m"
    refuses 2 "footer=sum" "$APRFS" -o footer=sum "$T/store" "$T/m"
    refuses 2 "ttl=-1" "$APRFS" -o ttl=-1 "$T/store" "$T/m"
    refuses 2 "usage: aprfs" "$APRFS" "$T/store"
    refuses 1 "one is inside the other" "$APRFS" "$T/store" "$T" "$T/m"
    refuses 2 "exclude each other" "$APRFS" -o allow_other,allow_root "$T/store" "$T/m"
    refuses 1 "No such file" "$APRFS" "$T/absent" "$T/m"
    refuses 1 "No such file" "$APRFS" "$T/store" "$T/absent"
    touch "$T/file"
    refuses 1 "not a directory" "$APRFS" "$T/file" "$T/m"
    refuses 1 "one is inside the other" "$APRFS" "$T/store" "$T/store/inside"
    refuses 1 "one is inside the other" "$APRFS" "$T/outer/store" "$T/outer"
    refuses 1 "one is inside the other" "$APRFS" "$T/store" "$T/store"
    refuses 0 "aprfs 0.1.0" "$APRFS" --version
    refuses 0 "usage: aprfs" "$APRFS" -h
    start m "$T/store" # an empty store is an empty mount
    [ "$(ls -A "$M")" = "" ]
    refuses 1 "an aprfs mount already" "$APRFS" "$T/store" "$M"
    stop
}

t_fstab_words() {
    big_store "$T/store/m.gguf" 1 1
    start m "$T/store" -o rw,dev,suid,noatime,nofail,_netdev,x-systemd.automount,comment=x,fsname=my\\,store,subtype=aprfs,defaults
    findmnt -no FSTYPE,OPTIONS "$M" | grep -q 'fuse.aprfs.*ro,nosuid,nodev'
    [ "$(findmnt -no SOURCE "$M")" = 'my,store' ]
    stop
}

t_unprivileged() {
    [ "$(id -u)" = 0 ] || skip "is not root, so every other test was unprivileged already"
    local user=nobody
    id $user >/dev/null 2>&1 || skip "no user $user"
    command -v runuser >/dev/null || skip "no runuser"
    [ -u "$(command -v fusermount3)" ] || skip "fusermount3 is not setuid"
    runuser -u $user -- test -x "$APRFS" || skip "the build's folder is closed to $user"
    unshare -m --propagation private true 2>/dev/null || skip "no name space of its own for a /dev/fuse open to all"
    big_store "$T/store/m.gguf" 4 1
    chmod -R a+rX "$T"
    mkdir "$T/m"
    chown $user "$T/m"
    "$APRTOOL" convert -f "$T/store/m.gguf" "$T/witness.apr" >/dev/null
    chmod a+r "$T/witness.apr"
    user=$user T=$T APRFS=$APRFS apart private bash -eux <<'IN_NAMESPACE'
as() { runuser -u "$user" -- "$@"; }
if ! as test -w /dev/fuse; then # as udev would have it, in this name space alone
    mknod "$T/fuse" c 10 229
    chmod 666 "$T/fuse"
    mount --bind "$T/fuse" /dev/fuse
fi
as "$APRFS" "$T/store" "$T/m"
pid=$(as sed -n 's/.*pid \([0-9]*\)$/\1/p' "$T/m/.aprfs/status.txt" | head -n 1)
as cmp "$T/m/local/m/m.apr" "$T/witness.apr"
[ "$(as stat -c %U "$T/m/local/m/m.apr")" = "$user" ]
if stat "$T/m/local"; then exit 1; fi # not even root, without allow_other
mkdir "$T/m2"
chown "$user" "$T/m2"
if ! grep -qx user_allow_other /etc/fuse.conf; then
    if as "$APRFS" -o allow_other "$T/store" "$T/m2" 2>"$T/err2"; then exit 1; fi
    grep -q "user_allow_other" "$T/err2"
fi
kill -TERM "$pid" # fusermount3 -uz does it for a user
for i in $(seq 600); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.05
done
if kill -0 "$pid" 2>/dev/null; then exit 1; fi
if as mountpoint -q "$T/m"; then exit 1; fi
IN_NAMESPACE
}

t_killed_while_scanning() { # who gives up waiting gets no mount afterwards
    local i p child n=60
    small_store "$T/store"
    brief && n=10 # 2,000 models are 20 s and more of TSan's time
    for i in $(seq $n); do cp -rl "$T/store/types" "$T/store/types$i"; done
    mkdir "$T/mnt"
    "$APRFS" "$T/store" "$T/mnt" 2>/dev/null &
    p=$!
    until_true 30 pgrep -P "$p" || fail "no child"
    child=$(pgrep -P "$p")
    echo "$child" >>"$T/pids"
    kill "$p"
    gone() { [ ! -e "/proc/$child/status" ] || grep -q '^State:.*Z' "/proc/$child/status"; }
    until_true 100 gone || fail "the child lives on: $(grep -c "$T/mnt" /proc/self/mountinfo) mounts"
    [ -z "$(mounts)" ]
    "$APRFS" -f "$T/store" "$T/mnt" 2>/dev/null &
    p=$!
    sleep 0.05
    kill "$p"
    i=0
    wait "$p" || i=$?
    [ $i = 143 ] || [ $i = 0 ] || fail "exit status $i" # 0: it had been mounted by then
    [ -z "$(mounts)" ]
}

run mount_ends_by_signal t_end_by_signal
run mount_after_kill_says_what_to_run t_killed
run mount_killed_while_scanning_mounts_nothing t_killed_while_scanning 120
run mount_background_returns_when_ready t_background
run mount_notifies_systemd t_notify
run mount_refuses_by_name t_refusals
run mount_takes_fstab_words t_fstab_words
run mount_unprivileged_through_fusermount t_unprivileged
tests_end
