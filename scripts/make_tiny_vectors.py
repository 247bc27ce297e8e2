#!/usr/bin/env python3
"""Makes tests/data/tiny_<family>.f32: llama.cpp's logits of the tiny models of tests/tiny_model.c.

  make build/debug/tests/test_forward && ORACLE_PYTHON scripts/make_tiny_vectors.py

Each model is written by test_forward --write, dequantised to F32 by llama_model_quantize (its kernels
for quantised weights round the activations), and run with f32 KV and no flash attention, all 24
tokens in one batch: 24 rows of n_vocab little-endian f32. Needs the interpreter of scripts/oracle."""

import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import tempfile

here = os.path.dirname(os.path.abspath(__file__))
loader = importlib.machinery.SourceFileLoader("parity", os.path.join(here, "parity"))
spec = importlib.util.spec_from_loader("parity", loader)
parity = importlib.util.module_from_spec(spec)
loader.exec_module(parity)


def main():
    root = os.path.dirname(here)
    test = sys.argv[1] if len(sys.argv) > 1 else os.path.join(root, "build/debug/tests/test_forward")
    lib = parity.load_oracle()
    ids = [(7 + 31 * i) % 251 + 3 for i in range(24)]  # tiny_ids()
    with tempfile.TemporaryDirectory() as work:
        subprocess.run([test, "--write", work], check=True)
        for family in ("llama", "qwen2", "qwen3", "gemma3"):
            copy = parity.f32_copy(lib, os.path.join(work, f"tiny-{family}.gguf"), work)
            rows = parity.Oracle(lib, copy, 256, 1).eval(ids, 0, True)
            with open(os.path.join(root, "tests", "data", f"tiny_{family}.f32"), "wb") as f:
                f.write(rows.astype("<f4").tobytes())
            print(family, rows.shape, float(rows.min()), float(rows.max()))


main()
