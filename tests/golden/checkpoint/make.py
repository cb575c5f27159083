"""Makes the golden checkpoints of tests/checkpoint/compressed_tensors_test.cc.

Usage: make.py OUTPUT_DIRECTORY
Made with compressed-tensors 0.20.0, torch 2.15.0, safetensors 0.8.0.

Each directory holds a checkpoint written by the reference packages and expected.safetensors, the
weights as the compressed-tensors decompressor gives them. In `padded` the packing of versions
before 0.17 is written, from its description: 32 // bits whole codes in each word.
"""

import json
import pathlib
import sys

import torch
from compressed_tensors.compressors.naive_quantized.base import IntQuantizationCompressor
from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors.torch import save_file

ROWS, COLS, GROUP = 20, 96, 32
DTYPES = {2: torch.float16, 3: torch.bfloat16, 4: torch.bfloat16, 5: torch.float32,
          6: torch.float16, 7: torch.float32, 8: torch.bfloat16}


def parameters(weight, args, dtype):
    """Scales and zero points of the observer's formula, [rows, groups] or [1]."""
    if args.strategy == "group":
        blocks = weight.reshape(ROWS, COLS // GROUP, GROUP)
        low, high = blocks.amin(-1), blocks.amax(-1)
    elif args.strategy == "channel":
        low, high = weight.amin(-1, keepdim=True), weight.amax(-1, keepdim=True)
    else:
        low, high = weight.amin().reshape(1), weight.amax().reshape(1)
    scale, zero = calculate_qparams(low, high, args)
    return scale.to(dtype), zero.to(torch.int8)


def padded(values, bits, axis):
    """int8 codes packed as before version 0.17."""
    per_word = 32 // bits
    codes = values.to(torch.int64) + (1 << (bits - 1))
    if axis == 0:
        codes = codes.T
    words = -(-codes.shape[1] // per_word)
    codes = torch.nn.functional.pad(codes, (0, words * per_word - codes.shape[1]))
    shifts = torch.arange(per_word, dtype=torch.int64) * bits
    packed = (codes.reshape(codes.shape[0], words, per_word) << shifts).sum(-1).to(torch.int32)
    return (packed.T if axis == 0 else packed).contiguous()


def make_module(name, args, dtype, compressor, tensors, expected, old=False):
    scheme = QuantizationScheme(targets=[name], weights=args)
    weight = torch.randn(ROWS, COLS).to(dtype).float() * 0.1
    scale, zero = parameters(weight, args, dtype)
    state = {"weight": weight.to(dtype), "weight_scale": scale, "weight_zero_point": zero}
    stored = compressor.compress(state, scheme)
    expected[name + ".weight"] = compressor.decompress(stored, scheme)["weight"].contiguous()
    if old:
        from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
        codes = unpack_from_int32(stored["weight_packed"], args.num_bits, (ROWS, COLS))
        stored["weight_packed"] = padded(codes, args.num_bits, 1)
        if "weight_zero_point" in stored:
            stored["weight_zero_point"] = padded(zero, args.num_bits, 0)
    for key, value in stored.items():
        tensors[f"{name}.{key}"] = value.contiguous()


def write(directory, tensors, expected, groups, **more):
    directory.mkdir(parents=True, exist_ok=True)
    quantization = {"quant_method": "compressed-tensors", "quantization_status": "compressed",
                    "config_groups": groups, "ignore": ["lm_head"], **more}
    tensors["lm_head.weight"] = torch.randn(4, COLS).to(torch.bfloat16)
    (directory / "config.json").write_text(
        json.dumps({"model_type": "llama", "quantization_config": quantization}, indent=1) + "\n")
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    save_file(expected, directory / "expected.safetensors")


def cases(strategies):
    for bits in range(2, 9):
        for strategy in strategies:
            for symmetric in (True, False):
                args = QuantizationArgs(num_bits=bits, strategy=strategy, symmetric=symmetric,
                                        group_size=GROUP if strategy == "group" else None)
                yield f"layers.{bits}.{strategy}.{'sym' if symmetric else 'asym'}", args


def group_of(targets, args, **more):
    return {"targets": targets, "weights": args.model_dump(), "input_activations": None,
            "output_activations": None, **more}


def main(root):
    torch.manual_seed(2)
    for directory, old in (("pack_quantized", False), ("padded", True)):
        tensors, expected, groups = {}, {}, {}
        for name, args in cases(["group", "channel", "tensor"] if not old else ["group", "channel"]):
            make_module(name, args, DTYPES[args.num_bits], PackedQuantizationCompressor, tensors,
                        expected, old)
            # Exact names, patterns and the class are all used as targets.
            target = name if args.num_bits < 6 else "re:" + name.replace(".", r"\.") + "$"
            groups[f"group_{len(groups)}"] = group_of([target], args)
        write(root / directory, tensors, expected, groups, format="pack-quantized",
              version="0.9.2" if old else "0.20.0")

    tensors, expected = {}, {}
    args = QuantizationArgs(num_bits=8, strategy="channel", symmetric=True)
    make_module("a", args, torch.float32, IntQuantizationCompressor, tensors, expected)
    asymmetric = QuantizationArgs(num_bits=4, strategy="group", group_size=GROUP, symmetric=False)
    make_module("b", asymmetric, torch.bfloat16, IntQuantizationCompressor, tensors, expected)
    whole = QuantizationArgs(num_bits=8, strategy="tensor", symmetric=False)
    make_module("c", whole, torch.float16, IntQuantizationCompressor, tensors, expected)
    write(root / "int_quantized", tensors, expected,
          {"group_0": group_of(["Linear"], args), "group_1": group_of(["b"], asymmetric),
           "group_2": group_of([r"re:^c$"], whole)},
          format="int-quantized", version="0.20.0")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
