# shellcheck shell=bash
# What the end-to-end tests of the mount share: a scratch folder, daemons, stores, TAP. Source it from
# the repository's root, write functions, call run for each, and tests_end last:
#
#     . tests/mount.sh
#     t_something() { small_store "$T/store"; start m "$T/store"; cmp "$M/..." ...; stop; }
#     run mount_does_something t_something 60
#     tests_end
#
# A test runs in a subshell under set -e, in its own folder $T, process group and (where one may be
# made) control group; all it started is killed with these and nothing is left mounted, whatever
# happens. B: the build's folder. APRFS_MODELS: real models. LONG=1: the full counts. Arguments of the
# script, or ONLY: names of tests (regular expressions, functions' names too). TIMES=1: how long each took.
# KEEP=DIR: logs of failed tests, and what a test keeps, go there.
# Needs /dev/fuse and the right to mount; else every test is skipped with the reason.
. tests/cgroup.sh
. tests/apart.sh
B=$(realpath "${B:-build/debug}")
MODELS=$(realpath -m "${APRFS_MODELS:-.cache/models}")
LONG=${LONG:-0}
APRFS=$B/aprfs APRTOOL=$B/aprtool
W=$(mktemp -d "${TMPDIR:-/var/tmp}/aprfs-e2e.XXXXXX")
chmod 755 "$W"
export XDG_CACHE_HOME=$W/cache # not the user's
N=0
WANTED=("$@")
[ -z "${ONLY:-}" ] || WANTED+=("$ONLY")
GROUP= # of the running test
RUNNING= # its process group, and that of its time limit
set -m # every test is a process group of its own

mounts() { # mount points below $W, deepest first
    awk -v w="$W/" 'index($5, w) == 1 { print $5 }' /proc/self/mountinfo | sort -r
}

unmount_all() {
    local m
    for m in $(mounts); do
        fusermount3 -uqz "$m" 2>/dev/null || umount -l "$m" 2>/dev/null
    done
}

kill_daemons() { # FILE...: whose numbers stand there
    local p
    for p in $(cat "$@" 2>/dev/null); do
        [ "$(cat "/proc/$p/comm" 2>/dev/null)" = aprfs ] && kill -9 "$p" 2>/dev/null
    done
}

cleanup() {
    local p
    for p in $RUNNING; do # before what it started, or it would start the next
        kill -9 -- "-$p" 2>/dev/null
    done
    unmount_all
    kill_daemons "$W"/*/pids
    [ -z "$GROUP" ] || cg_kill "$GROUP"
    for p in $(losetup -nO NAME,BACK-FILE 2>/dev/null | awk -v w="$W/" 'index($2, w) == 1 { print $1 }'); do
        losetup -d "$p"
    done
    rm -rf --one-file-system "$W"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

keep() { # FILE...: beside the logs of failed tests
    [ -z "${KEEP:-}" ] || { mkdir -p "$KEEP/${T##*/}" && cp "$@" "$KEEP/${T##*/}/"; }
}

skip() { echo "$*" >"$T/skip"; exit 77; }
fail() { echo "FAILED: $*"; exit 1; }

wanted() { # NAME FUNCTION
    local w
    [ ${#WANTED[@]} -gt 0 ] || return 0
    for w in "${WANTED[@]}"; do
        [[ $1 =~ $w || $2 =~ $w ]] && return 0
    done
    return 1
}

# run NAME FUNCTION [SECONDS]: one test in $T, its own folder.
run() {
    local name=$1 fn=$2 limit=${3:-100} pid rc dog t0
    t0=$(date +%s%N)
    wanted "$name" "$fn" || return 0
    ! sanitized || limit=$((limit * 3)) # beside three other programs: only a test that hangs is to feel it
    N=$((N + 1))
    T=$W/$fn
    mkdir -p "$T"
    if [ -n "$WHY_NOT" ]; then
        echo "ok $N - $name # SKIP $WHY_NOT"
        return
    fi
    GROUP=$(cg_new "$N") || GROUP=
    (trap - EXIT INT TERM; [ -z "$GROUP" ] || cg_enter "$GROUP"; set -eE; trap 'echo "FAILED: line $LINENO: $BASH_COMMAND"' ERR; "$fn") >"$T/log" 2>&1 </dev/null &
    pid=$!
    (trap - EXIT INT TERM; sleep "$limit"; echo "no end after $limit s" >>"$T/log"; stacks "$pid" >>"$T/log"; kill -9 -- "-$pid") 2>/dev/null &
    dog=$!
    RUNNING="$pid $dog"
    wait "$pid" 2>/dev/null
    rc=$?
    kill -- "-$dog" 2>/dev/null
    wait "$dog" 2>/dev/null
    RUNNING=
    unmount_all
    [ -z "$GROUP" ] || cg_kill "$GROUP" >>"$T/log"
    GROUP=
    if [ $rc -eq 0 ] && unexpected >>"$T/log"; then
        rc=1
    fi
    if [ $rc -eq 77 ]; then
        echo "ok $N - $name # SKIP $(cat "$T/skip")"
    elif [ $rc -eq 0 ]; then
        grep '^# ' "$T/log" # figures
        echo "ok $N - $name"
    else
        echo "not ok $N - $name"
        sed 's/^/# /' "$T/log" | tail -n 80
        local d
        for d in "$T"/*.daemon; do
            [ -e "$d" ] && { echo "# ${d##*/}:"; grep -v 'no tokenizer.json' "$d" | tail -n 25 | sed 's/^/#   /'; }
        done
        keep "$T/log" "$T"/*.daemon 2>/dev/null
    fi
    [ -z "${TIMES:-}" ] || echo "# $fn: $((($(date +%s%N) - t0) / 1000000)) ms"
    kill_daemons "$T/pids"
    rm -rf --one-file-system "$T" # the copies of all tests of a long run filled the disk
}

# tests_end: the plan; names that are no test's are a failure.
tests_end() {
    echo "1..$N"
    [ $N -gt 0 ] || { echo "no test is called: ${WANTED[*]}" >&2; exit 1; }
}

# unexpected: what no daemon says, in any test: lines that are not ours (a sanitizer's, libfuse's, the C
# library's), and ours that tell of a mistake of ours.
unexpected() {
    grep -h . "$T"/*.daemon 2>/dev/null | grep -vE '^(aprfs|mount\.aprfs|fusermount3): ' && return
    grep -hE 'AddressSanitizer|ThreadSanitizer|LeakSanitizer|runtime error|[Ii]nternal error|Bad file descriptor|Bad address|Function not implemented|sandbox: refused|differs$' \
        "$T"/*.daemon 2>/dev/null
}

stacks() { # LEADER: where every thread of the test and of its daemons stands
    local p t
    for p in $(cat "$T/pids" 2>/dev/null) $(pgrep -g "$1") $([ -z "$GROUP" ] || cat "$GROUP/cgroup.procs"); do echo "$p"; done |
        sort -un | while read -r p; do
        echo "process $p: $(tr '\0' ' ' <"/proc/$p/cmdline")"
        for t in /proc/"$p"/task/*; do
            echo "thread ${t##*/} $(cat "$t/wchan" 2>/dev/null) $(awk '{ print $3 }' "$t/stat")"
            sed 's/^/    /' "$t/stack"
        done
    done 2>/dev/null
}

# start NAME STORE [OPTION...]: a daemon in the foreground, so that its words are kept; M, PID.
# An empty STORE: the sources are among the OPTIONs.
start() {
    local name=$1 store=$2 line
    shift 2
    M=$T/$name.mnt
    mkdir -p "$M"
    rm -f "$T/$name.ready"
    mkfifo "$T/$name.ready"
    "$APRFS" -f --ready-fd 9 "$@" ${store:+"$store"} "$M" >"$T/$name.daemon" 2>&1 9>"$T/$name.ready" &
    PID=$!
    echo $PID >>"$T/pids"
    read -r line <"$T/$name.ready" || fail "no READY: $(cat "$T/$name.daemon")"
    [ "$line" = READY ] || fail "ready-fd says '$line'"
}

# unmount DIR: what df, lsof and their like hold for a moment while they look at every mount is waited out.
unmount() {
    until_true 10 fusermount3 -u "$1" || fail "unmount: $(fusermount3 -u "$1" 2>&1) $(fuser -vm "$1" 2>&1)"
}

# stop: unmounts M and wants exit status 0.
stop() {
    unmount "$M"
    local rc=0
    wait "$PID" || rc=$?
    [ $rc -eq 0 ] || fail "daemon's exit status $rc"
}

is_root() { [ "$(id -u)" = 0 ] || skip "not root"; }
rc_of() { RC=0; "$@" >"$T/out" 2>&1 || RC=$?; }
# refuses STATUS TEXT COMMAND...
refuses() {
    local want=$1 text=$2
    shift 2
    rc_of "$@"
    [ "$RC" = "$want" ] || fail "$*: exit status $RC, expected $want: $(cat "$T/out")"
    [ -z "$text" ] || grep -qF -- "$text" "$T/out" || fail "$*: says '$(cat "$T/out")', expected '$text'"
}

xattr() { python3 -c 'import os,sys; sys.stdout.write(os.getxattr(sys.argv[1], "user.aprfs." + sys.argv[2]).decode())' "$1" "$2"; }
stat_of() { awk -v k="$2" '$1 == k { print $2 }' "$1/.aprfs/stats.txt"; }

# The kernel does not wait for the answer to a close: what counts open files follows.
open_files_are() { [ "$(stat_of "$M" open_files)" = "$1" ]; }
# until SECONDS COMMAND...: true as soon as the command is.
until_true() {
    local end=$(($(date +%s%N) + $1 * 1000000000))
    shift
    while ! "$@" >/dev/null 2>&1; do
        [ "$(date +%s%N)" -lt "$end" ] || return 1
        sleep 0.02
    done
}

# small_store DIR: a plain folder of small models of every kind.
small_store() { mkdir -p "$1"; "$B/tests/tool_store" "$1"; }

# models: prints the folder of a script's small store, made once.
models() {
    [ -d "$W/models" ] || small_store "$W/models"
    echo "$W/models"
}

# put FROM TO: a model of the small store at another place, renamed there as programs do.
put() {
    mkdir -p "$(dirname "$2")"
    cp "$(models)/$1.gguf" "$2.part"
    mv "$2.part" "$2"
}

# big_store FILE MIB SEED: one model; the same head for every SEED, other tensor bytes.
big_store() { # FILE MIB SEED
    mkdir -p "$(dirname "$1")"
    "$B/tests/tool_store" --big "$1.new" "$2" "$3"
    mv "$1.new" "$1"
}

# witness APR OUT [aprtool options]: the same file by the writer that is not the mount.
witness() {
    local src
    src=$(xattr "$1" source | head -n 1)
    shift_out=$2
    local apr=$1
    shift 2
    "$APRTOOL" convert -f "$@" "$src" "$shift_out" >/dev/null || fail "convert $src for $apr"
}

# Sanitizers slow everything down ten times: they get fewer bytes and the same paths.
brief() { sanitized && [ "$LONG" != 1 ]; }
sanitized() { [[ $B == *asan || $B == *tsan ]]; }

# Equal to the witness by every way to read a file at its whole length.
same_by_every_way() { # FILE WITNESS
    cmp "$1" "$2"
    local want
    want=$(sha256sum <"$2")
    [ "$(dd if="$1" bs=4k 2>/dev/null | sha256sum)" = "$want" ] || fail "dd bs=4k of $1"
    [ "$(dd if="$1" bs=1M 2>/dev/null | sha256sum)" = "$want" ] || fail "dd bs=1M of $1"
    [ "$(dd if="$1" bs=1M iflag=direct 2>/dev/null | sha256sum)" = "$want" ] || fail "O_DIRECT of $1"
    rm -f "$T/copy"
    cp "$1" "$T/copy"
    [ "$(sha256sum <"$T/copy")" = "$want" ] || fail "cp of $1"
    [ "$(python3 -c 'import hashlib,mmap,sys
f = open(sys.argv[1], "rb")
print(hashlib.sha256(mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)).hexdigest() + "  -")' "$1")" = "$want" ] || fail "mmap of $1"
}

WHY_NOT=
[ -e /dev/fuse ] || WHY_NOT="no /dev/fuse here"
if [ -z "$WHY_NOT" ]; then
    mkdir "$W/probe" "$W/probe.store"
    if ! "$APRFS" "$W/probe.store" "$W/probe" 2>"$W/probe.err"; then
        if grep -qiE 'permission|not permitted' "$W/probe.err"; then
            WHY_NOT="mounting is not permitted here: $(head -n 1 "$W/probe.err")"
        else
            echo "# $(cat "$W/probe.err")" # and the tests fail
        fi
    fi
    unmount_all
fi
