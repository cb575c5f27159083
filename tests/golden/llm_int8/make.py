"""Writes llm_int8.json: rows rounded, and a product computed, by LLM.int8() of bitsandbytes.

    python make.py OUTPUT_DIRECTORY

Made with bitsandbytes 0.50.2 (its CPU path) and torch 2.15.0. `x` holds values of half precision;
`codes`, `row_absmax` and `outlier_columns` are int8_vectorwise_quant(x, threshold=6.0); `w` are int8 codes with `w_absmax` by row, and `y` is
int8_mixed_scaled_mm of them.
"""

import json
import pathlib
import sys

import bitsandbytes.functional as F
import torch

ROWS, COLS, OUTPUTS, THRESHOLD = 6, 64, 5, 6.0


def main(out: pathlib.Path) -> None:
    torch.manual_seed(5)
    x = torch.randn(ROWS, COLS).half()
    x[1, 7], x[3, 20], x[4, 20], x[5, 33] = 8.0, -6.5, 30.0, 6.0
    x[2] = 0
    w = torch.randn(OUTPUTS, COLS).half()
    codes, absmax, outliers = F.int8_vectorwise_quant(x.clone(), threshold=THRESHOLD)
    w_codes, w_absmax, _ = F.int8_vectorwise_quant(w)
    y, _ = torch.ops.bitsandbytes.int8_mixed_scaled_mm(
        x.clone(), codes, w_codes, absmax, w_absmax, outliers, None)
    golden = {
        "threshold": THRESHOLD,
        "x": x.float().tolist(),
        "codes": codes.tolist(),
        "row_absmax": absmax.tolist(),
        "outlier_columns": outliers.tolist(),
        "w": w_codes.tolist(),
        "w_absmax": w_absmax.float().tolist(),
        "y": y.float().tolist(),
    }
    (out / "llm_int8.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
