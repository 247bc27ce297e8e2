#!/usr/bin/env python3
"""Regenerates tests/data from the reference programs (scripts/oracle installs them).

usage: make_vectors.py quant [OUT]     LLAMA_CPP_LIB_PATH = folder of libggml-base.so

quant: tests/data/quant_vectors.bin. Little-endian records, one per type:
  u32 GGML id, u32 n_block, u32 weights per block, u32 bytes per block, then the blocks' bytes,
  then n_block * weights f32 as ggml's dequantize_row_* gives them (each NaN as 0x7fc00000).
  Blocks of a type: two random ones with scales of a usual size; all bits one; a scale of infinity;
  a subnormal scale beside a negative zero.
"""
import ctypes
import os
import random
import struct
import sys

# name, GGML id, weights, bytes, offsets of the f16 fields (Q8_K: one f32)
TYPES = [
    ("q4_0", 2, 32, 18, (0,)), ("q4_1", 3, 32, 20, (0, 2)), ("q5_0", 6, 32, 22, (0,)),
    ("q5_1", 7, 32, 24, (0, 2)), ("q8_0", 8, 32, 34, (0,)), ("q2_K", 10, 256, 84, (80, 82)),
    ("q3_K", 11, 256, 110, (108,)), ("q4_K", 12, 256, 144, (0, 2)), ("q5_K", 13, 256, 176, (0, 2)),
    ("q6_K", 14, 256, 210, (208,)), ("q8_K", 15, 256, 292, ()), ("iq4_nl", 20, 32, 18, (0,)),
    ("iq4_xs", 23, 256, 136, (0,)), ("tq1_0", 34, 256, 54, (52,)), ("tq2_0", 35, 256, 66, (64,)),
    ("mxfp4", 39, 32, 17, ()), ("nvfp4", 40, 64, 36, ()), ("q1_0", 41, 128, 18, (0,)),
    ("q2_0", 42, 64, 18, (0,)),
]


def blocks_of(rng, name, size, halves):
    usual = [b"\x3d\x2a", b"\x91\xa5"]  # 0.0488, -0.0217
    scales = [usual, usual[::-1], None, [b"\x00\x7c", b"\x01\x00"], [b"\x03\x02", b"\x00\x80"]]
    for i, sc in enumerate(scales):
        b = bytearray(b"\xff" * size if sc is None else rng.randbytes(size))
        if sc is not None:
            for off, h in zip(halves, sc):
                b[off:off + 2] = h
            if name == "q8_K":
                b[0:4] = struct.pack("<f", [0.0488, -3.5, 0, float("inf"), 1e-41][i])
        yield bytes(b)


def quant(out):
    lib = os.path.join(os.environ["LLAMA_CPP_LIB_PATH"], "libggml-base.so")
    ggml = ctypes.CDLL(lib)
    rng = random.Random(20261001)
    data = bytearray()
    for name, gid, weights, size, halves in TYPES:
        blocks = b"".join(blocks_of(rng, name, size, halves))
        n = len(blocks) // size
        y = (ctypes.c_float * (n * weights))()
        f = getattr(ggml, "dequantize_row_" + name)
        f.restype, f.argtypes = None, (ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int64)
        f(blocks, y, n * weights)
        bits = struct.unpack("<%dI" % (n * weights), bytes(y))
        bits = [0x7fc00000 if u & 0x7fffffff > 0x7f800000 else u for u in bits]
        data += struct.pack("<4I", gid, n, weights, size) + blocks
        data += struct.pack("<%dI" % len(bits), *bits)
    with open(out, "wb") as f:
        f.write(data)
    print("%s: %d bytes" % (out, len(data)))


def main(argv):
    if len(argv) < 2 or argv[1] != "quant":
        sys.exit(__doc__)
    quant(argv[2] if len(argv) > 2 else "tests/data/quant_vectors.bin")


main(sys.argv)
