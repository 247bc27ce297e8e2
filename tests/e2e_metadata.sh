#!/usr/bin/env bash
# What a mount says about itself, and what it remembers of names: .aprfs/metrics and status.txt, file
# handles over a restart. TAP; see tests/mount.sh for the words of the environment.
set -u
cd "$(dirname "$0")/.." || exit 2
. tests/mount.sh

metric() { grep -vF '#' "$M/.aprfs/metrics" | awk -v k="$1" '$1 == k { print $2 }'; }

t_metrics() {
    small_store "$T/store"
    start m "$T/store" --cache always --compose never
    local f size before
    f=$(find "$M" -name 'llama-F16.apr')
    size=$(stat -c %s "$f")
    cat "$f" >/dev/null
    [ "$(metric 'aprfs_read_bytes_total{mode="cached"}')" = "$size" ] || fail "cached bytes, not $size"
    open_now() { [ "$(metric 'aprfs_open_files{tier="2c"}')" = "$1" ]; }
    until_true 20 open_now 0 || fail "open files"
    (exec 8<"$f"; open_now 1) || fail "an open file is not counted"
    before=$(metric 'aprfs_requests_total{op="lookup"}')
    [ ! -e "$M/no-such-name" ] || fail "a name that is not there"
    [ "$(metric 'aprfs_requests_total{op="lookup"}')" -gt "$before" ] || fail "a lookup is not counted"
    [ "$(metric 'aprfs_errors_total{errno="ENOENT"}')" -ge 1 ] || fail "ENOENT is not counted"
    local k # the names of mount.md §5.3
    for k in aprfs_read_bytes_total aprfs_requests_total aprfs_errors_total aprfs_open_files \
        aprfs_stale_total aprfs_lease_breaks_total aprfs_fallback_total aprfs_head_bytes \
        aprfs_conv_bytes aprfs_rss_anon_bytes aprfs_scan_seconds; do
        grep -q "^# TYPE $k \(counter\|gauge\)$" "$M/.aprfs/metrics" || fail "no $k"
    done
    # Prometheus' text format, line by line; and by programs that know it, where they are installed.
    grep -qvE '^(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\{[a-z_]+="[^"\\]*"(,[a-z_]+="[^"\\]*")*\})? [0-9.]+)$' \
        "$M/.aprfs/metrics" && fail "not Prometheus' format"
    if command -v promtool >/dev/null; then
        promtool check metrics <"$M/.aprfs/metrics" || fail promtool
        echo "# promtool: no complaint"
    fi
    if python3 -c 'import prometheus_client' 2>/dev/null; then
        python3 -c '
import sys
from prometheus_client.parser import text_string_to_metric_families as parse
print("# prometheus_client:", sum(len(f.samples) for f in parse(sys.stdin.read())), "samples")' \
            <"$M/.aprfs/metrics" || fail prometheus_client
    fi
    grep -q "^Linux $(uname -r)$" "$M/.aprfs/status.txt" || fail "status.txt does not name the kernel"
    grep -q '^options ttl=30,gguf=link,cache=always' "$M/.aprfs/status.txt" || fail "nor the options"
    stop
}

# handles get FILE...: "type handle path" lines; handles open MOUNT LINE: its inode, or the errno.
cat >"$W/handles.py" <<'PY'
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
class FH(ctypes.Structure):
    _fields_ = [("n", ctypes.c_uint), ("type", ctypes.c_int), ("h", ctypes.c_ubyte * 128)]
if sys.argv[1] == "get":
    for path in sys.argv[2:]:
        fh, mid = FH(128), ctypes.c_int()
        if libc.name_to_handle_at(-100, os.fsencode(path), ctypes.byref(fh), ctypes.byref(mid), 0) < 0:
            sys.exit("name_to_handle_at: " + os.strerror(ctypes.get_errno()))
        print(fh.type, bytes(fh.h[:fh.n]).hex(), os.stat(path).st_ino)
else:
    mnt = os.open(sys.argv[2], os.O_RDONLY)
    for line in sys.stdin:
        t, h, ino = line.split()
        raw = bytes.fromhex(h)
        fh = FH(len(raw), int(t))
        fh.h[:len(raw)] = raw
        fd = libc.open_by_handle_at(mnt, ctypes.byref(fh), os.O_RDONLY)
        if fd < 0:
            print(errno.errorcode[ctypes.get_errno()])
            continue
        same = os.fstat(fd).st_ino == int(ino)
        print("ok" if same else "another inode")
        os.close(fd)
PY

t_handles() {
    small_store "$T/store"
    start m "$T/store"
    local all
    mapfile -t all < <(find "$M" ! -type l)
    python3 "$W/handles.py" get "${all[@]}" >"$T/before" 2>"$T/why" || skip "$(cat "$T/why")"
    python3 "$W/handles.py" open "$M" <"$T/before" >"$T/now" || fail "no right to open by handle"
    [ "$(sort -u "$T/now")" = ok ] || fail "in the same mount: $(sort "$T/now" | uniq -c)"
    stop
    # One model is another one by now, one is gone; all else is as it was.
    local changed gone
    changed=$(find "$T/store" -name 'llama-F16.gguf')
    gone=$(find "$T/store" -name 'llama-Q6_K.gguf')
    cp "$changed" "$T/copy"
    cat "$T/copy" >"$changed.new" && mv "$changed.new" "$changed"
    rm "$gone"
    start m "$T/store"
    python3 "$W/handles.py" open "$M" <"$T/before" >"$T/after"
    local i=0 want got bad=0
    while read -r got; do
        want=ok
        case ${all[i]} in
        *llama-F16.apr | *llama-Q6_K.apr | *llama-Q6_K.tokenizer.json) want=ESTALE ;;
        esac
        [ "$got" = "$want" ] || { echo "${all[i]}: $got, expected $want"; bad=1; }
        i=$((i + 1))
    done <"$T/after"
    [ $i -eq ${#all[@]} ] || fail "$i answers for ${#all[@]} handles"
    [ $bad -eq 0 ] || fail "handles after a restart"
    echo "# $i handles opened after a restart"
    stop
}

# The footer that the mount computes when it is read is the one that aprtool convert writes, for every
# layout and type of the small store; also where the file's end is read first, by four at once.
t_footer() {
    local f n=0 p size last
    small_store "$T/store"
    start m "$T/store" -o footer=crc
    while read -r f; do
        size=$(stat -c %s "$f")
        local pids=()
        for p in 1 2 3 4; do
            tail -c 4 "$f" >"$T/tail.$p" &
            pids+=($!)
        done
        wait "${pids[@]}"
        witness "$f" "$T/whole.apr" --footer crc
        [ "$(stat -c %s "$T/whole.apr")" = "$size" ] || fail "$f: size $size"
        for p in 1 2 3 4; do
            cmp "$T/tail.$p" <(tail -c 4 "$T/whole.apr") || fail "$f: footer"
        done
        cmp "$f" "$T/whole.apr" || fail "$f"
        n=$((n + 1))
        last=$f
    done < <(find "$M" -name '*.apr')
    echo "# $n files"
    [ $n -ge 20 ] || fail "$n files"
    xattr "$last" tier | grep -q '^2 ' || fail "tier: $(xattr "$last" tier)"
    stop
}

# A source that is overwritten while its checksum is computed: an error, and no footer of a mixture.
t_footer_of_a_changed_source() {
    mkdir "$T/store"
    "$B/tests/tool_store" --big "$T/store/m.gguf" 64 1
    start m "$T/store" -o footer=crc
    exec 7<"$M/local/m/m.apr"
    dd if=/dev/zero of="$T/store/m.gguf" bs=4096 seek=2000 count=1 conv=notrunc status=none
    tail -c 4 <&7 >"$T/tail" 2>/dev/null && [ -s "$T/tail" ] && fail "a footer of a changed source"
    exec 7<&-
    stop
}

# Every attribute of the design's table, on the store that has something to say for it; on directories; and
# what is too long for one.
cat >"$W/attributes.py" <<'PY'
import errno, json, os, subprocess, sys
mnt, ollama, deep, apr_of = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4]
get = lambda path, name: os.getxattr(path, "user.aprfs." + name).decode()
names = lambda path: {n[len("user.aprfs."):] for n in os.listxattr(path)}

def fails(path, name, want):
    try:
        os.getxattr(path, name)
    except OSError as e:
        assert e.errno == want, (path, name, e)
        return
    raise AssertionError((path, name))

entries = {e["path"]: e for e in json.load(open(mnt + "/.aprfs/index.json"))["entries"] if e["path"]}
tiny = apr_of
e = entries[os.path.relpath(tiny, mnt)]
everywhere = {"source", "extents", "head_sha256", "store", "alias", "arch", "quant", "n_params", "n_ctx_train",
              "profile", "layout", "tier", "part_generation", "version", "generation"}
assert names(tiny) == everywhere | {"sha256", "revision"}, names(tiny) ^ everywhere
assert get(tiny, "store") == "ollama" == e["store"]
assert get(tiny, "source") == e["parts"][0]["path"]
assert get(tiny, "sha256") == e["parts"][0]["sha256"] == os.path.basename(get(tiny, "source"))[7:]
assert get(tiny, "alias").split("\n") == e["aliases"] and "tiny:1b" in e["aliases"]
assert get(tiny, "arch") == e["arch"] == "llama" and get(tiny, "quant") == e["quant"]
assert get(tiny, "n_params") == str(e["n_params"]) and get(tiny, "n_ctx_train") == str(e["n_ctx_train"])
assert e["size"] == os.path.getsize(tiny) and e["status"] == "ok" and e["why"] == "" and e["role"] == "model"
assert len(get(tiny, "head_sha256")) == len(get(tiny, "revision")) == 64
assert get(tiny, "profile") == "engine"
for name in names(tiny):
    assert not get(tiny, name).endswith("\n"), name
fails(tiny, "user.aprfs.sha257", errno.ENODATA)
fails(tiny, "user.aprfs.", errno.ENODATA)
fails(tiny, "user.aprfs", errno.ENODATA)
fails(tiny, "user.aprfs.problems", errno.ENODATA)
fails(tiny, "security.selinux", errno.EOPNOTSUPP)

# Directories: theirs, and no others; problems are the directory's own lines, all of them at the top.
lines = open(mnt + "/.aprfs/problems.txt").read().rstrip("\n").split("\n")
shut = [l for l in lines if "library/more/" in l]
assert len(shut) == 1 and shut[0].startswith("EAGAIN\t"), lines
assert names(mnt) == {"version", "generation", "problems"}
assert get(mnt, "problems").split("\n") == lines
tiny_dir = os.path.dirname(tiny)
assert names(tiny_dir) == {"version", "generation"}, names(tiny_dir)
fails(tiny_dir, "user.aprfs.problems", errno.ENODATA)
fails(tiny_dir, "user.aprfs.arch", errno.ENODATA)
assert get(tiny_dir, "version") == open(mnt + "/.aprfs/version").read().split()[1] == get(tiny, "version")
assert get(tiny_dir, "generation") == get(tiny, "generation") == get(mnt, "generation")
assert os.listxattr(mnt + "/.aprfs/version") == [] == os.listxattr(tiny_dir + "/config.json")
assert os.listxattr(tiny[:-4] + ".gguf", follow_symlinks=False) == []

# 22 paths of 3.4 KiB: more than the kernel takes in one value.
long = next(os.path.join(d, f) for d, _, files in os.walk(deep) for f in files if f.endswith(".apr"))
fails(long, "user.aprfs.extents", errno.E2BIG)
fails(long, "user.aprfs.source", errno.E2BIG)
assert {"extents", "source", "arch"} <= names(long) and get(long, "arch") == "llama"
text = open(os.path.join(mnt, ".aprfs/extents", os.path.relpath(long, mnt)[:-4] + ".tsv")).read()
words = [l.split(" ", 6) for l in text.rstrip("\n").split("\n")]
parts = [w for w in words if w[0] == "part"]
assert words[0] == ["aprfs-extents", "1"] and len(parts) == 22 and len(text) > 65536, len(text)
at, raw = 0, open(long, "rb").read()
for w in words:
    if w[0] == "map":
        off, n, src = int(w[1]), int(w[2]), int(w[4])
        assert off == at
        at += n
        if w[3].isdigit():
            with open(parts[int(w[3])][6], "rb") as f:
                f.seek(src)
                assert f.read(n) == raw[off:off + n]
assert at == len(raw)
# A program for people: all it can show, and the two that are too long by name.
done = subprocess.run(["getfattr", "-d", long], capture_output=True, text=True)
assert "user.aprfs.arch=" in done.stdout and done.stderr.count("Argument list too long") == 2, done.stderr
print("#", len(text), "bytes of extents,", len(names(tiny)), "attributes")
PY
t_attributes() {
    local d=$T/deep i
    command -v getfattr >/dev/null || skip "no getfattr"
    mkdir -p "$T/types" "$T/ollama/blobs" "$T/ollama/manifests/registry.ollama.ai/library/tiny" \
        "$T/ollama/manifests/registry.ollama.ai/library/more"
    small_store "$T/types"
    for i in $(seq 14); do d=$d/$(printf 'd%.0s' $(seq 240)); done
    mkdir -p "$d"
    "$B/tests/tool_store" --shards "$d" 22
    local f=$T/types/types/llama-Q4_K.gguf hash
    hash=$(sha256sum <"$f" | cut -c1-64)
    cp "$f" "$T/ollama/blobs/sha256-$hash"
    manifest() { printf '{"schemaVersion":2,"layers":[{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:%s","size":%s}]}' "$hash" "$1"; }
    manifest "$(stat -c %s "$f")" >"$T/ollama/manifests/registry.ollama.ai/library/tiny/1b"
    manifest 7 >"$T/ollama/manifests/registry.ollama.ai/library/more/1b"
    start m "$T/ollama" "$T/deep"
    python3 "$W/attributes.py" "$M" "$M/ollama" "$M/deep" "$(echo "$M"/ollama/library/tiny/*.apr)"
    stop
}

run metadata_attributes_are_the_tables t_attributes
run metadata_metrics_are_prometheus_text t_metrics
run metadata_footer_equals_witness t_footer
run metadata_footer_of_a_changed_source_is_eio t_footer_of_a_changed_source
run metadata_handles_outlive_a_restart t_handles
tests_end
