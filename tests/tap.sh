# shellcheck shell=bash
# What the end-to-end scripts share: TAP lines, a scratch folder, a program's output, a mount. Source
# it from the repository's root. Gives: B (the build's folder, absolute), MODELS (real models), tmp (a
# folder that is removed at the end).
. tests/apart.sh
B=$(realpath "${B:-build/debug}")
MODELS=$(realpath -m "${APRFS_MODELS:-.cache/models}")
tmp=$(mktemp -d "${TMPDIR:-/var/tmp}/aprfs-tap.XXXXXX")
export XDG_CACHE_HOME=$tmp/cache # not the user's
mnt=
daemon=
tap_cleanup() {
    unmounted
    rm -rf --one-file-system "$tmp"
}
trap tap_cleanup EXIT
trap 'exit 130' INT TERM
n=0

ok() { # name: the status of the last command is the verdict
    local rc=$?
    n=$((n + 1))
    if [ $rc -eq 0 ]; then
        echo "ok $n - $1"
    else
        echo "not ok $n - $1"
        sed 's/^/# stderr: /' "$tmp/err" 2>/dev/null | cut -c1-300 | head -n 20
        head -c 96 "$tmp/out" 2>/dev/null | od -c | sed 's/^/# stdout: /'
    fi
}
skip() { # name, reason
    n=$((n + 1))
    echo "ok $n - $1 # SKIP $2"
}
tap_end() {
    echo "1..$n"
}

# Wanted exit status, then the command; stdin is $in (nothing), output in $tmp/out and $tmp/err.
expect() {
    local want=$1 rc
    shift
    "$@" >"$tmp/out" 2>"$tmp/err" <"${in:-/dev/null}"
    rc=$?
    [ $rc -eq "$want" ] || { echo "exit $rc, expected $want: $*" >>"$tmp/err"; return 1; }
}
out() { grep -qE -- "$1" "$tmp/out"; }
err() { grep -qE -- "$1" "$tmp/err"; }
silent() { [ ! -s "$tmp/out" ]; }
quiet() { [ ! -s "$tmp/err" ]; }
hex() { od -An -v -tx1 "$1" | tr -d ' \n'; }

# Mounts $1 on $2, with options $3 if there are any; false where that cannot be, and $why says why. A mount that fails for any other
# reason is a failed test.
mounted() {
    local line=
    why="no /dev/fuse that may be opened"
    [ -w /dev/fuse ] || return 1
    mkfifo "$tmp/ready"
    "$B/aprfs" -f --ready-fd 9 ${3:+-o "$3"} "$1" "$2" >"$tmp/daemon" 2>&1 9>"$tmp/ready" &
    daemon=$!
    mnt=$2
    read -r line <"$tmp/ready"
    rm -f "$tmp/ready"
    why="aprfs did not get ready: $(head -n 1 "$tmp/daemon")"
    [ "$line" = READY ] && return
    unmounted
    grep -qiE 'permission|not permitted' "$tmp/daemon" || { cp "$tmp/daemon" "$tmp/err"; false; ok aprfs_mounts; }
    return 1
}
unmounted() {
    [ -n "$mnt" ] && { fusermount3 -uq "$mnt" || umount -l "$mnt"; } 2>/dev/null
    [ -n "$daemon" ] && wait "$daemon" 2>/dev/null
    mnt=
    daemon=
}
