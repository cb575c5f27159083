"""Makes the golden Marlin checkpoint of tests/checkpoint/marlin_test.cc.

Usage: make_marlin.py MARLIN_INIT OUTPUT_DIRECTORY      (numpy 2.x)

MARLIN_INIT is marlin/__init__.py of github.com/IST-DASLab/marlin, of which the two functions that order codes and scales are run;
the package itself needs a GPU to be imported. expected.safetensors holds scale * (code - 8), computed from the
numbers that were packed.
"""

import ast
import json
import pathlib
import sys

import numpy as np

from write_safetensors import save


class NumpyAsTorch:
    from_numpy = staticmethod(lambda array: array)


def permutations(source):
    tree = ast.parse(pathlib.Path(source).read_text())
    found = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "_get_perms")
    scope = {"np": np, "torch": NumpyAsTorch}
    exec(compile(ast.Module([found], []), source, "exec"), scope)
    return scope["_get_perms"]()


def pack(codes, scales, perms):
    """Layer.pack from its integers on: codes [in, out], scales [groups, out]."""
    perm, scale_perm, scale_perm_single = (np.array(p) for p in perms)
    inputs, outputs = codes.shape
    order = scale_perm_single if scales.shape[0] == 1 else scale_perm
    scales = scales.reshape(-1, len(order))[:, order].reshape(-1, outputs)
    tiles = codes.reshape(inputs // 16, 16, outputs // 16, 16).transpose(0, 2, 1, 3)
    places = tiles.reshape(inputs // 16, outputs * 16).reshape(-1, perm.size)[:, perm]
    places = places.reshape(inputs // 16, outputs * 16).astype(np.uint32)
    words = np.zeros((inputs // 16, outputs * 2), dtype=np.uint32)
    for i in range(8):
        words |= places[:, i::8] << (4 * i)
    return {"B": words.view(np.int32), "s": scales}


def main():
    perms = permutations(sys.argv[1])
    out = pathlib.Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(11)
    tensors, expected = {}, {}
    for name, rows, cols, groups in (("layers.0.rows", 64, 32, 1), ("layers.0.groups", 128, 256, 2)):
        codes = random.integers(0, 16, (cols, rows))
        scales = (random.random((groups, rows)) * 0.05 + 0.01).astype(np.float16)
        tensors |= {f"{name}.{part}": array for part, array in pack(codes, scales, perms).items()}
        per_input = np.repeat(scales.astype(np.float32), cols // groups, axis=0)
        expected[f"{name}.weight"] = ((codes - 8).astype(np.float32) * per_input).T
    save(out / "model.safetensors", tensors)
    save(out / "expected.safetensors", expected)
    config = {"model_type": "llama", "quantization_config": {
        "quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True,
        "checkpoint_format": "marlin", "is_marlin_format": True}}
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")


main()
