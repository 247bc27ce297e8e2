#!/usr/bin/env bash
# What the mount sees of its sources by itself, and when: sources that go and come, file systems that tell
# nothing, watches and queues that run out. TAP; see tests/mount.sh for the words of the environment.
set -u
cd "$(dirname "$0")/.." || exit 2
. tests/mount.sh

watching() { sed -n 's/^watching: //p' "$M/.aprfs/status.txt"; }
scans() { stat_of "$M" scans; }
settled() { local n; n=$(scans); sleep 0.4; [ "$(scans)" = "$n" ]; }

t_without_a_source() {
    put tied-qwen2 "$T/a/p/m/x.gguf"
    put f16-norms "$T/b/p/y/y.gguf"
    start m "" -o ttl=0 "$T/a" "$T/b"
    local ino
    ino=$(stat -c %i "$M/b/p/y/y.apr")
    mv "$T/b" "$T/away"
    until_true 10 test ! -e "$M/b/p"
    [ "$(ls "$M")" = $'a\nb' ] || fail "$(ls "$M")" # it is a source, gone or not
    grep -qP "^ENOENT\tb/\.\t.*$T/b: No such file" "$M/.aprfs/problems.txt" || fail "$(cat "$M/.aprfs/problems.txt")"
    put phi3-fused "$T/a/p/z/z.gguf"
    until_true 10 test -e "$M/a/p/z/z.apr"
    mv "$T/away" "$T/b" # nobody tells of that
    until_true 10 test -e "$M/b/p/y/y.apr"
    [ "$(stat -c %i "$M/b/p/y/y.apr")" = "$ino" ]
    grep -q ENOENT "$M/.aprfs/problems.txt" && fail "$(cat "$M/.aprfs/problems.txt")"
    put phi3-fused "$T/b/p/z/z.gguf" # and it is watched again
    until_true 10 test -e "$M/b/p/z/z.apr"
    stop
}

# A source behind FUSE (ours), one on the disk. With ttl=3600 only inotify can bring the second's news;
# with a short one the first's come when somebody looks.
t_by_ttl() {
    put tied-qwen2 "$T/inner/p/m/x.gguf"
    put f16-norms "$T/local/p/y/y.gguf"
    start inner "$T/inner" -o gguf=file
    local inner=$M inner_pid=$PID n
    start far "" -o ttl=3600 "$inner" "$T/local"
    [ "$(watching)" = "inotify; inner.mnt by ttl (FUSE)" ] || fail "$(watching)"
    put phi3-fused "$T/inner/p/z/z.gguf"
    until_true 10 test -e "$inner/p/z/z.apr"
    put phi3-fused "$T/local/p/z/z.gguf"
    until_true 10 test -e "$M/local/p/z/z.apr" # so all sources were scanned
    cmp "$M/inner.mnt/p/z/z.gguf" "$T/inner/p/z/z.gguf"
    until_true 20 settled # no scan of these news is left that would see the next
    rm "$T/inner/p/z/z.gguf"
    until_true 10 test ! -e "$inner/p/z/z.apr"
    n=$(scans)
    [ -e "$M/inner.mnt/p/z/z.apr" ] # not looked at, and nobody told
    [ "$(scans)" = "$n" ]
    kill -HUP "$PID"
    until_true 10 test ! -e "$M/inner.mnt/p/z/z.apr"
    stop
    start near "" -o ttl=1 "$inner" "$T/local"
    put phi3-fused "$T/inner/p/z/z.gguf"
    until_true 20 test -e "$M/inner.mnt/p/z/z.apr"
    stop
    M=$inner PID=$inner_pid
    stop
}

# The server dies: what it had stays in the listing, readers get an error, and it serves again once it is
# back; a folder below a source that is on the disk, and a source of its own.
t_dead_server() {
    put tied-qwen2 "$T/inner/p/m/x.gguf"
    put f16-norms "$T/local/q/y/y.gguf"
    mkdir "$T/local/net"
    local inner=$T/local/net i_pid
    "$APRFS" -f --ready-fd 9 -o gguf=file "$T/inner" "$inner" 9> >(read -r _; touch "$T/up") 2>"$T/inner.log" &
    i_pid=$!
    echo $i_pid >>"$T/pids"
    until_true 20 test -e "$T/up"
    start m "" -o ttl=1 "$T/local" "$inner"
    local f g
    f=$(find "$M/local" -name x.apr) g=$(find "$M/net" -name x.apr)
    [ -n "$f" ] && [ -n "$g" ] || fail "$(find "$M")"
    kill -9 $i_pid
    wait $i_pid || true
    put phi3-fused "$T/local/q/z/z.gguf"
    until_true 10 test -e "$M/local/q/z/z.apr"
    until_true 10 grep -qP '^ENOTCONN\tlocal/net\t' "$M/.aprfs/problems.txt" || fail "$(cat "$M/.aprfs/problems.txt")"
    grep -qP '^ENOTCONN\tnet/\.\t.*shown as it was' "$M/.aprfs/problems.txt" || fail "$(cat "$M/.aprfs/problems.txt")"
    [ -e "$f" ] && [ -e "$g" ] || fail "$(find "$M")"
    if cat "$f" >/dev/null 2>"$T/err"; then fail "read from a dead server"; fi
    [ -e "$f" ] || fail "a reader's error took the name away"
    fusermount3 -u "$inner" || umount -l "$inner"
    "$APRFS" -f --ready-fd 9 -o gguf=file "$T/inner" "$inner" 9> >(read -r _; touch "$T/up2") 2>"$T/inner2.log" &
    i_pid=$!
    echo $i_pid >>"$T/pids"
    until_true 20 test -e "$T/up2"
    back() { ! grep -q ENOTCONN "$M/.aprfs/problems.txt" && cmp "${f%.apr}.gguf" "$T/inner/p/m/x.gguf"; }
    until_true 20 back || fail "$(cat "$M/.aprfs/problems.txt"; find "$M")"
    stop
    unmount "$inner"
    wait $i_pid || true
}

# More events than the queue has room for, all of a kind that starts no scan: only that they ran over can.
t_overflow() {
    put tied-qwen2 "$T/store/p/m/x.gguf"
    : >"$T/store/p/m/a.log"
    : >"$T/store/p/m/b.log"
    start m "$T/store" -o ttl=0
    local max
    max=$(cat /proc/sys/fs/inotify/max_queued_events)
    [ "$max" -le 200000 ] || skip "fs.inotify.max_queued_events is $max: too many events to make"
    until_true 20 settled
    kill -STOP "$PID"
    python3 - "$T/store/p/m" "$max" <<'PY'
import os, sys
d, n = sys.argv[1], int(sys.argv[2])
fds = [os.open(d + "/" + f, os.O_WRONLY) for f in ("a.log", "b.log")]
for i in range(n + 100): # one after the other: equal neighbours would be one event
    os.write(fds[i & 1], b"x")
os._exit(0) # closed with the queue full: these events are lost as well
PY
    put phi3-fused "$T/store/p/z/z.gguf" # and this one
    kill -CONT "$PID"
    until_true 20 test -e "$M/p/z/z.apr" || fail "$(cat "$M/.aprfs/stats.txt")"
    [ "$(stat_of "$M" event_overflows)" = 1 ] || fail "$(cat "$M/.aprfs/stats.txt")"
    stop
}

# No watch left for this user (in a user name space of its own, where that can be said): by TTL, and by
# inotify again once there are enough.
t_no_watches() {
    put tied-qwen2 "$T/store/p/m/x.gguf"
    put f16-norms "$T/small/y.gguf"
    mkdir "$T/m" "$T/store/q"
    unshare -Urm true 2>/dev/null || skip "no user name space may be made here"
    unshare -Urm sh -c 'echo 100 >/proc/sys/user/max_inotify_watches' 2>/dev/null ||
        skip "a user name space here has no limit of its own for watches"
    local rc=0 apart= # what is copied into a user name space cannot be dropped there
    [ "$(id -u)" != 0 ] || apart="apart private"
    T=$T B=$B APRFS=$APRFS W=$W $apart unshare -Urm bash -eu <<'IN_NAMESPACE' || rc=$?
limit=/proc/sys/user/max_inotify_watches
echo 2 >$limit # store has three folders, small one
"$APRFS" -o ttl=1 "$T/store" "$T/small" "$T/m" 2>"$T/m.daemon" || { cat "$T/m.daemon"; exit 77; }
status() { sed -n 's/^watching: //p' "$T/m/.aprfs/status.txt"; }
wait_for() { for i in $(seq 500); do "$@" && return; sleep 0.02; done; echo "waited for $*: $(status)"; exit 1; }
[ "$(status)" = "inotify; store by ttl (all inotify watches of this user are in use: fs.inotify.max_user_watches)" ] || { status; exit 1; }
mkdir "$T/store/p/z"
cp "$W/models/phi3-fused.gguf" "$T/store/p/z/z.gguf"
wait_for test -e "$T/m/store/p/z/z.apr"
[ "$(awk '$1 == "watched_directories" { print $2 }' "$T/m/.aprfs/stats.txt")" = 1 ] || exit 1
echo 100 >$limit
again() { ls "$T/m" >/dev/null; [ "$(status)" = inotify ]; }
wait_for again
first=$(sed -n 's/^aprfs .*, pid //p' "$T/m/.aprfs/status.txt")
umount "$T/m"
ended() { [ ! -e "/proc/$first" ]; } # with its watches
wait_for ended
echo 4 >$limit # store has five folders, three of them the other source's as well
"$APRFS" -o ttl=0 "$T/store" "$T/store/p" "$T/m" 2>"$T/m.daemon" || { cat "$T/m.daemon"; exit 1; }
scans() { awk '$1 == "scans" { print $2 }' "$T/m/.aprfs/stats.txt"; }
settled() { n=$(scans); sleep 0.4; [ "$(scans)" = "$n" ]; }
wait_for settled
[ "$(status)" = "inotify; store by ttl (all inotify watches of this user are in use: fs.inotify.max_user_watches)" ] || { status; exit 1; }
umount "$T/m"
IN_NAMESPACE
    [ $rc -ne 77 ] || skip "cannot mount in a user name space: $(head -n 1 "$T/m.daemon")"
    return $rc
}

# A link whose target is not there yet, by way of another link: both ends and the middle are watched.
t_links() {
    mkdir -p "$T/store/x" "$T/mid" "$T/data"
    ln -s ../../mid/link "$T/store/x/a.gguf"
    ln -s ../data/m.gguf "$T/mid/link"
    start m "$T/store" -o ttl=0
    local f=$M/local/x/a.apr
    [ ! -e "$f" ]
    grep -qP '^ENOENT\tx/a.gguf\t' "$M/.aprfs/problems.txt" || fail "$(cat "$M/.aprfs/problems.txt")"
    put tied-qwen2 "$T/data/m.gguf"
    until_true 10 cmp "${f%.apr}.gguf" "$T/data/m.gguf"
    until_true 10 test -e "$f"
    put f16-norms "$T/data/n.gguf"
    ln -s ../data/n.gguf "$T/mid/new"
    mv -T "$T/mid/new" "$T/mid/link"
    # shellcheck disable=SC2016
    until_true 10 eval '[ "$(xattr "$f" part_generation | cut -d: -f2)" = "$(stat -c %i "$T/data/n.gguf")" ]'
    stop
}

# A disk that is mounted where a source is, or below: inotify says nothing of that.
t_mounted() {
    mount --bind "$W" "$W" 2>/dev/null && umount "$W" || skip "nothing may be mounted here"
    put tied-qwen2 "$T/disk/p/m/x.gguf"
    put f16-norms "$T/store/p/y/y.gguf"
    mkdir "$T/store/usb" "$T/empty"
    start m "" -o ttl=0 "$T/store" "$T/empty"
    mount --bind "$T/disk" "$T/store/usb"
    until_true 10 test -e "$M/store/usb/p+m/x.apr" || fail "$(find "$M")"
    mount --bind "$T/disk" "$T/empty"
    until_true 10 test -e "$M/empty/p/m/x.apr" || fail "$(find "$M")"
    put phi3-fused "$T/disk/p/z/z.gguf" # and what is mounted is watched
    until_true 10 test -e "$M/empty/p/z/z.apr"
    until_true 20 umount "$T/store/usb" # a scan may be in it
    until_true 10 test ! -e "$M/store/usb"
    until_true 20 umount "$T/empty"
    until_true 10 test ! -e "$M/empty/p"
    [ -e "$M/store/p/y/y.apr" ]
    stop
}

# A folder on the way is closed to others: what they may read is what the mount may show them, at once
# and not when the kernel happens to ask again.
t_chmod() {
    [ "$(id -u)" = 0 ] || skip "only root's allow_other shows the sources' own modes"
    put tied-qwen2 "$T/store/p/m/x.gguf"
    chmod 755 "$T/store/p" "$T/store/p/m"
    chmod 644 "$T/store/p/m/x.gguf"
    start m "$T/store" -o allow_other,ttl=0
    local f=$M/p/m/x.apr ino
    [ "$(stat -c %a "$f")" = 444 ] || fail "$(stat "$f")"
    ino=$(stat -c %i "$f")
    # shellcheck disable=SC2016
    chmod 700 "$T/store/p"
    mode_is() { [ "$(stat -c %a "$f")" = "$1" ]; }
    until_true 10 mode_is 400 || fail "$(stat "$f")"
    [ "$(stat -c %i "$f")" = "$ino" ]
    chmod 755 "$T/store/p"
    until_true 10 mode_is 444 || fail "$(stat "$f")"
    chmod 600 "$T/store/p/m/x.gguf" # the file itself
    until_true 10 mode_is 400 || fail "$(stat "$f")"
    stop
}

# What is closed to us is hidden, with a line that says whose it is: also by a daemon that has locked
# itself in by then.
t_closed() {
    put tied-qwen2 "$T/store/p/m/x.gguf"
    put f16-norms "$T/store/p/y/y.gguf"
    mkdir "$T/store/p/z"
    local owner
    owner=$(id -un)
    start m "$T/store" -o ttl=0
    if [ "$(id -u)" = 0 ]; then
        owner=nobody
        chown nobody "$T/store/p/m/x.gguf" "$T/store/p/z"
        chmod 700 "$T/store/p/z"
        chmod 600 "$T/store/p/m/x.gguf"
    else
        chmod 0 "$T/store/p/z" "$T/store/p/m/x.gguf"
    fi
    until_true 10 test ! -e "$M/p/m/x.apr"
    until_true 10 grep -qP '^EACCES\tp/z\t' "$M/.aprfs/problems.txt"
    grep -qP "^EACCES\tp/m/x.gguf\t.*owned by $owner, mode 0" "$M/.aprfs/problems.txt" || fail "$(cat "$M/.aprfs/problems.txt")"
    grep -qP "^EACCES\tp/z\t.*owned by $owner, mode 0" "$M/.aprfs/problems.txt" || fail "$(cat "$M/.aprfs/problems.txt")"
    [ -e "$M/p/y/y.apr" ]
    chmod 755 "$T/store/p/z"
    stop
}

# A listing that the kernel keeps asks us nothing, and a change ends it at once, for handles that were
# open before it too; while such a one is open no new listing is kept.
t_listing() {
    put tied-qwen2 "$T/s/p/m/x.gguf"
    put tied-qwen2 "$T/s/p/n/y.gguf"
    start m "$T/s"
    python3 - "$M" "$T/s" <<'PY'
import os, shutil, sys, time
mnt, store = sys.argv[1:]
where = mnt + "/p"

def asked():
    return sum(int(l.split()[1]) for l in open(mnt + "/.aprfs/metrics")
               if l.startswith('aprfs_requests_total{op="readdir'))

def listed(what, want):
    got = sorted(os.listdir(what))
    assert got == want, (got, want)

def generation():
    return os.getxattr(mnt, "user.aprfs.generation")

def requests_of_a_listing(want):
    n = asked()
    listed(where, want)
    return asked() - n

def until(cond):
    t = time.monotonic()
    while not cond():
        assert time.monotonic() < t + 20
        time.sleep(0.002)

assert requests_of_a_listing(["m", "n"]) > 0
assert requests_of_a_listing(["m", "n"]) == 0, "not kept"
fresh, used = os.open(where, os.O_RDONLY), os.open(where, os.O_RDONLY)
listed(used, ["m", "n"])
before = generation()
os.makedirs(store + "/p/o")
shutil.copy2(store + "/p/m/x.gguf", store + "/p/o/x.gguf") # no new time for the directory to show
until(lambda: sorted(os.listdir(used)) == ["m", "n", "o"]) # though nobody else looks there
until(lambda: generation() != before)
until(lambda: requests_of_a_listing(["m", "n", "o"]) > 0)
assert requests_of_a_listing(["m", "n", "o"]) > 0, "kept, though a handle of before the change is open"
listed(fresh, ["m", "n", "o"]) # read from the start for the first time
os.close(fresh)
os.close(used)
until(lambda: requests_of_a_listing(["m", "n", "o"]) == 0) # handles are released a little later
# Who stands in a directory that goes; who waits for the generation of it sees all of it.
os.chdir(where + "/n")
inside = os.open(".", os.O_RDONLY)
assert "y.apr" in os.listdir(".") and "y.apr" in os.listdir(inside)
before = generation()
shutil.rmtree(store + "/p/n")
until(lambda: generation() != before)
listed(where, ["m", "o"])
listed(".", [])
listed(inside, [])
os.chdir("/")
os.close(inside)
PY
    stop
}

# Who reads a directory in pieces while names come and go gets each that stays exactly once.
t_in_pieces() {
    local i
    for i in $(seq 100 219); do put tied-qwen2 "$T/s/p/m$i/x.gguf"; done
    start m "$T/s"
    python3 - "$M" "$T/s" <<'PY'
import ctypes, os, shutil, sys, time
mnt, store = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)

def some(fd, size): # getdents64: names, and where the next ones are
    buf = ctypes.create_string_buffer(size)
    n = libc.syscall(217 if os.uname().machine == "x86_64" else 61, fd, buf, size)
    assert n >= 0, os.strerror(ctypes.get_errno())
    names, at = [], 0
    while at < n:
        length = int.from_bytes(buf.raw[at + 16:at + 18], "little")
        names.append(buf.raw[at + 19:at + length].split(b"\0")[0].decode())
        at += length
    return names

def whole(fd, names):
    while True:
        more = some(fd, 4096)
        if not more:
            return names
        names += more

def check(names, stay, go):
    assert len(names) == len(set(names)), sorted(n for n in names if names.count(n) > 1)
    assert stay <= set(names) <= stay | go | {".", ".."}, sorted(stay ^ set(names))

where = mnt + "/p"
first = {"m%d" % i for i in range(100, 220)}
fds = [os.open(where, os.O_RDONLY) for _ in range(3)]
begun = [some(fds[0], 256), some(fds[1], 1024), []] # the last one begins when all is over
gone = {"m%d" % i for i in range(100, 220, 3)}
new = {"k%d" % i for i in range(40)} | {"z%d" % i for i in range(40)}
for n in gone:
    shutil.rmtree(store + "/p/" + n)
for n in new:
    os.makedirs(store + "/p/" + n)
    shutil.copy(store + "/p/m101/x.gguf", store + "/p/%s/x.gguf" % n)
t = time.monotonic()
while set(os.listdir(where)) != first - gone | new:
    assert time.monotonic() < t + 20
    time.sleep(0.01)
for fd, names in zip(fds, begun):
    check(whole(fd, names), first - gone, gone | new)
    os.lseek(fd, 0, os.SEEK_SET)
    check(whole(fd, []), first - gone | new, set())
# A place in a listing is good in another one: an NFS server has no handle to come back to.
a = os.open(where, os.O_RDONLY)
names = some(a, 1024)
place = os.lseek(a, 0, os.SEEK_CUR)
shutil.rmtree(store + "/p/" + [n for n in names if n not in (".", "..")][0])
t = time.monotonic()
while len(os.listdir(where)) == len(first - gone | new):
    assert time.monotonic() < t + 20
    time.sleep(0.01)
b = os.open(where, os.O_RDONLY)
os.lseek(b, place, os.SEEK_SET)
check(whole(b, names), first - gone | new, set())
PY
    stop
}

run watch_goes_on_without_a_source t_without_a_source
run watch_looks_at_network_sources_by_ttl t_by_ttl
run watch_keeps_what_a_dead_server_had t_dead_server
run watch_follows_links_before_they_lead_anywhere t_links
run watch_sees_a_disk_that_is_mounted t_mounted
run watch_overflow_rescans t_overflow
run watch_without_watches_goes_by_ttl t_no_watches
run watch_shows_who_may_read_at_once t_chmod
run watch_says_who_closed_a_file t_closed
run watch_renews_listings_that_the_kernel_keeps t_listing
run watch_lists_in_pieces t_in_pieces
tests_end
