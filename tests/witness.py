#!/usr/bin/env python3
"""An independent witness: compares a .apr (mounted or copied) with the GGUF it was made of, using
nothing of this project but its specification. Python's standard library only.

    witness.py [--profile NAME] FILE.apr FILE.gguf [SHARD.gguf...]

Checks the header (magic, version, flags, CRC), the layout (index before data, sorted, everything
inside the file, size a multiple of 64), the JSON (UTF-8, no duplicate keys, canonical spellings once),
each GGUF tensor's entry (reversed shape, dtype byte allowed by the profile, bytes equal or, where
transcoded, the raw twin equal and the F32 values right), aliases, and the values that a key of the
GGUF gives directly. Prints TAP; exit 1 if anything is wrong.
"""
import argparse
import json
import struct
import sys
import zlib

# id: (name, weights per block, bytes per block); source: llama.cpp's type table, 1 October 2026.
TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4),
    27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18), 42: ("Q2_0", 64, 18),
}
# dtype bytes a profile may show (apr-v2: what the engine's index reader and what every reader knows).
ALLOWED = {"engine": {0, 1, 2, 3, 6, 7, 10, 11, 12, 13, 14, 30}, "strict": {0, 1, 12, 14},
           "native": set(TYPES)}
FORMATS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q",
           11: "<q", 12: "<d"}
# Spellings of one dimension: a file may hold at most one of each group (apr-v2 section 3.1).
ALIASES = [
    ("hidden_size", "hidden_dim", "d_model", "n_embd"),
    ("num_layers", "n_layers", "num_hidden_layers", "n_layer"),
    ("num_heads", "n_heads", "num_attention_heads", "n_head"),
    ("num_kv_heads", "n_kv_heads", "num_key_value_heads"),
    ("vocab_size", "n_vocab"),
    ("intermediate_size", "ffn_dim", "intermediate_dim", "n_inner"),
    ("max_position_embeddings", "max_seq_len", "context_length", "n_ctx"),
    ("rms_norm_eps", "layer_norm_eps", "norm_eps"),
]


class Bytes:
    def __init__(self, path):
        self.f = open(path, "rb")
        self.pos = 0

    def take(self, n):
        self.f.seek(self.pos)
        b = self.f.read(n)
        if len(b) != n:
            raise EOFError("%d bytes wanted at %d, %d there" % (n, self.pos, len(b)))
        self.pos += n
        return b

    def num(self, fmt):
        return struct.unpack(fmt, self.take(struct.calcsize(fmt)))[0]

    def at(self, off, n):
        self.pos = off
        return self.take(n)


class Gguf:
    def __init__(self, path):
        b = self.b = Bytes(path)
        assert b.take(4) == b"GGUF"
        b.num("<I")
        n_tensor, n_key = b.num("<Q"), b.num("<Q")
        self.keys = {}
        for _ in range(n_key):
            name = self.text()
            self.keys[name] = self.value(b.num("<I"))
        self.tensors = {}
        for _ in range(n_tensor):
            name = self.text()
            ne = [b.num("<Q") for _ in range(b.num("<I"))]
            kind, off = b.num("<I"), b.num("<Q")
            rows = 1
            for d in ne[1:]:
                rows *= d
            _, per, size = TYPES[kind]
            self.tensors[name] = (ne, kind, off, ne[0] // per * size * rows)
        align = self.keys.get("general.alignment", 32)
        self.data = -(-b.pos // align) * align

    def text(self):
        return self.b.take(self.b.num("<Q")).decode("utf-8", "surrogateescape")

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind != 9:
            return self.b.num(FORMATS[kind])
        kind, n = self.b.num("<I"), self.b.num("<Q")
        if kind in (8, 9):
            return [self.value(kind) for _ in range(n)]
        size = struct.calcsize(FORMATS[kind])
        return list(struct.unpack("<%d%s" % (n, FORMATS[kind][1:]), self.b.take(n * size)))


def f16(b):
    return struct.unpack("<%de" % (len(b) // 2), b)


def f32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def widen(kind, block):
    """One block of the types that small tests meet, in exact arithmetic rounded to F32 once per
    operation; None: not checked here."""
    if kind == 1:
        return list(f16(block))
    if kind == 30:
        return [struct.unpack("<f", b"\0\0" + block[i:i + 2])[0] for i in range(0, len(block), 2)]
    d = f16(block[:2])[0]
    if kind == 8:
        return [f32(d * q) for q in struct.unpack("<32b", block[2:])]
    low = lambda qs: [q & 15 for q in qs] + [q >> 4 for q in qs]
    if kind == 2:
        return [f32(d * (q - 8)) for q in low(block[2:])]
    if kind == 3:
        m = f16(block[2:4])[0]
        return [f32(f32(d * q) + m) for q in low(block[4:])]
    if kind in (6, 7):
        at = 2 if kind == 6 else 4
        qh = struct.unpack("<I", block[at:at + 4])[0]
        qs = [q | (qh >> i & 1) << 4 for i, q in enumerate(low(block[at + 4:]))]
        if kind == 6:
            return [f32(d * (q - 16)) for q in qs]
        m = f16(block[2:4])[0]
        return [f32(f32(d * q) + m) for q in qs]
    return None


class Apr:
    def __init__(self, path):
        b = self.b = Bytes(path)
        self.head = b.at(0, 64)
        (self.magic, self.major, self.minor, self.flags, self.count, self.meta_off, self.meta_len,
         self.index_off, self.data_off, self.crc) = struct.unpack("<4sBBHIQIQQI", self.head[:44])
        self.meta_text = b.at(self.meta_off, self.meta_len)
        self.twice = []
        self.meta = json.loads(self.meta_text.decode("utf-8"), object_pairs_hook=self.pairs)
        b.pos = self.index_off
        self.entries = []
        for _ in range(self.count):
            name = b.take(b.num("<H"))
            dtype, ndim = b.num("<B"), b.num("<B")
            dims = [b.num("<Q") for _ in range(ndim)]
            self.entries.append((name, dtype, dims, b.num("<Q"), b.num("<Q")))
        self.index_end = b.pos
        b.f.seek(0, 2)
        self.size = b.f.tell()
        self.by_name = {e[0].decode("utf-8"): e for e in self.entries}

    def pairs(self, items):
        names = [k for k, _ in items]
        self.twice += [k for k in set(names) if names.count(k) > 1] if len(names) < 1000 else \
            ([] if len(set(names)) == len(names) else ["(in a large object)"])
        return dict(items)


class Tap:
    n = bad = 0

    def ok(self, good, name, why=""):
        self.n += 1
        self.bad += not good
        print("%s %d - %s%s" % ("ok" if good else "not ok", self.n, name,
                                " # " + why if why and not good else ""))


def check_container(t, a, profile):
    t.ok(a.magic == b"APR\0" and (a.major, a.minor) == (2, 0), "magic and version")
    t.ok(a.crc == zlib.crc32(a.head[:40] + a.head[44:]), "header CRC")
    t.ok(a.head[44:] == bytes(20), "reserved bytes are zero")
    t.ok(a.flags & ~0x0220 == 0x0400, "flags", hex(a.flags))
    t.ok(a.meta_off == 64 and a.index_off == 64 + -(-a.meta_len // 64) * 64, "metadata then index")
    t.ok(a.index_end <= a.data_off, "index before the data")
    t.ok(a.size % 64 == 0, "size is a multiple of 64", str(a.size))
    names = [e[0] for e in a.entries]
    t.ok(names == sorted(names) and len(set(names)) == len(names), "index sorted, names unique")
    t.ok(all(a.data_off + e[3] + e[4] <= a.size for e in a.entries), "every tensor inside the file")
    t.ok(all(e[1] in ALLOWED[profile] for e in a.entries), "dtype bytes allowed by " + profile,
         str({e[1] for e in a.entries} - ALLOWED[profile]))
    t.ok(a.meta.get("aprfs.profile") == profile, "aprfs.profile", str(a.meta.get("aprfs.profile")))
    t.ok(not a.twice, "no key twice", str(a.twice))
    two = [g for g in ALIASES if sum(k in a.meta for k in g) > 1]
    t.ok(not two, "one spelling of each dimension", str(two))
    if profile == "strict":
        t.ok(all((a.data_off + e[3]) % 64 == 0 for e in a.entries), "strict: multiples of 64")


def check_metadata(t, a, g):
    k, arch = g.keys, g.keys["general.architecture"]
    t.ok(a.meta["architecture"] == arch and a.meta["model_type"] == arch, "architecture")
    direct = {"hidden_size": "embedding_length", "num_layers": "block_count",
              "max_position_embeddings": "context_length",
              "head_dim": "attention.key_length", "rope_theta": "rope.freq_base",
              "rms_norm_eps": "attention.layer_norm_rms_epsilon"}
    for name, key in direct.items():
        key = arch + "." + key
        if key in k and not isinstance(k[key], list):
            got = a.meta.get(name)
            t.ok(got is not None and f32(got) == f32(k[key]), name + " from " + key,
                 "%r, %r" % (got, k[key]))
    if "tokenizer.ggml.tokens" in k:
        want = [s.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
                for s in k["tokenizer.ggml.tokens"]]
        t.ok(a.meta.get("tokenizer.vocabulary") == want, "tokenizer.vocabulary")
    for apr, gguf in (("tokenizer.merges", "merges"), ("tokenizer.scores", "scores"),
                      ("tokenizer.token_type", "token_type"), ("tokenizer.pre_type", "pre"),
                      ("tokenizer.model_type", "model"), ("tokenizer.bos_token_id", "bos_token_id"),
                      ("tokenizer.eos_token_id", "eos_token_id")):
        if "tokenizer.ggml." + gguf in k:
            t.ok(a.meta.get(apr) == k["tokenizer.ggml." + gguf], apr)
    if "tokenizer.chat_template" in k:
        t.ok(a.meta.get("chat_template") == k["tokenizer.chat_template"], "chat_template")


def equal(a, off, g, src, n):
    """Compares by pieces, so that a large tensor needs no large memory."""
    step = 16 << 20
    for at in range(0, n, step):
        m = min(step, n - at)
        if a.b.at(a.data_off + off + at, m) != g.b.at(src + at, m):
            return False
    return True


def check_tensor(a, g, name, raw):
    ne, kind, off, size = g.tensors[name]
    e = a.by_name.get(name)
    if not e:
        return "absent"
    _, dtype, dims, eoff, esize = e
    if dims != list(reversed(ne)):
        return "shape %r, GGUF says %r" % (dims, ne)
    if dtype == kind and esize == size:
        return "" if equal(a, eoff, g, g.data + off, size) else "bytes differ"
    if dtype != 0:
        return "dtype %d for a tensor of type %d" % (dtype, kind)
    twin = raw.get(name)
    if not twin:
        return "transcoded without a raw twin"
    if TYPES[kind][0] != twin.get("type") and kind != twin.get("type"):
        return "raw twin says type %r, GGUF %d" % (twin.get("type"), kind)
    if twin["size"] != size or not equal(a, twin["offset"], g, g.data + off, size):
        return "raw twin's bytes differ"
    _, per, block = TYPES[kind]
    n_block = size // block
    if esize != n_block * per * 4:
        return "F32 size %d for %d weights" % (esize, n_block * per)
    for i in {0, 1, n_block // 2, n_block - 1} & set(range(n_block)):
        want = widen(kind, g.b.at(g.data + off + i * block, block))
        if want is None:
            break
        got = a.b.at(a.data_off + eoff + i * per * 4, per * 4)
        if got != struct.pack("<%df" % per, *want):
            return "F32 values of block %d differ" % i
    return ""


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--profile", default="engine", choices=sorted(ALLOWED))
    ap.add_argument("apr")
    ap.add_argument("gguf", nargs="+")
    args = ap.parse_args()
    t, a, parts = Tap(), Apr(args.apr), [Gguf(p) for p in args.gguf]
    check_container(t, a, args.profile)
    check_metadata(t, a, parts[0])
    raw = {r["name"]: r for r in a.meta.get("aprfs.raw", [])}
    known, wrong = set(), []
    for g in parts:
        for name in g.tensors:
            known.add(name)
            why = check_tensor(a, g, name, raw)
            if why:
                wrong.append("%s: %s" % (name, why))
    t.ok(not wrong, "all %d tensors, byte for byte" % len(known), "; ".join(wrong[:3]))
    # Whatever else is in the index must share bytes with a tensor that is.
    spans = [(e[3], e[3] + e[4]) for n, e in a.by_name.items() if n in known]
    stray = [n for n, e in a.by_name.items() if n not in known and
             not any(lo <= e[3] and e[3] + e[4] <= hi for lo, hi in spans)]
    t.ok(not stray, "other entries are aliases", str(stray[:3]))
    print("1..%d" % t.n)
    return t.bad > 0


if __name__ == "__main__":
    sys.exit(main())
