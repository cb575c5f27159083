#!/usr/bin/env python3
"""Writes trellis.json: random codes and the weights that docs/formats.md says they mean.

Written from that text alone, with big integers for the bit streams and sums over the whole Hadamard
matrix, in double precision. Usage: make_trellis.py > trellis.json
"""
import json
import math
import random


def value(state):
    x = state * 0x83DCD12D % 2**32
    return (sum(x.to_bytes(4, "little")) - 510) / 128


def sign(col):
    x = (col + 1) * 0x9E3779B1 % 2**32
    x = (x ^ x >> 15) * 0x85EBCA77 % 2**32
    return -1 if (x ^ x >> 13) & 1 else 1


def decode(words, bits, rows, cols, scales):
    size = 8 * bits  # words of a tile
    block = max(2**k for k in range(8) if cols % 2**k == 0)
    result = []
    for row in range(rows):
        coded = []
        for col in range(cols):
            begin = (row // 16 * (cols // 16) + col // 16) * size
            stream = sum(w << 32 * i for i, w in enumerate(words[begin : begin + size]))
            stream |= stream << 32 * size  # it closes on itself
            t = row % 16 * 16 + col % 16
            coded.append(value(stream >> t * bits & 0xFFFF) * scales[row])
        for col in range(cols):
            first, j = col // block * block, col % block
            total = sum((-1) ** (j & k).bit_count() * coded[first + k] for k in range(block))
            result.append(total * sign(col) / math.sqrt(block))
    return result


def main():
    source = random.Random(5)
    cases = []
    for bits, rows, cols in [(2, 17, 16), (3, 2, 48), (4, 1, 64)]:
        words = [source.getrandbits(32) for _ in range((rows + 15) // 16 * cols // 16 * 8 * bits)]
        scales = [source.choice([0.25, 0.5, 0.75]) for _ in range(rows)]
        decoded = decode(words, bits, rows, cols, scales)
        cases.append(
            {
                "bits": bits,
                "rows": rows,
                "cols": cols,
                "words": words,
                "scales": scales,
                "decoded": [round(v, 5) for v in decoded],
            }
        )
    print(json.dumps({"cases": cases}))


main()
