#!/usr/bin/env bash
# Real programs on the mount: what they read, copy, list and count is what the other writer's file holds.
# Prints TAP; a program that is not installed is skipped by name. Names of tests as arguments: only these.
# PYTHON: an interpreter that has the gguf package (else that test is skipped). See tests/mount.sh.
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/mount.sh
PYTHON=${PYTHON:-python3}

need() { command -v "$1" >/dev/null || skip "no $1"; }

# A store with shards, conversions and a model of some MiB; $T/witness/... holds the same tree of .apr by
# the other writer.
programs_store() {
    local apr
    small_store "$T/store"
    rm -rf "$T/store/types"
    big_store "$T/store/big.gguf" $((LONG ? 512 : 8)) 1
    [ "$LONG" != 1 ] || find "$MODELS" -maxdepth 1 -name '*.gguf' -exec ln -s {} "$T/store/" \; 2>/dev/null
    start m "$T/store"
    while IFS= read -r apr; do
        mkdir -p "$T/witness/$(dirname "${apr#"$M"/}")"
        witness "$apr" "$T/witness/${apr#"$M"/}"
    done < <(find "$M" -name '*.apr')
    APRS=$(cd "$T/witness" && find . -name '*.apr' | sort)
    [ "$(wc -l <<<"$APRS")" -ge 5 ] || fail "only these: $APRS"
}

# Every .apr below the folder is the witness's.
same_tree() {
    local f
    for f in $APRS; do cmp "$1/$f" "$T/witness/$f"; done
    [ "$(cd "$1" && find . -name '*.apr' | sort)" = "$APRS" ]
}

t_rsync() {
    need rsync
    programs_store
    rsync -a "$M/" "$T/copy/"
    same_tree "$T/copy"
    [ -z "$(rsync -ani "$M/" "$T/copy/")" ] || fail "the second rsync: $(rsync -ani "$M/" "$T/copy/")"
    [ -z "$(rsync -anic "$M/" "$T/copy/")" ] || fail "by checksum: $(rsync -anic "$M/" "$T/copy/")"
    # In pieces, and into a file that has half of it already.
    local f
    f=$(head -n 1 <<<"$APRS")
    truncate -s "$(($(stat -c %s "$T/witness/$f") / 2))" "$T/copy/$f"
    rsync -a --inplace --no-whole-file "$M/" "$T/copy/"
    same_tree "$T/copy"
    stop
}

t_tar() {
    need tar
    programs_store
    mkdir "$T/plain" "$T/sparse" "$T/seek"
    tar -cf - -C "$M" . | tar -xf - -C "$T/plain"
    tar -S -cf - -C "$M" . | tar -xf - -C "$T/sparse"
    tar -S --hole-detection=seek -cf "$T/seek.tar" -C "$M" .
    tar -xf "$T/seek.tar" -C "$T/seek"
    same_tree "$T/plain"
    same_tree "$T/sparse"
    same_tree "$T/seek"
    tar --compare -f "$T/seek.tar" -C "$M"
    stop
}

t_cp() {
    brief && skip "the same calls as of rsync, tar and dd, which run here"
    programs_store
    local f how
    for how in --reflink=auto --reflink=never --sparse=always -a "-a --reflink=auto"; do
        rm -rf "$T/copy"
        mkdir "$T/copy"
        for f in $APRS; do
            mkdir -p "$T/copy/$(dirname "$f")"
            # shellcheck disable=SC2086 # options
            cp $how "$M/$f" "$T/copy/$f"
        done
        same_tree "$T/copy"
    done
    rm -rf "$T/copy"
    cp -a "$M" "$T/copy" # links and folders too
    same_tree "$T/copy"
    [ "$(find "$M" -type l | wc -l)" = "$(find "$T/copy" -type l | wc -l)" ]
    diff <(cd "$M" && find . -type f -printf '%P %s %T@ %m\n' | sort) <(cd "$T/copy" && find . -type f -printf '%P %s %T@ %m\n' | sort)
    [ "$(find "$T/copy" -type f -name '*.apr' -links +1 | wc -l)" = 0 ]
    stop
}

t_sums() {
    brief && skip "the same calls as of rsync, tar and dd, which run here"
    programs_store
    local f p
    (cd "$T/witness" && for f in $APRS; do sha256sum "$f"; done) >"$T/sums"
    (cd "$M" && sha256sum -c --quiet "$T/sums")
    for p in md5sum sha1sum b2sum cksum sum; do
        need $p
        [ "$(cd "$M" && for f in $APRS; do $p <"$f"; done)" = "$(cd "$T/witness" && for f in $APRS; do $p <"$f"; done)" ] || fail "$p"
    done
    stop
}

t_find_du_grep() {
    brief && skip "the same calls as of rsync, tar and dd, which run here"
    programs_store
    local f want got
    [ "$(find "$M" -name '*.apr' -size +1M | wc -l)" = "$(find "$T/witness" -name '*.apr' -size +1M | wc -l)" ]
    [ "$(find "$M" -type f -perm /222 | wc -l)" = 0 ]
    [ "$(find "$M" -name '*.apr' -newer "$T/store/big.gguf" | wc -l)" = 0 ]
    [ "$(find "$M" -xtype l | wc -l)" = 0 ] || fail "links that lead nowhere: $(find "$M" -xtype l)"
    [ "$(find "$M" -links +1 -type f | wc -l)" = 0 ]
    want=$(cd "$T/witness" && du -c --apparent-size -B 1 $APRS | tail -n 1)
    got=$(cd "$M" && du -c --apparent-size -B 1 $APRS | tail -n 1)
    [ "$want" = "$got" ] || fail "du: $got, expected $want"
    for f in $APRS; do
        [ "$(grep -c general "$M/$f")" = "$(grep -c general "$T/witness/$f")" ] || fail "grep -c of $f"
        [ "$(grep -abo -m 3 norm "$M/$f" | head -n 3)" = "$(grep -abo -m 3 norm "$T/witness/$f" | head -n 3)" ] || fail "grep -b of $f"
        [ "$(wc -c <"$M/$f")" = "$(stat -c %s "$M/$f")" ]
        [ "$(head -c 100000 "$M/$f" | tail -c 1000 | md5sum)" = "$(head -c 100000 "$T/witness/$f" | tail -c 1000 | md5sum)" ]
        [ "$(tail -c 4097 "$M/$f" | md5sum)" = "$(tail -c 4097 "$T/witness/$f" | md5sum)" ] || fail "tail of $f"
    done
    stop
}

t_dd() {
    programs_store
    local f bs size
    for f in $APRS; do
        size=$(stat -c %s "$M/$f")
        for bs in 512 4096 65536 1048576 3145728; do
            [ $((size / bs)) -le 20000 ] || continue
            dd if="$M/$f" iflag=direct bs=$bs status=none | cmp - "$T/witness/$f"
        done
        dd if="$M/$f" bs=7777 skip=$((size / 7777 / 2)) status=none | cmp - <(dd if="$T/witness/$f" bs=7777 skip=$((size / 7777 / 2)) status=none)
    done
    stop
}

t_small_programs() {
    brief && skip "the same calls as of rsync, tar and dd, which run here"
    programs_store
    local f p
    f=$(grep tied <<<"$APRS")
    for p in file xxd zip unzip; do command -v $p >/dev/null || echo "# no $p"; done
    if command -v file >/dev/null; then
        [ "$(file -b "$M/$f")" = "$(file -b "$T/witness/$f")" ]
    fi
    if command -v xxd >/dev/null; then # head closes the pipe: no error of ours
        [ "$(xxd "$M/$f" | head -n 4)" = "$(xxd "$T/witness/$f" | head -n 4)" ]
    fi
    [ "$(od -A x -t x1 -j 4095 -N 3 "$M/$f")" = "$(od -A x -t x1 -j 4095 -N 3 "$T/witness/$f")" ]
    if command -v zip >/dev/null; then
        (cd "$M" && zip -q -r -1 "$T/all.zip" .)
        mkdir "$T/unzipped"
        if command -v unzip >/dev/null; then
            unzip -q "$T/all.zip" -d "$T/unzipped"
        else
            python3 -m zipfile -e "$T/all.zip" "$T/unzipped"
        fi
        same_tree "$T/unzipped"
    fi
    split -b 1M "$M/$f" "$T/split."
    cat "$T"/split.* | cmp - "$T/witness/$f"
    gzip -1 -c "$M/$f" | gzip -d | cmp - "$T/witness/$f"
    diff -q "$M/$f" "$T/witness/$f"
    ln -s "$M/$f" "$T/link.apr"
    cmp "$(readlink -f "$T/link.apr")" "$T/witness/$f"
    stop
}

t_python() {
    programs_store
    python3 - "$M" "$T/witness" <<'PY'
import array, glob, hashlib, io, mmap, os, shutil, sys
mnt, witness = sys.argv[1:]
n = 0
for want_path in glob.glob(witness + "/**/*.apr", recursive=True):
    path = os.path.join(mnt, os.path.relpath(want_path, witness))
    want = open(want_path, "rb").read()
    with open(path, "rb") as f:
        m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        assert m[:] == want
        assert m.find(b"norm") == want.find(b"norm")
        m.close()
        m = mmap.mmap(f.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        m[0:4] = b"mine"          # a private copy: the reader's own business
        assert m[4:] == want[4:]
        m.close()
        f.seek(-64, os.SEEK_END)
        assert f.read() == want[-64:] and f.read() == b""
        buf = bytearray(100)
        f.seek(len(want) - 50)
        assert f.readinto(buf) == 50
        assert os.preadv(f.fileno(), [buf], len(want)) == 0
        try: # no hole is made up
            assert os.lseek(f.fileno(), 0, os.SEEK_DATA) == 0
            assert os.lseek(f.fileno(), 0, os.SEEK_HOLE) == len(want)
        except OSError as e:
            raise AssertionError(e)
    assert open(path, "rb").read(4) == b"APR\0"
    shutil.copyfile(path, witness + "/../copied")
    assert open(witness + "/../copied", "rb").read() == want
    n += 1
print("#", n, "files by mmap, private mmap, seek, copyfile")
PY
    stop
}

t_gguf_package() {
    "$PYTHON" -c 'import gguf' 2>/dev/null || skip "no gguf package in $PYTHON"
    programs_store
    "$PYTHON" - "$M" "$T/store" <<'PY'
import glob, os, sys
from gguf import GGUFReader
mnt, store = sys.argv[1:]
n = 0
for link in sorted(glob.glob(mnt + "/**/*.gguf", recursive=True)):
    if "-of-" in link and "-00001-of-" not in link:
        continue
    a, b = GGUFReader(link), GGUFReader(os.path.realpath(link))
    assert [t.name for t in a.tensors] == [t.name for t in b.tensors] and len(a.tensors) > 2
    for s, t in zip(a.tensors, b.tensors):
        assert (s.data == t.data).all() and s.tensor_type == t.tensor_type
    n += 1
assert n >= 5, n
print("#", n, "siblings read by the gguf package")
PY
    stop
}

run programs_rsync_copies_once t_rsync $((LONG ? 1800 : 100))
run programs_tar_keeps_every_byte t_tar $((LONG ? 1800 : 100))
run programs_cp_in_every_way t_cp $((LONG ? 1800 : 100))
run programs_sums_are_the_witness t_sums $((LONG ? 1800 : 100))
run programs_find_du_grep_agree t_find_du_grep $((LONG ? 1800 : 100))
run programs_dd_direct t_dd $((LONG ? 1800 : 100))
run programs_file_xxd_zip_split t_small_programs $((LONG ? 1800 : 100))
run programs_python_maps_and_seeks t_python $((LONG ? 1800 : 100))
run programs_gguf_package_reads_siblings t_gguf_package $((LONG ? 1800 : 100))
tests_end
