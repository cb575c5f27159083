"""Makes the golden EXL3 checkpoint of tests/checkpoint/exl3_test.cc.

Usage: make_exl3.py OUTPUT_DIRECTORY          (numpy 2.x)

ExLlamaV3's own decoder needs a GPU. This follows its description (doc/exl3.md, exllamav3_ext/quant/codebook.cuh, exl3_dq.cuh) with streams as
lists of bits, float16 arithmetic by numpy and Hadamard matrices as matrices, and shares nothing with the library. expected.safetensors
holds the values in float32, which a reader may round to float16.
"""

import json
import pathlib
import sys

import numpy as np

from write_safetensors import save

BLOCK = 128


def halves(x):
    return np.array([x & 0xFFFF, x >> 16], dtype=np.uint16).view(np.float16)


def value(codebook, state):
    if codebook == "mul1":
        x = state * 0x83DCD12D % 2**32
        total = np.float16(1024 + sum(x.to_bytes(4, "little")))
        factor, offset = np.array([0x1EEE, 0xC931], dtype=np.uint16).view(np.float16)
        return np.float16(np.float64(total) * np.float64(factor) + np.float64(offset))  # fused
    x = state * 0xCBAC1FED if codebook == "mcg" else state * 89226354 + 64248484
    low, high = halves(x % 2**32 & 0x8FFF8FFF ^ 0x3B603B60)
    return low + high


def place(t):
    lane, i = divmod(t, 8)
    row, col = 2 * (lane % 4), lane // 4
    return [(row, col), (row + 1, col), (row + 8, col), (row + 9, col), (row, col + 8),
            (row + 1, col + 8), (row + 8, col + 8), (row + 9, col + 8)][i]


def tile_values(words, bits, codebook):
    stream = [int(word) >> (31 - b) & 1 for word in words for b in range(32)]
    tile = np.zeros((16, 16), dtype=np.float64)
    for t in range(256):
        state = 0
        for b in range((t + 1) * bits - 16, (t + 1) * bits):
            state = state << 1 | stream[b % len(stream)]
        tile[place(t)] = value(codebook, state)
    return tile


def hadamard():
    h = np.array([[1.0]])
    while len(h) < BLOCK:
        h = np.block([[h, h], [h, -h]])
    return h / np.sqrt(BLOCK)


def layer(random, inputs, outputs, bits, codebook):
    trellis = random.integers(0, 2**16, (inputs // 16, outputs // 16, 16 * bits), dtype=np.uint16)
    inner = np.block([[tile_values(tile.copy().view(np.uint32), bits, codebook) for tile in row]
                      for row in trellis])
    factors = [(random.normal(0, 0.3, n)).astype(np.float16) for n in (inputs, outputs)]
    left = np.kron(np.eye(inputs // BLOCK), hadamard())
    right = np.kron(np.eye(outputs // BLOCK), hadamard())
    values = np.diag(factors[0].astype(np.float64)) @ left @ inner @ right @ np.diag(
        factors[1].astype(np.float64))
    tensors = {"trellis": trellis.view(np.int16), "suh": factors[0], "svh": factors[1]}
    if codebook != "3inst":
        number = {"mcg": 0xCBAC1FED, "mul1": 0x83DCD12D}[codebook]
        tensors[codebook] = np.array([number], dtype=np.uint32).view(np.int32)
    return tensors, values.T.astype(np.float32)


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(13)
    vocabulary = 200
    tensors, expected = {}, {}
    for name, inputs, outputs, bits, codebook in (
            ("layers.0.first", 128, 128, 3, "3inst"), ("layers.0.mcg", 128, 256, 4, "mcg"),
            ("layers.0.mul1", 256, 128, 2, "mul1"), ("layers.0.one", 128, 128, 1, "mcg"),
            ("lm_head", 128, 256, 6, "mcg")):
        parts, values = layer(random, inputs, outputs, bits, codebook)
        tensors |= {f"{name}.{part}": array for part, array in parts.items()}
        expected[f"{name}.weight"] = values[:vocabulary] if name == "lm_head" else values
    # Signs in the bits of old files.
    parts, values = layer(random, 128, 128, 5, "3inst")
    for old, new, axis in (("su", "suh", 1), ("sv", "svh", 0)):
        signs = random.integers(0, 2, 128)
        values = values / np.expand_dims(parts.pop(new).astype(np.float32), 1 - axis)
        values = values * np.expand_dims((1 - 2 * signs).astype(np.float32), 1 - axis)
        parts[old] = np.packbits(signs.astype(np.uint8), bitorder="little").view(np.int16)
    tensors |= {f"layers.0.old.{part}": array for part, array in parts.items()}
    expected["layers.0.old.weight"] = values
    save(out / "model.safetensors", tensors)
    save(out / "expected.safetensors", expected)
    config = {"model_type": "llama", "vocab_size": vocabulary, "quantization_config": {
        "quant_method": "exl3", "version": "0.0.1", "bits": 3.0, "head_bits": 6,
        "calibration": {"rows": 250, "cols": 2048}}}
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")


main()
