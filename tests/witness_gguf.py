#!/usr/bin/env python3
"""An independent witness of the reverse view: compares a .gguf (mounted or written) with the .apr it
was made of, using nothing of this project but its specification. Python's standard library only.

    witness_gguf.py FILE.gguf FILE.apr

Checks what llama.cpp's reader demands of a GGUF's layout (offsets contiguous but for padding to
general.alignment, everything inside the file), that every tensor of the .apr but its aliases is there
under its GGUF name, with its shape reversed and its bytes (the raw ones where the .apr widened them),
that nothing else is, and the keys that the .apr's metadata gives directly. Prints TAP."""
import os
import sys

from witness import TYPES, Apr, Gguf, Tap

WHOLE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
         "lm_head.weight": "output.weight"}
PART = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
        "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down"}


def gguf_name(name): # apr-v2 section 7
    if name in WHOLE:
        return WHOLE[name]
    if name.startswith("model.layers."):
        layer, rest = name[len("model.layers."):].split(".", 1)
        part, end = rest.rsplit(".", 1)
        return "blk.%s.%s.%s" % (layer, PART[part], end)
    return name


def main():
    path, apr = sys.argv[1:]
    t, g, a = Tap(), Gguf(path), Apr(apr)
    meta = a.meta
    raw = {r["name"]: r for r in meta.get("aprfs.raw", [])}
    alias = {r["name"] for r in meta.get("aprfs.alias", [])}
    align, at, bad = g.keys.get("general.alignment", 32), 0, ""
    for name, (ne, kind, off, size) in g.tensors.items():
        if off != at:
            bad = "%s at %d, expected %d" % (name, off, at)
        at = off + -(-size // align) * align
        if g.data + off + size > os.path.getsize(path):
            bad = name + " ends past the file"
    t.ok(not bad and g.data % align == 0, "layout", bad)
    wanted = {}
    for own, e in a.by_name.items():
        if own not in alias:
            wanted[gguf_name(own)] = (own, *e[1:])
    t.ok(set(wanted) == set(g.tensors), "names", str(set(wanted) ^ set(g.tensors)))
    for name, (own, dtype, dims, off, size) in sorted(wanted.items()):
        if name not in g.tensors:
            continue
        kind = dtype
        if own in raw:
            kind, off, size = raw[own]["type"], raw[own]["offset"], raw[own]["size"]
        ne, gkind, goff, gsize = g.tensors[name]
        good = ne == list(reversed(dims)) and gkind == kind and gsize == size
        t.ok(good and equal_bytes(g, g.data + goff, a, a.data_off + off, size), name,
             "%s %s %d, expected %s %s %d" % (ne, TYPES[gkind][0], gsize, dims, kind, size))
    same = [("general.architecture", meta["architecture"])]
    for key, member in [("tokenizer.ggml.tokens", "tokenizer.vocabulary"),
                        ("tokenizer.ggml.merges", "tokenizer.merges"),
                        ("tokenizer.ggml.token_type", "tokenizer.token_type"),
                        ("tokenizer.chat_template", "chat_template")]:
        if meta.get(member) is not None and "\ufffd" not in str(meta[member]):
            same.append((key, meta[member]))
    for key, value in same:
        t.ok(g.keys.get(key) == value, key)
    print("1..%d" % t.n)
    return 1 if t.bad else 0


def equal_bytes(g, goff, a, aoff, size):
    while size:
        n = min(size, 1 << 20)
        if g.b.at(goff, n) != a.b.at(aoff, n):
            return False
        goff, aoff, size = goff + n, aoff + n, size - n
    return True


if __name__ == "__main__":
    sys.exit(main())
