#!/usr/bin/env bash
# The life of a mount, end to end: how it starts, who is told, fstab and mount(8), how it ends, what is
# left after a crash; what it may do is e2e_rights.sh's. Prints TAP. See tests/mount.sh for what it needs and takes.
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/mount.sh

# (mountpoint(1) calls a dead mount none.)
gone() { ! grep -qF " $M " /proc/self/mountinfo; }

# --- who is told ---------------------------------------------------------------------------

t_ready_protocol() {
    big_store "$T/store/m.gguf" 1 1
    big_store "$T/store/n.gguf" 1 2
    python3 - "$T/notify" "$T/said" <<'PY' &
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
s.settimeout(60)
with open(sys.argv[2], "w") as f:
    while True:
        d = s.recv(4096).decode()
        f.write(d + "--\n")
        f.flush()
        if "STOPPING=1" in d:
            break
PY
    local p=$!
    until_true 10 test -S "$T/notify"
    NOTIFY_SOCKET=$T/notify start m "$T/store"
    grep -qx -- READY=1 "$T/said" || until_true 30 grep -qx -- READY=1 "$T/said"
    grep -qx "MAINPID=$PID" "$T/said"
    grep -qx "STATUS=2 models of $T/store" "$T/said"
    big_store "$T/store/o.gguf" 1 3
    until_true 20 grep -qx "STATUS=3 models of $T/store" "$T/said"
    grep -q STOPPING "$T/said" && fail "STOPPING before the end"
    kill -TERM "$PID"
    wait $p
    grep -qx STOPPING=1 "$T/said"
    wait "$PID" || fail "exit status $?"
    # In the background: the program's own descriptor is told once the mount can be listed.
    mkdir "$T/b"
    "$APRFS" --ready-fd 9 "$T/store" "$T/b" 9>"$T/ready" 2>"$T/b.daemon"
    [ "$(cat "$T/ready")" = READY ]
    [ "$(ls "$T/b/local" | wc -l)" = 3 ]
    M=$T/b
    p=$(sed -n 's/.*pid \([0-9]*\)$/\1/p' "$T/b/.aprfs/status.txt" | head -n 1)
    [ "$(awk '{ print $6 }' "/proc/$p/stat")" = "$p" ] || fail "the daemon is still of our session"
    unmount "$T/b"
    refuses 2 "--ready-fd 99: Bad file descriptor" "$APRFS" --ready-fd 99 "$T/store" "$T/b"
}

t_started_anyhow() { # what whoever starts it has left: a limit, a lock, a closed standard error
    big_store "$T/store/m.gguf" 1 1
    "$APRTOOL" convert -f "$T/store/m.gguf" "$T/witness.apr" >/dev/null
    M=$T/m
    mkdir "$M"
    # No file may grow: the index cannot be written, and nothing else is the worse for it. (ThreadSanitizer
    # makes a file of its own before main.)
    if [[ $B != *tsan ]]; then
        mkfifo "$T/ready" "$T/err"
        cat "$T/err" >"$T/limit.daemon" &
        (ulimit -f 0 && exec "$APRFS" -f --ready-fd 9 "$T/store" "$M" 9>"$T/ready" 2>"$T/err") &
        PID=$!
        echo $PID >>"$T/pids"
        [ "$(head -n 1 "$T/ready")" = READY ]
        cmp "$M/local/m/m.apr" "$T/witness.apr"
        stop
        until_true 30 grep -q 'index: .*File too large' "$T/limit.daemon" # cat may be behind
    fi
    # A descriptor of a script, with its lock, does not live as long as the mount in the background.
    exec 7>"$T/lock"
    flock 7
    "$APRFS" "$T/store" "$M" 2>"$T/lock.daemon"
    exec 7>&-
    flock -n "$T/lock" true || fail "the mount holds the lock of whoever started it"
    unmount "$M"
    # READY on standard error, which stays what it is: no file that is opened later gets the log.
    "$APRFS" -f --ready-fd 2 "$T/store" "$M" 2>"$T/two" &
    PID=$!
    echo $PID >>"$T/pids"
    until_true 10 grep -qx READY "$T/two"
    cmp "$M/local/m/m.apr" "$T/witness.apr"
    [ "$(readlink "/proc/$PID/fd/2")" = "$T/two" ] || fail "descriptor 2 is $(readlink "/proc/$PID/fd/2")"
    stop
}

# --- how it ends ---------------------------------------------------------------------------

t_abort() { # mount.md §9 test 13
    is_root
    big_store "$T/store/m.gguf" 4 1
    local rc conn t0
    # Unmounted by force under an open file: no DESTROY, the connection is cut.
    start m "$T/store"
    exec 5<"$M/local/m/m.apr"
    t0=$(date +%s%N)
    umount -f "$M" 2>/dev/null || true # busy, but the connection is cut
    rc=0
    wait "$PID" || rc=$?
    echo "# ended $((($(date +%s%N) - t0) / 1000000)) ms after umount -f, exit status $rc"
    [ $rc -eq 0 ]
    until_true 30 gone
    dd bs=1M iflag=direct of=/dev/null status=none <&5 2>/dev/null && fail "read without a daemon"
    exec 5<&-
    # The connection aborted through fusectl, with a reader on it.
    conn=/sys/fs/fuse/connections
    if ! [ -e $conn/ ] || [ -z "$(ls -A $conn)" ]; then
        mkdir "$T/conn"
        mount -t fusectl none "$T/conn" || skip "no fusectl here (umount -f was right)"
        conn=$T/conn
    fi
    start m2 "$T/store"
    exec 5<"$M/local/m/m.apr"
    t0=$(date +%s%N)
    echo 1 >"$conn/$(stat -c %d "$M" | awk '{ print $1 % 256 + int($1 / 1048576) * 256 }')/abort"
    rc=0
    wait "$PID" || rc=$?
    echo "# ended $((($(date +%s%N) - t0) / 1000000)) ms after the abort, exit status $rc"
    [ $rc -eq 0 ]
    exec 5<&-
    until_true 30 gone || umount -l "$M"
    ! mountpoint -q "$T/conn" || umount "$T/conn"
}

t_broker_lost() { # somebody kills the broker: the mount serves, and still ends when told
    big_store "$T/store/m.gguf" 4 1
    start m "$T/store"
    witness "$M/local/m/m.apr" "$T/witness.apr"
    local broker rc=0
    broker=$(pgrep -P "$PID" -x aprfs-broker) || fail "no broker beside $PID"
    kill -9 "$broker"
    cmp "$M/local/m/m.apr" "$T/witness.apr"
    kill -TERM "$PID"
    wait "$PID" || rc=$?
    [ $rc -eq 0 ] || fail "exit status $rc"
    grep -q "cannot be unmounted" "$T/m.daemon"
    fusermount3 -uz "$M"
    # Killed the other way round: the broker goes, or the connection would stay.
    start m2 "$T/store"
    broker=$(pgrep -P "$PID" -x aprfs-broker)
    kill -9 "$PID"
    wait "$PID" 2>/dev/null || true
    broker_gone() { ! readlink "/proc/$broker/exe"; } # or waits to be reaped
    until_true 30 broker_gone
    dead() { stat -f "$M" 2>&1 | grep -q 'not connected'; }
    until_true 30 dead
    unmount "$M"
}

# --- after a crash -------------------------------------------------------------------------

crash() { # NAME: a dead mount at $T/NAME.mnt
    start "$1" "$T/store" "${@:2}"
    kill -9 "$PID"
    wait "$PID" 2>/dev/null || true
    until_true 30 dead_at "$M"
}
dead_at() { stat -f "$1" 2>&1 | grep -q 'not connected'; }

t_clean_stale() {
    big_store "$T/store/m.gguf" 1 1
    witness_of() { cmp "$M/local/m/m.apr" "$T/witness.apr"; }
    "$APRTOOL" convert -f "$T/store/m.gguf" "$T/witness.apr" >/dev/null
    crash m
    refuses 1 "run fusermount3 -u $M, or add -o clean_stale" "$APRFS" "$T/store" "$M"
    start m "$T/store" -o clean_stale
    witness_of
    grep -q "unmounted what a dead aprfs had left" "$T/m.daemon"
    # Not one that lives, not one of another type.
    refuses 1 "an aprfs mount already" "$APRFS" -o clean_stale "$T/store" "$M"
    witness_of
    stop
    start m "$T/store" -o clean_stale # nothing to clean
    grep "dead aprfs" "$T/m.daemon" && fail "it says that it unmounted one"
    stop
    # Two on top of each other, and names of the folder that are not its plain path.
    is_root
    crash m
    local under=$M
    mkdir "$T/over"
    crash o
    mount --move "$T/o.mnt" "$T/over" 2>/dev/null || umount -l "$T/o.mnt"
    ln -s "$T" "$T/link"
    M=$under
    (cd "$T" && exec "$APRFS" -o clean_stale link/store link/m.mnt/)
    witness_of
    unmount "$M"
    mkdir "$T/tmpfs"
    mount -t tmpfs none "$T/tmpfs"
    touch "$T/tmpfs/mine"
    "$APRFS" -o clean_stale "$T/store" "$T/tmpfs"
    local pid
    pid=$(sed -n 's/.*pid \([0-9]*\)$/\1/p' "$T/tmpfs/.aprfs/status.txt" | head -n 1)
    fusermount3 -u "$T/tmpfs"
    [ -e "$T/tmpfs/mine" ]
    ended() { ! readlink "/proc/$pid/exe"; } # or it might take the dead mount below, of the same number, for its own
    until_true 30 ended
    umount "$T/tmpfs"
    crash s -o subtype=other # a dead mount, but not called ours
    refuses 1 "a dead mount is there" "$APRFS" -o clean_stale "$T/store" "$M"
    umount "$M"
}

t_auto_unmount() {
    big_store "$T/store/m.gguf" 1 1
    start m "$T/store" -o auto_unmount
    kill -9 "$PID"
    wait "$PID" 2>/dev/null || true
    until_true 10 gone
    start m "$T/store" -o auto_unmount
    stop
}

# --- mount(8), fstab -----------------------------------------------------------------------

# in_namespace: the script on stdin, with mount.aprfs and aprfs in /sbin.
in_namespace() {
    is_root
    unshare -m --propagation private true 2>/dev/null || skip "no mount name space of its own"
    mkdir -p "$T/up" "$T/m" "$T/m2"
    cat >"$T/script"
    T=$T APRFS=$APRFS apart private bash -eu -c '
        sbin=$(realpath /sbin)
        mount -t tmpfs none "$T/up"
        mkdir "$T/up/u" "$T/up/w"
        mount -t overlay -o lowerdir="$sbin",upperdir="$T/up/u",workdir="$T/up/w" none "$sbin" || exit 76
        ln -s "$APRFS" "$sbin/mount.aprfs"
        ln -s "$APRFS" "$sbin/aprfs"
        die() { echo "FAILED: $*"; exit 1; }
        pid_at() { sed -n "s/.*pid \([0-9]*\)\$/\1/p" "$1/.aprfs/status.txt" | head -n 1; }
        away() { # unmounts and waits for the end
            local pid
            pid=$(pid_at "$1")
            umount "$1"
            for _ in $(seq 500); do readlink "/proc/$pid/exe" >/dev/null || return 0; sleep 0.02; done
            die "$pid lives on after umount $1"
        }
        trap "echo \"FAILED: line \$LINENO: \$BASH_COMMAND\"" ERR
        set -E
        . "$T/script"' || { [ $? -eq 76 ] && skip "no overlayfs to put mount.aprfs into /sbin"; return 1; }
}

t_mount_program() {
    big_store "$T/store/m.gguf" 1 1
    "$APRTOOL" convert -f "$T/store/m.gguf" "$T/witness.apr" >/dev/null
    in_namespace <<'IN'
# By the generic helper, as mount(8) finds it; rw is passed, dev and suid are added: still ro,nosuid,nodev.
mount -t fuse.aprfs "$T/store" "$T/m" -o profile=engine,ttl=7
cmp "$T/m/local/m/m.apr" "$T/witness.apr"
findmnt -no FSTYPE,OPTIONS "$T/m" | grep 'fuse.aprfs.*ro,nosuid,nodev'
[ "$(findmnt -no SOURCE "$T/m")" = "$T/store" ]
mount -t fuse.aprfs "$T/store" "$T/m" 2>"$T/err" && die "mounted twice"
grep "an aprfs mount already" "$T/err"
away "$T/m"
POSIXLY_CORRECT=1 mount -t fuse.aprfs -o ttl=7 "$T/store" "$T/m" # which is given to us last
away "$T/m"
env -u HOME mount -t fuse.aprfs "$T/store" "$T/m"
away "$T/m"
# By its own.
mount -t aprfs "$T/store" "$T/m" -o noatime,allow_other
cmp "$T/m/local/m/m.apr" "$T/witness.apr"
findmnt -no FSTYPE,OPTIONS "$T/m" | grep 'fuse.aprfs.*allow_other'
away "$T/m"
mount -i -t fuse.aprfs "$T/store" "$T/m" 2>/dev/null && die "without a helper"
# mount(8)'s letters and bits.
rc() { rc=0; "$@" >"$T/out" 2>&1 || rc=$?; }
rc mount -f -t aprfs "$T/store" "$T/m"
[ $rc -eq 0 ] || die "-f: $rc"
rc mount.aprfs "$T/store" "$T/m" -f
[ $rc -eq 0 ] && ! mountpoint -q "$T/m" || die "fake: $rc"
rc mount.aprfs "$T/store" "$T/absent" -f # everything is checked
[ $rc -eq 32 ] && grep "No such file" "$T/out" || die "fake of an absent folder: $rc"
rc mount.aprfs "$T/store" "$T/m" -o bogus
[ $rc -eq 1 ] && grep "unknown option 'bogus'" "$T/out" || die "usage: $rc"
rc mount -t aprfs "$T/store" "$T/m" -o bogus
[ $rc -eq 1 ] || die "usage by mount: $rc"
rc mount.aprfs "$T/store" "$T/m" -o bogus,ttl=9 -s -n -v -t aprfs
[ $rc -eq 0 ] || die "sloppy: $rc: $(cat "$T/out")"
away "$T/m"
rc mount -s -t aprfs "$T/store" "$T/m" -o bogus
[ $rc -eq 0 ] || die "sloppy by mount: $rc: $(cat "$T/out")"
away "$T/m"
rc mount.aprfs "$T/store" "$T/m" -s -o ttl=x # sloppy is about words that are not known
[ $rc -eq 1 ] && grep "ttl=x" "$T/out" || die "sloppy value: $rc"
rc mount.aprfs "$T/store" "$T/m" -N 1
[ $rc -eq 1 ] && grep -e "-N 1: " "$T/out" || die "-N: $rc"
rc mount.aprfs "$T/store"
[ $rc -eq 1 ] || die "one argument: $rc"
rc mount.aprfs "$T/store" "$T/m" -x
[ $rc -eq 1 ] && grep "unknown option '-x'" "$T/out" || die "-x: $rc"
rc mount.aprfs "$T/absent" "$T/m"
[ $rc -eq 32 ] || die "no source: $rc"
rc mount.aprfs -V
[ $rc -eq 0 ] && grep "^aprfs" "$T/out" || die "-V: $rc"
IN
}

t_fstab() {
    big_store "$T/store/m.gguf" 1 1
    mkdir -p "$T/with blank"
    big_store "$T/with blank/m.gguf" 1 1
    "$APRTOOL" convert -f "$T/store/m.gguf" "$T/witness.apr" >/dev/null
    in_namespace <<'IN'
mkdir -p "$T/m3" "$T/m 4"
cat >"$T/fstab" <<F
# stores.md section 7
$T/store  $T/m   fuse.aprfs  ro,nofail,allow_other,store=auto,x-systemd.automount,_netdev  0 0
aprfs#$T/store  $T/m2  fuse  ro,nofail,allow_other  0 0
$T/store  $T/m3  aprfs  defaults,noauto,nosuid,user,comment=third,x-anything=1  0 0
$(echo "$T/with blank" | sed 's/ /\\040/g')  $(echo "$T/m 4" | sed 's/ /\\040/g')  fuse.aprfs  defaults,noatime  0 0
F
mount --bind "$T/fstab" /etc/fstab
mount -a
for m in m m2 "m 4"; do
    cmp "$T/$m/local/m/m.apr" "$T/witness.apr"
    findmnt -no FSTYPE,OPTIONS "$T/$m" | grep 'fuse.aprfs.*ro,nosuid,nodev'
done
mountpoint -q "$T/m3" && die "noauto was mounted"
mount "$T/m3"
cmp "$T/m3/local/m/m.apr" "$T/witness.apr"
mount -a -t fuse.aprfs # again: those that are mounted are passed over
[ "$(findmnt -nlo TARGET -t fuse.aprfs | grep -c "^$T/")" = 4 ]
away "$T/m"
away "$T/m2"
away "$T/m3"
away "$T/m 4"
# An unknown word of a line is refused by name, and mount(8) fails.
echo "$T/store $T/m fuse.aprfs ro,nofails 0 0" >"$T/fstab"
rc=0
mount "$T/m" 2>"$T/err" || rc=$?
[ $rc -ne 0 ] && grep "unknown option 'nofails'" "$T/err"
IN
}

t_autofs() { # the mount point of an automounter: who mounts stands in its process group
    is_root
    grep -qw autofs /proc/filesystems || skip "this kernel has no autofs"
    big_store "$T/store/m.gguf" 1 1
    mkdir "$T/m"
    cat >"$T/auto.py" <<'PY'
import ctypes, fcntl, os, struct, subprocess, sys
aprfs, store, m = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
r, w = os.pipe2(0)
os.setpgrp()
opts = "fd=%d,pgrp=%d,minproto=5,maxproto=5,direct" % (w, os.getpgrp())
if libc.mount(b"systemd-1", m.encode(), b"autofs", 0, opts.encode()):
    print("autofs:", os.strerror(ctypes.get_errno()))
    sys.exit(77)
assert any(l.split()[4] == m and " - autofs " in l for l in open("/proc/self/mountinfo"))
root = os.open(m, os.O_RDONLY | os.O_DIRECTORY) # lets us pass: our process group is the automounter's
# Somebody else goes there, and waits: from now on whoever is not of that group waits, too.
user = subprocess.Popen([sys.executable, "-c", "import os, sys; print(os.listdir(sys.argv[1] + '/local'))", m],
                        preexec_fn=os.setpgrp, stdout=subprocess.PIPE, text=True)
packet = os.read(r, 4096) # struct autofs_v5_packet: version, type, token, ...
version, kind, token = struct.unpack_from("=iiI", packet)
assert version == 5 and kind == 5, packet[:16] # autofs_ptype_missing_direct
subprocess.run([aprfs, store, m], check=True, timeout=60)
fcntl.ioctl(root, 0x9360, token) # AUTOFS_IOC_READY
out = user.communicate(timeout=60)[0]
assert out == "['m']\n", out
lines = [l for l in open("/proc/self/mountinfo") if l.split()[4] == m]
assert len(lines) == 2 and "fuse.aprfs" in lines[1], lines
subprocess.run(["fusermount3", "-u", m], check=True)
os.close(root)
assert libc.umount2(m.encode(), 2) == 0
PY
    unshare -m --propagation private true 2>/dev/null || skip "no mount name space of its own"
    rc_of apart private timeout -s KILL 90 python3 "$T/auto.py" "$APRFS" "$T/store" "$T/m"
    [ "$RC" != 77 ] || skip "$(cat "$T/out")"
    [ "$RC" = 0 ] || fail "$RC: $(cat "$T/out")"
}

t_unit() {
    command -v systemd-analyze >/dev/null || skip "no systemd-analyze"
    # As installed, but for the program's place; man pages need not be installed to be right.
    sed "s|/usr/local/bin/aprfs|$APRFS|" deploy/aprfs@.service >"$T/aprfs@.service"
    cp "$T/aprfs@.service" "$T/aprfs@mnt-models.service"
    rc_of systemd-analyze verify --man=no "$T/aprfs@mnt-models.service"
    [ "$RC" = 0 ] && [ ! -s "$T/out" ] || fail "$RC: $(cat "$T/out")"
    # A mount must be seen outside of the unit, and fusermount3 is setuid.
    grep -E '^(Protect|Private|ReadOnly|ReadWrite|Inaccessible|ExecPaths|NoExec|Bind|TemporaryFile|RootDirectory|RootImage|MountImages|Extension|MountAPIVFS|LogNamespace|ProcSubset|DynamicUser|NoNewPrivileges|MountFlags)' deploy/aprfs@.service &&
        fail "the unit has a name space of mounts, or keeps fusermount3 from its rights"
    local want
    for want in Type=notify Restart=on-failure ExecStopPost=-/bin/fusermount3 CacheDirectory=; do
        grep -q "^$want" deploy/aprfs@.service || fail "the unit has no $want"
    done
    # Its file of options is a pattern to systemd (glob), and the mount point may have a "-", which is escaped.
    local conf i
    conf=$(sed -n 's/^EnvironmentFile=//p' deploy/aprfs@.service)
    i=$(systemd-escape --path /mnt/my-models)
    conf=$T${conf//%i/$i}
    conf=${conf//%I/mnt/my-models}
    mkdir -p "${conf%/*}"
    touch "$conf"
    [ "$(compgen -G "$conf")" = "$conf" ] || fail "EnvironmentFile=$conf is not found by its own name"
    grep -qx "AssertPathExists=$(sed -n 's/^EnvironmentFile=//p' deploy/aprfs@.service)" deploy/aprfs@.service
    # Its command, as systemd would make it of the example, is one that aprfs takes.
    local OPTIONS SOURCE
    . deploy/models.conf
    mkdir "$T/store" "$T/m"
    # shellcheck disable=SC2086 # split at blanks, as systemd does
    ln -s "$APRFS" "$T/mount.aprfs"
    refuses 0 "" "$T/mount.aprfs" "$T/store" "$T/m" -f -o clean_stale $OPTIONS
    [ -n "$SOURCE" ]
    # Somebody's drop-in made such a name space all the same: the log says what comes of it.
    is_root
    unshare -m --propagation private true 2>/dev/null || skip "no mount name space of its own (the unit is sound)"
    big_store "$T/store/m.gguf" 1 1
    mkdir "$T/up"
    T=$T APRFS=$APRFS apart private bash -eu <<'IN'
mount --bind "$T/up" "$T/up"
mkdir "$T/up/m"
says() { # how the mount below propagates
    mount --make-"$1" "$T/up"
    NOTIFY_SOCKET=@aprfs-nobody "$APRFS" "$T/store" "$T/up/m" 2>"$T/err"
    umount "$T/up/m"
    grep -q "m: mounted in a name space of mounts that others do not see" "$T/err"
}
says private
says shared && exit 1
says slave
IN
}

t_detaches_its_own() { # SIGTERM and the end take away this mount, wherever it is now, and no other
    is_root
    small_store "$T/store"
    there() { awk -v m="$1" '$5 == m { n++ } END { exit !n }' /proc/self/mountinfo; }
    local first
    # Gone, and while the daemon has not come to see that, another one with the same device number.
    start first "$T/store"
    first=$PID
    kill -STOP "$first"
    python3 -c 'import ctypes, sys; sys.exit(ctypes.CDLL(None).umount2(sys.argv[1].encode(), 0))' "$M" # umount(8) asks
    "$APRFS" "$T/store" "$M"
    kill -CONT "$first"
    wait "$first"
    there "$M" || fail "the end of one mount took away the next"
    ls "$M/local" >/dev/null
    umount "$M"
    # One elsewhere that got the number, and died.
    start third "$T/store"
    first=$PID
    kill -STOP "$first"
    python3 -c 'import ctypes, sys; sys.exit(ctypes.CDLL(None).umount2(sys.argv[1].encode(), 0))' "$M"
    crash fourth
    kill -CONT "$first"
    wait "$first"
    there "$M" || fail "the end of one mount took away a dead one elsewhere"
    umount "$M"
    # A folder above the mount point has another name now.
    mkdir -p "$T/above/m"
    "$APRFS" -f "$T/store" "$T/above/m" --ready-fd 9 9>"$T/ready" 2>"$T/above.log" &
    PID=$!
    until_true 10 test -s "$T/ready"
    mv "$T/above" "$T/renamed"
    kill -TERM "$PID"
    wait "$PID"
    there "$T/renamed/m" && fail "SIGTERM left the mount in a renamed folder"
    # Another one over it stays, and the log says what is in the way.
    start under "$T/store"
    mount -t tmpfs none "$M"
    kill -TERM "$PID"
    wait "$PID"
    grep -q 'cannot be unmounted: something else is mounted over it' "$T/under.daemon"
    [ "$(findmnt -no FSTYPE "$M" | tail -n 1)" = tmpfs ] || fail "another mount is gone"
    umount "$M"
    umount -l "$M"
}

run life_everybody_is_told_when_it_works_and_ends t_ready_protocol
run life_does_not_depend_on_who_started_it t_started_anyhow
run life_aborted_connection_ends_the_daemon t_abort 30
run life_goes_on_and_ends_without_its_broker t_broker_lost 60
run life_detaches_its_own_mount_and_no_other t_detaches_its_own
run life_clean_stale_needs_no_hand t_clean_stale
run life_auto_unmount_leaves_nothing t_auto_unmount 60
run life_mount_program_and_its_bits t_mount_program
run life_fstab_lines t_fstab
run life_autofs_mount_point_is_taken t_autofs
run life_unit_is_sound t_unit
tests_end
