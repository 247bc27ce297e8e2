#!/usr/bin/env bash
# What a daemon may still do once it has mounted, and who it is: its sandbox, rights, other users, ordinary
# users, containers. Prints TAP. See tests/mount.sh for what it needs and takes.
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/mount.sh

# (mountpoint(1) calls a dead mount none.)
gone() { ! grep -qF " $M " /proc/self/mountinfo; }

# --- what the daemon may do, and who it is ---------------------------------------------------

status_of() { awk -v k="$2:" '$1 == k { print $2 }' "/proc/$1/status"; }

t_sandbox() {
    is_root
    big_store "$T/store/m.gguf" 8 1
    local broker t has_seccomp=0
    "$APRFS" -V | grep -q 'no seccomp' || has_seccomp=2
    start m "$T/store"
    witness "$M/local/m/m.apr" "$T/witness.apr"
    cat "$M/local/m/m.apr" >/dev/null # threads of the session, too
    for t in /proc/"$PID"/task/*; do
        [ "$(status_of "$PID/task/${t##*/}" CapPrm)$(status_of "$PID/task/${t##*/}" CapEff)" = 00000000000000000000000000000000 ] || fail "capabilities in $t"
        [ "$(status_of "$PID/task/${t##*/}" NoNewPrivs)" = 1 ]
        sanitized || [ "$(status_of "$PID/task/${t##*/}" Seccomp)" = $has_seccomp ] || fail "no filter in $t"
    done
    grep -E '^aprfs: capabilities: none; (Landlock ABI|no Landlock).*seccomp.*no_new_privs' "$T/m.daemon"
    grep -qE '^capabilities: none; (Landlock ABI|no Landlock)' "$M/.aprfs/status.txt"
    head -n 1 "$T/m.daemon" | grep -q 'without CAP_DAC_READ_SEARCH, CAP_LEASE'
    broker=$(pgrep -P "$PID" -x aprfs-broker)
    [ "$(status_of "$broker" CapPrm)" = 0000000000200004 ] # CAP_SYS_ADMIN 21, CAP_DAC_READ_SEARCH 2
    [ "$(status_of "$broker" Seccomp)" = $has_seccomp ]
    [ "$(find "/proc/$broker/fd" -mindepth 1 | wc -l)" = 6 ]
    stop
    start off "$T/store" -o sandbox=off,caps=read+lease
    [ "$(status_of "$PID" Seccomp)" = 0 ]
    [ "$(status_of "$PID" CapPrm)" = 0000000010000004 ] # CAP_LEASE 28, CAP_DAC_READ_SEARCH 2
    cmp "$M/local/m/m.apr" "$T/witness.apr"
    grep -q 'no sandbox: switched off' "$T/off.daemon"
    stop
    # Reading bounded to the source: what is in it is read, links that lead out are refused as before.
    big_store "$T/far/far.gguf" 1 1
    ln -s "$T/far/far.gguf" "$T/store/far.gguf"
    start in "$T/store" -o resolve=beneath
    cmp "$M/local/m/m.apr" "$T/witness.apr"
    big_store "$T/store/late.gguf" 1 2
    until_true 10 test -e "$M/local/late/late.apr"
    [ ! -e "$M/local/far" ]
    stop
    start any "$T/store" # anywhere
    cat "$M/local/far/far.apr" >/dev/null
    stop
}

t_cache_folder() { # large texts are unlinked files there; where others may write to it, in memory
    local model=$MODELS/SmolLM2-135M-Instruct.Q4_1.gguf
    [ -e "$model" ] || skip "no $model (APRFS_MODELS)"
    mkdir "$T/store"
    ln -s "$model" "$T/store/m.gguf"
    below() { find "/proc/$PID/fd" -lname "$1/*" | wc -l; }
    start m "$T/store" -o index=none
    grep -qx "cache folder: $XDG_CACHE_HOME/aprfs" "$M/.aprfs/status.txt"
    exec 5<"$M/local/m/m.apr"
    head -c 8M <&5 >"$T/head"
    [ "$(stat_of "$M" cache_file_bytes)" -ge 1048576 ] || fail "$(stat_of "$M" cache_file_bytes) bytes in files"
    [ "$(below "$XDG_CACHE_HOME/aprfs")" = 1 ] || fail "$(ls -l "/proc/$PID/fd")"
    [ -z "$(find "$XDG_CACHE_HOME/aprfs" -name 'text.*')" ]
    exec 5<&-
    stop
    mkdir -p "$T/cache/aprfs"
    chmod 777 "$T/cache/aprfs"
    XDG_CACHE_HOME=$T/cache start n "$T/store"
    grep -q "cache folder: $T/cache/aprfs may be written by others; large heads and tokenizer texts stay in memory" "$T/n.daemon"
    grep -qx "cache folder: none" "$M/.aprfs/status.txt"
    head -c 8M "$M/local/m/m.apr" | cmp - "$T/head"
    [ "$(stat_of "$M" cache_file_bytes)" = 0 ]
    [ -z "$(ls -A "$T/cache/aprfs")" ]
    stop
}

t_caps() { # root gives up what it was not told to keep, and says so
    is_root
    id nobody >/dev/null 2>&1 || skip "no user nobody"
    big_store "$T/store/mine.gguf" 1 1
    big_store "$T/store/theirs.gguf" 1 1
    big_store "$T/shut/m.gguf" 1 1
    chown -R nobody "$T/store/theirs.gguf" "$T/shut"
    chmod 600 "$T/store/theirs.gguf"
    chmod 700 "$T/shut"
    start m "$T/store"
    [ -e "$M/local/mine/mine.apr" ]
    [ ! -e "$M/local/theirs" ]
    grep -P '^EACCES\t.*theirs.*owned by nobody.*\(root without CAP_DAC_READ_SEARCH: -o caps=read keeps it\)' "$M/.aprfs/problems.txt"
    # One that comes later, of somebody who is in no list: nothing is asked that the sandbox refuses.
    cp "$T/store/mine.gguf" "$T/late.gguf"
    chown 54321 "$T/late.gguf"
    chmod 600 "$T/late.gguf"
    mv "$T/late.gguf" "$T/store/"
    until_true 10 grep -P '^EACCES\t.*late.*owned by uid 54321.*caps=read' "$M/.aprfs/problems.txt"
    grep 'sandbox: refused' "$T/m.daemon" && fail "the sandbox refused us something"
    stop
    start k "$T/store" -o caps=read
    cat "$M/local/theirs/theirs.apr" >/dev/null
    stop
    refuses 1 "caps=read" "$APRFS" "$T/shut" "$T/m.mnt"
    # Of the known stores one that root may not read is passed over, and said; alone it is a refusal.
    mkdir -p "$T/home2/.cache/llama.cpp" "$T/home2/.ollama/models/manifests" "$T/home2/.ollama/models/blobs" "$T/auto"
    chown -R nobody "$T/home2/.ollama/models"
    chmod 700 "$T/home2/.ollama/models"
    known() { env -u XDG_CACHE_HOME -u HF_HOME -u HF_HUB_CACHE -u LLAMA_CACHE -u OLLAMA_MODELS HOME="$T/home2" "$@"; }
    cp "$T/store/mine.gguf" "$T/home2/.cache/llama.cpp/"
    known "$APRFS" auto "$T/auto" 2>"$T/err"
    grep -q 'auto: .*/\.ollama/models: passed over: Permission denied.*caps=read' "$T/err"
    [ -n "$(find "$T/auto" -name '*.apr')" ]
    until_true 20 umount "$T/auto"
    rm -r "$T/home2/.cache"
    [ -d /usr/share/ollama ] || refuses 1 "none of the known stores can be read" known "$APRFS" auto "$T/auto"
    # Leases: those of root's own files; with caps=lease those of others'.
    [ -r /proc/locks ] || skip "no /proc/locks"
    chmod 644 "$T/store/theirs.gguf"
    leases() { awk -v p="$PID" '/LEASE/ && $5 == p' /proc/locks | wc -l; }
    start l "$T/store"
    exec 5<"$M/local/mine/mine.apr" 6<"$M/local/theirs/theirs.apr"
    [ "$(leases)" = 1 ] || fail "$(leases) leases, expected that of root's file"
    exec 5<&- 6<&-
    stop
    start l2 "$T/store" -o caps=lease
    exec 5<"$M/local/mine/mine.apr" 6<"$M/local/theirs/theirs.apr"
    [ "$(leases)" = 2 ] || fail "$(leases) leases, expected two"
    exec 5<&- 6<&-
    stop
    # A mount point that root's own user may not reach without CAP_DAC_READ_SEARCH.
    mkdir -p "$T/home/m"
    chown nobody "$T/home"
    chmod 700 "$T/home"
    "$APRFS" "$T/store" "$T/home/m"
    cat "$T/home/m/local/mine/mine.apr" >/dev/null
    pkill -TERM -f "^$APRFS $T/store $T/home/m\$"
    M=$T/home/m
    until_true 30 gone
}

t_allow_other() { # other users get in, each to what the source lets them read; overriding that is visible
    is_root
    command -v setpriv >/dev/null || skip "no setpriv"
    id nobody >/dev/null 2>&1 || skip "no user nobody"
    as() { setpriv --reuid nobody --regid nogroup --clear-groups -- "$@"; }
    as test -x "$T" || skip "$T is closed to nobody"
    big_store "$T/store/open.gguf" 1 1
    big_store "$T/store/shut.gguf" 1 1
    big_store "$T/store/theirs.gguf" 1 1
    chmod 640 "$T/store/shut.gguf"
    chown nobody "$T/store/theirs.gguf"
    chmod 400 "$T/store/theirs.gguf"
    start shut "$T/store"
    as ls "$M" 2>/dev/null && fail "another user came in without allow_other"
    stop
    start m "$T/store" -o allow_other,caps=read
    findmnt -no OPTIONS "$M" | grep default_permissions
    as cmp "$M/local/open/open.apr" "$M/local/open/open.apr"
    as cat "$M/local/theirs/theirs.apr" >/dev/null
    rc_of as cat "$M/local/shut/shut.apr"
    [ "$RC" = 1 ] && grep -q 'Permission denied' "$T/out" || fail "nobody reads what is root's alone: $RC"
    stop
    start over "$T/store" -o allow_other,caps=read,umask=0222 # the administrator says so, and stat shows it
    [ "$(stat -c '%u %a' "$M/local/shut/shut.apr")" = "0 444" ]
    as cat "$M/local/shut/shut.apr" >/dev/null
    stop
    start own "$T/store" -o allow_other,caps=read,uid=0,umask=0377
    [ "$(stat -c '%u %a' "$M")" = "0 400" ]
    as ls "$M" 2>/dev/null && fail "umask=0377 did not shut out"
    stop
}

# unprivileged SCRIPT-ON-STDIN: in a name space where /dev/fuse has its usual mode, as() is nobody.
unprivileged() {
    is_root
    command -v setpriv >/dev/null || skip "no setpriv"
    id nobody >/dev/null 2>&1 || skip "no user nobody"
    [ -u "$(command -v fusermount3)" ] || skip "fusermount3 is not setuid"
    setpriv --reuid nobody --regid nogroup --clear-groups test -x "$APRFS" || skip "the build's folder is closed to nobody"
    unshare -m --propagation private true 2>/dev/null || skip "no mount name space of its own"
    cat >"$T/script"
    chmod -R a+rX "$T"
    T=$T W=$W B=$B APRFS=$APRFS APRTOOL=$APRTOOL apart private bash -eu -c '
        mknod "$T/fuse" c 10 229 && chmod 666 "$T/fuse" && mount --bind "$T/fuse" /dev/fuse
        as() { setpriv --reuid nobody --regid nogroup --clear-groups -- "$@"; }
        die() { echo "FAILED: $*"; exit 1; }
        trap "echo \"FAILED: line \$LINENO: \$BASH_COMMAND\"" ERR
        set -E
        . "$T/script"'
}

t_user() {
    big_store "$T/store/m.gguf" 4 1
    big_store "$T/own/m.gguf" 4 1
    "$APRTOOL" convert -f "$T/store/m.gguf" "$T/witness.apr" >/dev/null
    mkdir "$T/m"
    chown -R nobody "$T/m" "$T/own" 2>/dev/null || true
    unprivileged <<'IN'
trap 'umount -l "$T/m" 2>/dev/null || true' EXIT
go() { # OPTIONS...: in the foreground, in the background of this script; children's ends ignored, as some leave it
    mkfifo "$T/ready"
    chmod 666 "$T/ready"
    env --ignore-signal=CHLD setpriv --reuid nobody --regid nogroup --clear-groups -- \
        "$APRFS" -f --ready-fd 9 "$@" "$T/m" >"$T/user.log" 2>&1 9>"$T/ready" &
    pid=$!
    read -r line <"$T/ready" || die "no READY: $(cat "$T/user.log")"
    rm "$T/ready"
}
there() { grep -qF " $T/m " /proc/self/mountinfo; }
of() { awk -v k="$2:" '$1 == k { print $2 }' "/proc/$1/status"; }
go "$T/store"
head -n 1 "$T/user.log" | grep '^aprfs: uid [0-9]* without CAP_SYS_ADMIN: no passthrough.*128 KiB.*CAP_LEASE.*user_allow_other'
as cmp "$T/m/local/m/m.apr" "$T/witness.apr"
"$APRFS" -V | grep -q "no seccomp" || [[ $B == *san ]] || [ "$(of "$pid" Seccomp)" = 2 ]
[ "$(of "$pid" NoNewPrivs)" = 1 ]
as stat "$T/m/local/m/m.apr" -c %U | grep -x nobody
stat "$T/m/local" 2>/dev/null && die "root came in without allow_other"
as touch "$T/m/local/m/m.apr" 2>"$T/err" && die "touch"
grep 'Read-only file system' "$T/err"
# No lease on a file of root's.
leases() { awk -v p="$pid" '/LEASE/ && $5 == p' /proc/locks | wc -l; }
hold() { # keeps the model open, as nobody, until let go
    rm -f "$T/held"
    # shellcheck disable=SC2016
    setpriv --reuid nobody --regid nogroup --clear-groups -- \
        sh -c 'exec 5<"$1"; echo held; exec sleep 600' sh "$T/m/local/m/m.apr" >"$T/held" &
    reader=$!
    for _ in $(seq 500); do [ -s "$T/held" ] && return 0; sleep 0.02; done
    die "no reader"
}
let_go() { kill "$reader"; wait "$reader" || true; }
hold
[ "$(leases)" = 0 ] || die "a lease on a file of root's"
# Its own end: the first SIGTERM takes the mount away through fusermount3, the reader keeps it alive.
kill -TERM "$pid"
for _ in $(seq 500); do there || break; sleep 0.02; done
there && die "still mounted after SIGTERM"
readlink "/proc/$pid/exe" || die "the daemon left its reader"
grep "cannot be unmounted" "$T/user.log" && die "and did not see it unmounted"
let_go
for _ in $(seq 500); do readlink "/proc/$pid/exe" >/dev/null || break; sleep 0.02; done
readlink "/proc/$pid/exe" && die "the daemon did not end"
# Its own file has a lease; umount by the user.
go "$T/own"
hold
[ "$(leases)" = 1 ] || die "no lease on the user's own file"
let_go
for _ in $(seq 500); do as fusermount3 -u "$T/m" 2>/dev/null && break; sleep 0.02; done
there && die "still mounted after fusermount3 -u"
# After a crash: clean_stale, by fusermount3; auto_unmount.
go "$T/store"
kill -9 "$pid"
for _ in $(seq 500); do as stat -f "$T/m" 2>&1 | grep -q "not connected" && break; sleep 0.02; done
as "$APRFS" "$T/store" "$T/m" 2>"$T/err" && die "mounted over a dead mount"
grep 'run fusermount3 -u' "$T/err"
go -o clean_stale,auto_unmount "$T/store"
as cmp "$T/m/local/m/m.apr" "$T/witness.apr"
kill -9 "$pid"
for _ in $(seq 500); do there || break; sleep 0.02; done
there && die "auto_unmount left it"
# What it does not have it cannot keep, and says so.
for caps in read lease; do
    rc=0
    as "$APRFS" -o caps=$caps "$T/store" "$T/m" 2>"$T/err" || rc=$?
    [ $rc -eq 1 ] && grep "caps=: this process has no CAP_" "$T/err" || die "caps=$caps: exit status $rc: $(cat "$T/err")"
done
# allow_other is a sentence, before anything is mounted.
if ! grep -qx user_allow_other /etc/fuse.conf; then
    rc=0
    as "$APRFS" -o allow_other "$T/store" "$T/m" 2>"$T/err" || rc=$?
    [ $rc -eq 1 ] && grep "allow_other needs the line 'user_allow_other' in /etc/fuse.conf" "$T/err" || die "exit status $rc: $(cat "$T/err")"
    rc=0
    as "$APRFS" -o allow_root "$T/store" "$T/m" 2>"$T/err" || rc=$?
    [ $rc -eq 1 ] && grep "allow_root needs the line 'user_allow_other' in /etc/fuse.conf" "$T/err" || die "exit status $rc: $(cat "$T/err")"
    printf '# some\n  user_allow_other\t # for the models\n' >"$T/fuse.conf" # fusermount3 takes it, too
    mount --bind "$T/fuse.conf" /etc/fuse.conf
fi
go -o allow_other "$T/store"
cmp "$T/m/local/m/m.apr" "$T/witness.apr" # root, this time
as fusermount3 -u "$T/m"
IN
}

t_few_processes() { # a limit that leaves no room for a thread is an error, and never a mount that hangs
    [[ $B != *tsan ]] || skip "ThreadSanitizer needs a thread of its own"
    id backup >/dev/null 2>&1 || skip "no user backup"
    pgrep -u backup >/dev/null && skip "user backup has processes of its own"
    big_store "$T/store/m.gguf" 1 1
    mkdir "$T/m"
    chown backup "$T/m" 2>/dev/null || true
    unprivileged <<'IN'
there() { grep -qF " $T/m " /proc/self/mountinfo; }
trap 'umount -l "$T/m" 2>/dev/null || true' EXIT
n=2 ready=
until [ "$ready" = READY ]; do
    n=$((n + 1))
    [ $n -le 40 ] || die "40 processes were not enough: $(cat "$T/log")"
    rm -f "$T/ready"
    mkfifo "$T/ready"
    chmod 666 "$T/ready"
    setpriv --reuid backup --regid backup --clear-groups -- prlimit --nproc=$n \
        timeout -s KILL 60 "$APRFS" -f --ready-fd 9 "$T/store" "$T/m" >"$T/log" 2>&1 9>"$T/ready" &
    pid=$!
    ready=$(head -n 1 "$T/ready")
    [ "$ready" = READY ] && break
    rc=0
    wait $pid || rc=$?
    [ $rc -eq 1 ] || die "with $n processes: exit status $rc: $(cat "$T/log")"
    there || continue
    # Not even one for fusermount3: said, and left to whoever started it.
    grep -q "cannot be unmounted: Resource temporarily unavailable; run fusermount3" "$T/log" || die "with $n processes: left its mount"
    umount -l "$T/m"
done
echo "# works with $n processes"
setpriv --reuid backup --regid backup --clear-groups fusermount3 -u "$T/m"
wait $pid
IN
}

t_user_suite() { # tests of the mount, as nobody
    local what='truncated|replaced|t_link_targets|erofs|xattrs|ends_by_signal|after_kill|background|notifies|fstab_words|stat_is_true'
    [ "$LONG" = 1 ] && what=.
    mkdir "$T/tmp"
    chmod 1777 "$T/tmp"
    unprivileged <<IN
for script in mount mount_changes daemon; do
    as env -u GROUP TMPDIR="$T/tmp" B="$B" LONG="$LONG" tests/e2e_\$script.sh '$what' || true
done >"$T/tap" 2>&1
grep -E '^(ok|not ok|#)' "$T/tap" | sed 's/^/  /'
[ "\$(grep -c '^ok' "$T/tap")" -ge 10 ] && ! grep -E '^not ok|SKIP.*(fuse|permitted)' "$T/tap"
IN
}

t_container() { # seen from other mount name spaces; a source on overlayfs
    is_root
    unshare -m --propagation private true 2>/dev/null || skip "no mount name space of its own"
    big_store "$T/store/m.gguf" 4 1
    "$APRTOOL" convert -f "$T/store/m.gguf" "$T/witness.apr" >/dev/null
    T=$T APRFS=$APRFS APRTOOL=$APRTOOL apart private bash -eu <<'IN' || { [ $? -eq 76 ] && skip "no overlayfs here"; false; }
# What a container runtime does with a bind of propagation rshared: what is mounted later is seen inside.
mkdir "$T/host" "$T/inside" "$T/out"
mount --bind "$T/host" "$T/host"
mount --make-rshared "$T/host"
mkdir "$T/host/m"
mkfifo "$T/go" "$T/done"
unshare -m --propagation unchanged bash -eu -c '
    mount --rbind --make-rslave "$T/host" "$T/inside"
    echo >"$T/done"
    read -r _ <"$T/go"
    cmp "$T/inside/m/local/m/m.apr" "$T/witness.apr"
    cp "$T/inside/m/local/m/m.apr" "$T/out/"
    echo >"$T/done"
    read -r _ <"$T/go"
    rc=0
    mountpoint -q "$T/inside/m" && rc=1
    echo >"$T/done"
    exit $rc' &
inside=$!
read -r _ <"$T/done"
"$APRFS" "$T/store" "$T/host/m"
pid=$(sed -n 's/.*pid \([0-9]*\)$/\1/p' "$T/host/m/.aprfs/status.txt" | head -n 1)
echo >"$T/go"
read -r _ <"$T/done"
umount "$T/host/m" # gone in both
echo >"$T/go"
read -r _ <"$T/done"
wait $inside
for _ in $(seq 500); do readlink "/proc/$pid/exe" >/dev/null || break; sleep 0.02; done
readlink "/proc/$pid/exe" && { echo "FAILED: $pid lives on"; exit 1; }
# The store as a container sees it: a lower layer, and a copied-up file beside it.
mount -t tmpfs none "$T/out"
mkdir "$T/out/u" "$T/out/w" "$T/out/s" "$T/out/m"
mount -t overlay -o lowerdir="$T/store",upperdir="$T/out/u",workdir="$T/out/w" none "$T/out/s" || exit 76
cp "$T/store/m.gguf" "$T/out/s/upper.gguf"
"$APRFS" "$T/out/s" "$T/out/m"
cmp "$T/out/m/local/m/m.apr" "$T/witness.apr"
"$APRTOOL" convert "$T/out/s/upper.gguf" "$T/upper.apr" >/dev/null
cmp "$T/out/m/local/upper/upper.apr" "$T/upper.apr"
dd if="$T/out/m/local/upper/upper.apr" bs=1M iflag=direct status=none | cmp - "$T/upper.apr"
tier=$(python3 -c 'import os, sys; print(os.getxattr(sys.argv[1], "user.aprfs.tier").decode())' "$T/out/m/local/m/m.apr")
echo "# tier of a source on overlayfs: $tier"
case $tier in 2*) ;; *) exit 1 ;; esac
umount "$T/out/m"
IN
}

t_own_mount() { # a store that leads into its own mount: by a link, by another name of the same folder
    big_store "$T/store/m.gguf" 1 1
    mkdir "$T/in.mnt"
    ln -s "$T/in.mnt/local/m/m.gguf" "$T/store/again.gguf"
    start in "$T/store" -s -o gguf=file # one thread: to read itself would be the end
    big_store "$T/store/n.gguf" 1 2     # the next scan
    until_true 20 test -e "$M/local/n/n.apr"
    [ ! -e "$M/local/again" ]
    grep -P '^ELOOP\tagain.gguf\tin this mount itself' "$M/.aprfs/problems.txt"
    stop
    rm "$T/store/again.gguf"
    is_root
    unshare -m --propagation private true 2>/dev/null || skip "no mount name space of its own"
    mkdir "$T/up" "$T/up/store" "$T/up/alias"
    mv "$T/store/m.gguf" "$T/up/store/"
    T=$T APRFS=$APRFS B=$B apart private bash -eu <<'IN'
mount --bind "$T/up" "$T/up"
mount --make-rshared "$T/up" # as systemd makes /: what is mounted below one name shows below the other
mkdir "$T/up/store/m"
mount --bind "$T/up/store" "$T/up/alias"
"$APRFS" -o gguf=file "$T/up/store" "$T/up/alias/m"
for seed in 2 3; do
    "$B/tests/tool_store" --big "$T/up/store/n$seed.gguf" 1 $seed
    for _ in $(seq 500); do [ -e "$T/up/alias/m/local/n$seed/n$seed.apr" ] && break; sleep 0.02; done
done
[ "$(ls "$T/up/alias/m")" = local ] || { echo "FAILED: shows $(ls -R "$T/up/alias/m")"; exit 1; }
[ "$(ls "$T/up/alias/m/local" | wc -l)" = 3 ]
grep -P '^ELOOP\tm\tin this mount itself' "$T/up/alias/m/.aprfs/problems.txt"
umount "$T/up/alias/m"
IN
}

t_install() { # without the programs, which take a release build
    make -s install-mount DESTDIR="$T/root" PREFIX=/opt/a >/dev/null
    [ "$(readlink "$T/root/sbin/mount.aprfs")" = /opt/a/bin/aprfs ]
    grep -q '^ExecStart=/opt/a/bin/aprfs ' "$T/root/opt/a/lib/systemd/system/aprfs@.service"
    [ -s "$T/root/opt/a/share/doc/aprfs/examples/models.conf" ]
    local page
    for page in man1/aprfs.1 man8/mount.aprfs.8; do
        [ -s "$T/root/opt/a/share/man/$page" ] || fail "no $page"
        if command -v groff >/dev/null; then
            groff -man -Tutf8 -ww -z "$T/root/opt/a/share/man/$page" 2>"$T/groff"
            [ ! -s "$T/groff" ] || fail "$page: $(cat "$T/groff")"
        fi
    done
    make -s uninstall DESTDIR="$T/root" PREFIX=/opt/a
    [ -z "$(find "$T/root" -type f -o -type l)" ] || fail "uninstall leaves $(find "$T/root" -type f -o -type l)"
}

run life_daemon_gives_up_what_it_does_not_need t_sandbox
run life_large_texts_are_in_the_cache_folder t_cache_folder
run life_root_keeps_the_rights_it_was_told_to t_caps
run life_others_read_what_the_source_lets_them t_allow_other
run life_user_mounts_reads_and_ends t_user
run life_too_few_processes_are_an_error t_few_processes
run life_user_suite t_user_suite $((LONG ? 3600 : 400))
run life_container_sees_it_and_overlayfs_is_a_source t_container
run life_mount_does_not_show_itself t_own_mount
run life_install_is_what_mount_and_systemd_look_for t_install
tests_end
