"""Makes the golden GPTQ and AWQ checkpoints of tests/checkpoint/gptq_awq_test.cc.

Usage: make_gptq_awq.py GPTQMODEL_SOURCE AUTOAWQ_SOURCE OUTPUT_DIRECTORY
Made with the source archives of gptqmodel 7.7.0 and autoawq 0.2.9, torch 2.15.0, safetensors 0.8.0.

The words are packed by the packages' own functions, taken out of their sources, because the packages
themselves need a GPU to be imported. expected.safetensors holds scale * (code - zero), computed from
the numbers that were packed.
"""

import ast
import json
import math
import pathlib
import sys
import types

import numpy as np
import torch
from safetensors.torch import save_file

ROWS, COLS, GROUP = 32, 128, 32


def function_of(path, name, names):
    """One function or method of a source file, compiled by itself."""
    tree = ast.parse(path.read_text())
    found = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == name)
    found.decorator_list, found.returns = [], None
    for argument in found.args.args:
        argument.annotation = None
    scope = dict(names)
    exec(compile(ast.Module([found], []), str(path), "exec"), scope)
    return scope[name]


class NoLimits:
    def threadpool_limits(self, _):
        return __import__("contextlib").nullcontext()


class Layer(types.SimpleNamespace):
    def register_buffer(self, name, value):
        setattr(self, name, value)


def random_layer(bits, symmetric, groups, group_of_column, dtype=torch.float16):
    """Codes, scales and zero points [rows, groups], and the values that they stand for."""
    codes = torch.randint(0, 1 << bits, (ROWS, COLS))
    scales = (torch.rand(ROWS, groups) * 0.05 + 0.01).to(dtype)
    zeros = torch.full((ROWS, groups), 1 << (bits - 1)) if symmetric else \
        torch.randint(0, 1 << bits, (ROWS, groups))
    index = group_of_column.long()
    values = scales.float()[:, index] * (codes - zeros[:, index]).float()
    return codes, scales, zeros, values


def pack_gptq(source, bits, values, scales, zeros, group_of_column):
    pack = function_of(source / "gptqmodel/nn_modules/qlinear/__init__.py", "pack_original", {
        "t": torch, "np": np, "nn": torch.nn, "math": math, "_ConvNd": torch.nn.Conv2d,
        "THREADPOOLCTL": NoLimits(),
        "transformers": types.SimpleNamespace(
            pytorch_utils=types.SimpleNamespace(Conv1D=torch.nn.Conv2d))})
    layer = Layer(bits=bits, maxq=(1 << bits) - 1, planar=False, pack_dtype_bits=32,
                  pack_factor=32 // bits, pack_np_math_dtype=np.uint32, pack_np_dtype=np.int32,
                  g_idx=group_of_column)
    linear = torch.nn.Linear(COLS, ROWS, bias=False)
    linear.weight.data = values.clone()
    pack(layer, linear, scales, zeros, group_of_column)
    return {"qweight": layer.qweight, "qzeros": layer.qzeros, "scales": layer.scales,
            "g_idx": layer.g_idx.to(torch.int32)}


def less_one(words, bits):
    """Zero points of version 1: every field of the words one less, in its width."""
    codes = words.numpy().view(np.uint32)
    stream = np.unpackbits(codes.view(np.uint8).reshape(codes.shape[0], -1), axis=1,
                           bitorder="little").reshape(codes.shape[0], -1, bits)
    values = ((stream * (1 << np.arange(bits))).sum(-1) - 1) % (1 << bits)
    bits_out = (values[..., None] >> np.arange(bits)) & 1
    packed = np.packbits(bits_out.astype(np.uint8).reshape(codes.shape[0], -1), axis=1,
                         bitorder="little")
    return torch.from_numpy(packed.view(np.int32).copy())


def write(directory, tensors, expected, quantization, config_file=None):
    directory.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "llama"}
    if config_file is None:
        config["quantization_config"] = quantization
    else:
        (directory / config_file).write_text(json.dumps(quantization, indent=1) + "\n")
    (directory / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    tensors = {k: v.contiguous() for k, v in tensors.items()}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    save_file({k: v.contiguous() for k, v in expected.items()}, directory / "expected.safetensors")


def gptq(source, root, version):
    tensors, expected, dynamic = {}, {}, {}
    for bits in (2, 3, 4, 8):
        for symmetric in (True, False):
            for group in (GROUP, -1):
                name = f"layers.{bits}.{'sym' if symmetric else 'asym'}.g{group}".replace("-1", "all")
                index = torch.arange(COLS) // (group if group > 0 else COLS)
                _, scales, zeros, values = random_layer(bits, symmetric, int(index[-1]) + 1, index)
                packed = pack_gptq(source, bits, values, scales, zeros, index)
                if version == 1:
                    packed["qzeros"] = less_one(packed["qzeros"], bits)
                tensors |= {f"{name}.{k}": v for k, v in packed.items()}
                expected[name + ".weight"] = values
                dynamic["+:^" + name.replace(".", r"\.") + "$"] = {
                    "bits": bits, "group_size": group, "sym": symmetric}
    config = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True,
              "checkpoint_format": "gptq" if version == 1 else "gptq_v2", "dynamic": dynamic}
    write(root / f"gptq_v{version}", tensors, expected, config)


def gptq_act_order(source, root):
    """The old form: quantize_config.json, no checkpoint_format, columns grouped by importance."""
    order = torch.randperm(COLS)
    index = torch.empty(COLS, dtype=torch.int64)
    index[order] = torch.arange(COLS) // GROUP
    _, scales, zeros, values = random_layer(4, False, COLS // GROUP, index)
    packed = pack_gptq(source, 4, values, scales, zeros, index)
    packed["qzeros"] = less_one(packed["qzeros"], 4)
    write(root / "gptq_act_order", {f"a.{k}": v for k, v in packed.items()},
          {"a.weight": values.half()},
          {"bits": 4, "group_size": GROUP, "desc_act": True, "sym": False},
          "quantize_config.json")


def awq_modules(source):
    """AutoAWQ's linear layers, without the package around them."""
    for name in ("awq", "awq.modules", "awq.modules.linear", "awq.utils"):
        module = types.ModuleType(name)
        module.__path__ = [str(source / name.replace(".", "/"))]
        sys.modules[name] = module
    stub = types.ModuleType("awq.utils.module")
    stub.try_import = lambda _: (None, "")
    sys.modules["awq.utils.module"] = stub
    stub = types.ModuleType("awq.utils.utils")
    stub.get_best_device = lambda: "cpu"
    sys.modules["awq.utils.utils"] = stub
    from awq.modules.linear.gemm import WQLinear_GEMM
    from awq.modules.linear.gemv import WQLinear_GEMV
    from awq.modules.linear.gemv_fast import WQLinear_GEMVFast
    return {"gemm": WQLinear_GEMM, "gemv": WQLinear_GEMV, "gemv_fast": WQLinear_GEMVFast}


def awq(source, root):
    for version, layer in awq_modules(source).items():
        tensors, expected = {}, {}
        for group in (GROUP, 64):
            index = torch.arange(COLS) // group
            _, scales, zeros, values = random_layer(4, False, COLS // group, index)
            linear = torch.nn.Linear(COLS, ROWS, bias=False)
            linear.weight.data = values.clone()
            turned = version == "gemm"
            packed = layer.from_linear(linear, 4, group,
                                       scales=scales.t().contiguous() if turned else scales,
                                       zeros=zeros.t().contiguous() if turned else zeros)
            directory = root / f"awq_{version}_g{group}"
            tensors = {f"a.{k}": v for k, v in packed.state_dict().items()}
            config = {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True,
                      "version": version}
            if version == "gemm" and group == 64:  # the old form
                old = {"w_bit": 4, "q_group_size": group, "zero_point": True, "version": "GEMM"}
                write(directory, tensors, {"a.weight": values}, old, "quant_config.json")
            else:
                write(directory, tensors, {"a.weight": values}, config)


def main(gptqmodel, autoawq, root):
    torch.manual_seed(3)
    gptq(gptqmodel, root, 1)
    gptq(gptqmodel, root, 2)
    gptq_act_order(gptqmodel, root)
    awq(autoawq, root)


if __name__ == "__main__":
    main(*(pathlib.Path(a) for a in sys.argv[1:4]))
