# shellcheck shell=bash
# apart private|slave COMMAND...: in a mount name space of its own, in which other tests' mounts are not.
# A name space begins with a copy of every mount, and a copy keeps the mount's superblock: the daemon of
# another test that unmounts meanwhile would not end before this COMMAND does. (Never "shared" or
# "unchanged": what is dropped from the copy would be unmounted everywhere.)
apart() {
    # shellcheck disable=SC2016
    unshare -m --propagation "$1" bash -c '
        awk -v own="$1/" "index(\$5, own) != 1 && (\$5 ~ /\/aprfs-(e2e|tap)\./ || / - fuse.aprfs /) { print \$5 }" \
            /proc/self/mountinfo | sort -r | while read -r m; do umount -l "$(printf %b "$m")"; done
        shift
        exec "$@"' apart "${W:-$tmp}" "${@:2}"
}
