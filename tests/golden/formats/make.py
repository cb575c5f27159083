"""Writes small_floats.json: the values of every code of small float types, and casts to them; and
halves.json: casts to float16 and bfloat16.

    python make.py OUTPUT_DIRECTORY

Made with ml_dtypes 0.6.0 and numpy 2.4.6. Casts round to nearest, ties to even, without saturation.
NaN is written as "nan", infinities as "inf" and "-inf". Inputs are bits of float32, outputs codes.
"""

import json
import pathlib
import sys

import ml_dtypes
import numpy as np

TYPES = {
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e4m3ieee": ml_dtypes.float8_e4m3,
    "e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "e4m3fnuzb11": ml_dtypes.float8_e4m3b11fnuz,
    "e5m2": ml_dtypes.float8_e5m2,
    "e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "e3m4ieee": ml_dtypes.float8_e3m4,
    "e2m3": ml_dtypes.float6_e2m3fn,
    "e3m2": ml_dtypes.float6_e3m2fn,
    "e2m1": ml_dtypes.float4_e2m1fn,
}
BITS = {"e2m3": 6, "e3m2": 6, "e2m1": 4}


def inputs(values):
    """Every value, the middles between neighbours, both neighbours of those, and some beyond."""
    finite = np.unique(values[np.isfinite(values)])
    middles = ((finite[1:].astype(np.float64) + finite[:-1]) / 2).astype(np.float32)
    top = finite[-1]
    edge = (top + np.array([0.25, 0.5, 0.75, 1, 2]) * (top - finite[-2])).astype(np.float32)
    edge = np.concatenate([edge, -edge])
    points = np.concatenate([finite, middles, edge])
    near = [np.nextafter(points, np.float32(s)) for s in (-np.inf, np.inf)]
    special = np.array([np.inf, -np.inf, 3e38, -3e38, 1e-45, -1e-45], np.float32)
    return np.unique(np.concatenate([points, *near, special])).astype(np.float32)


def as_json(values):
    return [float(v) if np.isfinite(v) else str(float(v)) for v in values]


def main():
    result = {}
    for name, dtype in TYPES.items():
        codes = np.arange(2 ** BITS.get(name, 8), dtype=np.uint8)
        values = codes.view(dtype).astype(np.float32)
        x = inputs(values)
        cast = x.astype(dtype)
        result[name] = {
            "values": as_json(values),
            "inputs": x.view(np.uint32).tolist(),
            "codes": cast.view(np.uint8).tolist(),
        }
    write("small_floats.json", result)
    write("halves.json", {"f16": cast_halves(np.float16), "bf16": cast_halves(ml_dtypes.bfloat16)})


def cast_halves(dtype):
    """Some codes, the middles above them, and the floats around those."""
    codes = np.concatenate([np.arange(0, 2**15, 211), np.arange(40), np.arange(31700, 31746)])
    values = codes.astype(np.uint16).view(dtype).astype(np.float32)
    above = (codes + 1).astype(np.uint16).view(dtype).astype(np.float32)
    with np.errstate(all="ignore"):
        middles = ((values.astype(np.float64) + above) / 2).astype(np.float32)
    points = np.concatenate([values, middles, [65519.996, 65520, 3.3895e38, 3.3961e38, 1e-45]])
    points = points[np.isfinite(points)].astype(np.float32)
    near = [np.nextafter(points, np.float32(s)) for s in (-np.inf, np.inf)]
    x = np.unique(np.concatenate([points, *near, [np.inf]]).astype(np.float32))
    x = np.concatenate([x[x >= 0], -x[x >= 0]])
    with np.errstate(all="ignore"):
        cast = x.astype(dtype)
    return {"inputs": x.view(np.uint32).tolist(), "codes": cast.view(np.uint16).tolist()}


def write(name, result):
    path = pathlib.Path(sys.argv[1]) / name
    rows = [f'"{k}": {json.dumps(v, separators=(",", ":"))}' for k, v in result.items()]
    path.write_text("{\n" + ",\n".join(rows) + "\n}\n")


main()
