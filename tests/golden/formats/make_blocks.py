"""Golden values of ggml's blocks: blocks.json, from the decoders of the Python package `gguf`.

    pip install gguf==0.19.0 numpy && python make_blocks.py

Of every type the package decodes: two blocks of random bytes whose float16 scales are finite, as hex,
and what they decode to: CRC-32 of the float32 bytes (zeros made positive), first, middle and last value.
"big" are the same blocks in a file of the other byte order: what the same decoders give those values for when
whatever they read as 16 or 32 bits is big-endian.
"""
import json
import pathlib
import zlib

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import quants

rng = np.random.default_rng(20240607)
# Where the float16 fields of a block stand.
HALVES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
    "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ2_XXS": [0], "IQ2_XS": [0], "IQ2_S": [0],
    "IQ3_XXS": [0], "IQ3_S": [0], "IQ1_S": [0], "IQ4_NL": [0], "IQ4_XS": [0], "TQ1_0": [52], "TQ2_0": [64],
}

# The other numbers of more than a byte: (place, size).
WORDS = {
    "Q5_0": [(2, 4)], "Q5_1": [(4, 4)], "IQ4_XS": [(2, 2)],
    "IQ2_XXS": [(2 + 8 * j + 4, 4) for j in range(8)], "IQ2_XS": [(2 + 2 * j, 2) for j in range(32)],
    "IQ3_XXS": [(66 + 4 * j, 4) for j in range(8)], "IQ1_S": [(34 + 2 * j, 2) for j in range(8)],
    "IQ1_M": [(48 + 2 * j, 2) for j in range(4)],
}


class BigEndian(np.ndarray):
    """Bytes that are seen as big-endian numbers."""

    def view(self, dtype=None, *more):
        if self.dtype == np.uint8 and dtype in (np.uint16, np.uint32, np.float16):
            dtype = np.dtype(dtype).newbyteorder(">")
        return super().view(dtype, *more)


def turned(raw, name):
    big = raw.copy()
    for at, size in [(at, 2) for at in HALVES.get(name, [])] + WORDS.get(name, []):
        big[:, at:at + size] = big[:, at:at + size][:, ::-1]
    return big


rows = {}
for qtype in T:
    traits = quants._type_traits.get(qtype)
    if traits is None or qtype == T.BF16:
        continue
    elements, size = gguf.GGML_QUANT_SIZES[qtype]
    raw = rng.integers(0, 256, size=(2, size), dtype=np.uint8)
    for at in HALVES.get(qtype.name, []):
        raw[:, at:at + 2] = rng.normal(0, 0.05, size=2).astype(np.float16).view(np.uint8).reshape(2, 2)
    if qtype.name == "IQ1_M":  # the four nibbles of d
        raw[:, [49, 51, 53, 55]] = raw[:, [49, 51, 53, 55]] & 15 | np.array([0x10, 0xa0, 0x40, 0x20], np.uint8)
    if qtype.name == "MXFP4":
        raw[:, 0] = [120, 1]
    if qtype.name == "NVFP4":
        raw[:, :4] = [[0x38, 0x01, 0x31, 0x7e], [0x00, 0x7f, 0x08, 0x40]]
    y = quants.dequantize(raw.reshape(1, -1), qtype).astype(np.float32).reshape(-1) + np.float32(0)
    assert np.isfinite(y).all(), qtype
    big = turned(raw, qtype.name)
    decoder = quants._type_traits[qtype]
    decoder.init_grid()
    there = decoder.dequantize_blocks(big.view(BigEndian)).astype(np.float32).reshape(-1) + np.float32(0)
    assert (np.asarray(there) == y).all(), qtype
    rows[qtype.name.lower()] = {
        "hex": raw.tobytes().hex(), "big": big.tobytes().hex(), "crc32": zlib.crc32(y.tobytes()),
        "samples": [float(y[0]), float(y[len(y) // 2]), float(y[-1])]}
path = pathlib.Path(__file__).parent / "blocks.json"
path.write_text("{\n" + ",\n".join(f' "{k}": {json.dumps(v)}' for k, v in rows.items()) + "\n}\n")
print(path.stat().st_size, "bytes", sorted(rows))
