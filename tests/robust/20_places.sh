# shellcheck shell=bash
# 20: seen through a bind mount and in another name space; a source on overlayfs.

r_bind_and_namespace() {
    [ "$(id -u)" = 0 ] || skip "not root"
    unshare -m true 2>/dev/null || skip "no name spaces of its own"
    big_store "$T/store/m.gguf" 4 1
    "$APRTOOL" convert -f "$T/store/m.gguf" "$T/witness.apr" >/dev/null
    # What a container with rshared sees: a mount made later, outside.
    mkdir "$T/shared" "$T/bound" "$T/go"
    mount --bind "$T/shared" "$T/shared"
    mount --make-rshared "$T/shared"
    mkfifo "$T/go/in" "$T/go/out"
    T=$T apart slave bash -eu -c '
        echo ready >"$T/go/out"
        read -r _ <"$T/go/in"
        cmp "$T/shared/mnt/local/m/m.apr" "$T/witness.apr"
        echo same >"$T/go/out"
        read -r _ <"$T/go/in"
        [ -z "$(ls "$T/shared/mnt")" ]' &
    local child=$! said rc=0
    read -r said <"$T/go/out"
    mkdir "$T/shared/mnt"
    "$APRFS" "$T/store" "$T/shared/mnt"
    sed -n 's/.*pid \([0-9]*\)$/\1/p' "$T/shared/mnt/.aprfs/status.txt" | head -n 1 >>"$T/pids"
    echo go >"$T/go/in"
    read -r said <"$T/go/out"
    [ "$said" = same ]
    # And a bind of it, which outlives the first mount point.
    mount --bind "$T/shared/mnt" "$T/bound"
    cmp "$T/bound/local/m/m.apr" "$T/witness.apr"
    unmount "$T/shared/mnt"
    cmp "$T/bound/local/m/m.apr" "$T/witness.apr"
    echo go >"$T/go/in"
    wait $child || rc=$?
    [ $rc = 0 ] || fail "the other name space: exit status $rc"
    umount "$T/bound"
    umount "$T/shared"
}

r_overlay() {
    [ "$(id -u)" = 0 ] || skip "not root"
    big_store "$T/lower/m.gguf" 4 1
    mkdir "$T/upper" "$T/work" "$T/store"
    mount -t overlay overlay -o "lowerdir=$T/lower,upperdir=$T/upper,workdir=$T/work" "$T/store" 2>/dev/null ||
        skip "no overlayfs here"
    big_store "$T/store/n.gguf" 4 2
    start m "$T/store"
    local n
    for n in m n; do
        witness "$M/local/$n/$n.apr" "$T/witness.apr"
        same_by_every_way "$M/local/$n/$n.apr" "$T/witness.apr"
    done
    case $(xattr "$M/local/m/m.apr" tier) in 2*) ;; *) fail "tier $(xattr "$M/local/m/m.apr" tier) on overlayfs" ;; esac
    # Copy-up is a replacement: new bytes or an error for the old handle, never a mix.
    exec 5<"$M/local/m/m.apr"
    big_store "$T/store/m.gguf" 4 3
    follows() { "$APRTOOL" convert -f "$T/store/m.gguf" "$T/witness.apr" && cmp "$M/local/m/m.apr" "$T/witness.apr"; }
    until_true 20 follows || fail "a file replaced on overlayfs is not followed"
    exec 5<&-
    stop
    umount "$T/store"
}
