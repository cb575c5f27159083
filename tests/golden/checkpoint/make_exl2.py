"""Makes the golden EXL2 checkpoint of tests/checkpoint/exl2_test.cc.

Usage: make_exl2.py OUTPUT_DIRECTORY          (numpy 2.x)

ExLlamaV2's own packing needs a GPU. This follows its description (conversion/adaptivegptq.py: pack;
cuda/quant/qdq_util.cuh: dq_scale) with bits in lists, and shares nothing with the library: a column of
q_weight is the codes of one output, the first in the lowest bits, each group from a word on. expected.safetensors
holds (code - 2^(bits - 1)) * scale: the scale in the float16 arithmetic of the kernels, the product, which they
apply to sums of codes times inputs, in float32.
"""

import json
import pathlib
import sys

import numpy as np

from write_safetensors import save


def words_of(fields, width):
    """Numbers of `width` bits as int32 words, first in the lowest bits."""
    bits = [(int(f) >> b) & 1 for f in fields for b in range(width)]
    bits += [0] * (-len(bits) % 32)
    return [sum(bit << i for i, bit in enumerate(bits[at:at + 32])) for at in range(0, len(bits), 32)]


def layer(random, rows, groups):
    """groups: (bits, columns) each. Returns the tensors and the values."""
    cols = sum(size for _, size in groups)
    invperm = random.permutation(cols).astype(np.int32)  # place of every column
    scale_codes = random.integers(0, 16, (len(groups), rows))
    scale_max = (random.random(len(groups)) * 0.02 + 0.001).astype(np.float16)
    weight, pairs, placed, word = [], [], [], 0
    for g, (bits, size) in enumerate(groups):
        codes = random.integers(0, 1 << bits, (size, rows))
        packed = np.array([words_of(codes[:, r], bits) for r in range(rows)], dtype=np.uint32).T
        pairs += [bits, word]
        word += packed.shape[0]
        weight.append(packed)
        squares = ((scale_codes[g] + 1) ** 2).astype(np.float16)
        scales = squares * (scale_max[g] * np.float16(1 / 256))
        assert scales.dtype == np.float16
        placed.append((codes - (1 << (bits - 1))).astype(np.float32) * scales.astype(np.float32))
    values = np.concatenate(placed)[invperm].T
    return {"q_weight": np.concatenate(weight).view(np.int32),
            "q_scale": np.array([words_of(c, 4) for c in scale_codes], dtype=np.uint32).view(np.int32),
            "q_scale_max": scale_max, "q_groups": np.array(pairs, dtype=np.int16),
            "q_invperm": invperm}, values


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(7)
    vocabulary = 40
    layers = {
        "layers.0.many": (64, [(8, 32), (6, 128), (5, 64), (5, 64), (4, 32), (3, 32), (2, 32)]),
        "layers.0.even": (32, [(4, 64), (4, 64), (4, 64)]),
        "layers.0.short": (32, [(6, 32), (3, 64), (3, 64), (3, 16)]),
        "layers.0.last": (32, [(6, 32), (3, 20)]),
        "lm_head": (64, [(6, 32), (6, 32)]),  # the vocabulary in 32s
    }
    tensors, expected = {}, {}
    for name, (rows, groups) in layers.items():
        parts, values = layer(random, rows, groups)
        tensors |= {f"{name}.{part}": array for part, array in parts.items()}
        expected[f"{name}.weight"] = values[:vocabulary] if name == "lm_head" else values
    save(out / "model.safetensors", tensors)
    save(out / "expected.safetensors", expected)
    config = {"model_type": "llama", "vocab_size": vocabulary, "quantization_config": {
        "quant_method": "exl2", "version": "0.3.2", "bits": 4.5, "head_bits": 6,
        "calibration": {"rows": 115, "length": 2048, "dataset": "(default)"}}}
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")


main()
