"""Makes the golden checkpoints of small floats of tests/checkpoint/scaled_floats_test.cc.

Usage: make_floats.py OUTPUT_DIRECTORY
Made with compressed-tensors 0.20.0, torch 2.15.0, safetensors 0.8.0.

`float_quantized` is compressed by the compressed-tensors package and expected.safetensors is what its
decompressor gives, before it rounds NVFP4. `fp8` and `modelopt` are laid out as their writers describe, with torch's own
float8 casts; expected.safetensors is code * scale in float32.
"""

import json
import pathlib
import sys

import torch
from compressed_tensors.compressors.mxfp4.base import MXFP4PackedCompressor
from compressed_tensors.compressors.mxfp8.base import MXFP8QuantizationCompressor
from compressed_tensors.compressors.naive_quantized.base import FloatQuantizationCompressor
from compressed_tensors.compressors.nvfp4.base import NVFP4PackedCompressor
from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.lifecycle.forward import dequantize
from safetensors.torch import save_file

ROWS, COLS = 48, 128
E2M1 = torch.tensor([0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6])


def write(directory, tensors, expected, quantization):
    directory.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "llama", "quantization_config": quantization}
    (directory / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    save_file({k: v.contiguous() for k, v in tensors.items()}, directory / "model.safetensors",
              metadata={"format": "pt"})
    save_file({k: v.float().contiguous() for k, v in expected.items()},
              directory / "expected.safetensors")


def compressed(root):
    tensors, expected, groups = {}, {}, {}

    def add(name, form, compressor, args, state):
        scheme = QuantizationScheme(targets=[name], weights=args)
        stored = compressor.compress(dict(state), scheme)
        for key, value in stored.items():
            tensors[f"{name}.{key}"] = value
        expected[f"{name}.weight"] = compressor.decompress(dict(stored), scheme)["weight"]
        groups[f"group_{len(groups)}"] = {"targets": [name], "weights": args.model_dump(mode="json"),
                                          "input_activations": None, "output_activations": None,
                                          "format": form}

    weight = torch.randn(ROWS, COLS) * 0.1
    peak = weight.abs()
    for strategy, scale in (("tensor", peak.amax().reshape(1)),
                            ("channel", peak.amax(1, keepdim=True))):
        args = QuantizationArgs(num_bits=8, type="float", strategy=strategy, symmetric=True)
        add(f"fp8.{strategy}", "float-quantized", FloatQuantizationCompressor, args,
            {"weight": weight, "weight_scale": scale / 448})
    args = QuantizationArgs(num_bits=8, type="float", strategy="block", symmetric=True,
                            block_structure=[16, 32])
    blocks = peak.reshape(ROWS // 16, 16, COLS // 32, 32).amax((1, 3)) / 448
    add("fp8.block", "float-quantized", FloatQuantizationCompressor, args,
        {"weight": weight, "weight_scale": blocks})
    args = QuantizationArgs(num_bits=4, type="float", strategy="tensor_group", group_size=16,
                            symmetric=True)
    whole = (448 * 6 / peak.amax()).reshape(1)
    scale = (whole * peak.reshape(ROWS, -1, 16).amax(-1) / 6).to(torch.float8_e4m3fn)
    add("nvfp4", "nvfp4-pack-quantized", NVFP4PackedCompressor, args,
        {"weight": weight, "weight_scale": scale.float(), "weight_global_scale": whole})
    # The decompressor rounds to bfloat16; the same steps without that.
    codes = unpack_fp4_from_uint8(tensors["nvfp4.weight_packed"], ROWS, COLS, dtype=torch.float32)
    expected["nvfp4.weight"] = dequantize(codes, tensors["nvfp4.weight_scale"].float(), args=args,
                                          global_scale=whole)
    args = QuantizationArgs(num_bits=4, type="float", strategy="group", group_size=32,
                            symmetric=True, scale_dtype=torch.uint8)
    scale = torch.exp2(torch.floor(torch.log2(peak.reshape(ROWS, -1, 32).amax(-1))) - 2)
    add("mxfp4", "mxfp4-pack-quantized", MXFP4PackedCompressor, args,
        {"weight": weight, "weight_scale": scale})
    args = QuantizationArgs(num_bits=8, type="float", strategy="group", group_size=32,
                            symmetric=True, scale_dtype=torch.uint8)
    scale = torch.exp2(torch.floor(torch.log2(peak.reshape(ROWS, -1, 32).amax(-1))) - 8)
    add("mxfp8", "mxfp8-quantized", MXFP8QuantizationCompressor, args,
        {"weight": weight, "weight_scale": scale})
    write(root / "float_quantized", tensors, expected,
          {"quant_method": "compressed-tensors", "quantization_status": "compressed",
           "format": "mixed-precision", "config_groups": groups, "ignore": [],
           "version": "0.20.0"})


def fp8(root):
    """DeepSeek's blocks of 128 x 128, the last one short, and one scale for a matrix."""
    rows, cols = 160, 256
    codes = (torch.randn(rows, cols) * 40).to(torch.float8_e4m3fn)
    scales = torch.rand(2, 2) + 0.5
    full = scales.repeat_interleave(128, 0)[:rows].repeat_interleave(128, 1)
    tensors = {"blocks.weight": codes, "blocks.weight_scale_inv": scales,
               "whole.weight": codes[:16].clone(), "whole.weight_scale": torch.tensor(0.25)}
    expected = {"blocks.weight": codes.float() * full, "whole.weight": codes[:16].float() * 0.25}
    write(root / "fp8", tensors, expected,
          {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3",
           "weight_block_size": [128, 128]})


def modelopt(root):
    codes = torch.randint(0, 16, (ROWS, COLS), dtype=torch.uint8)
    scales = (torch.rand(ROWS, COLS // 16) * 200 + 1).to(torch.float8_e4m3fn)
    second = torch.tensor(0.0078125)
    values = E2M1[codes.long()] * (scales.float() * second).repeat_interleave(16, 1)
    eight = (torch.randn(ROWS, COLS) * 40).to(torch.float8_e4m3fn)
    tensors = {"nvfp4.weight": codes[:, ::2] | codes[:, 1::2] << 4, "nvfp4.weight_scale": scales,
               "nvfp4.weight_scale_2": second, "nvfp4.input_scale": torch.tensor(1.0),
               "fp8.weight": eight, "fp8.weight_scale": torch.tensor(0.125),
               "fp8.input_scale": torch.tensor(1.0)}
    write(root / "modelopt", tensors, {"nvfp4.weight": values, "fp8.weight": eight.float() * 0.125},
          {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"})


if __name__ == "__main__":
    torch.manual_seed(5)
    compressed(pathlib.Path(sys.argv[1]))
    fp8(pathlib.Path(sys.argv[1]))
    modelopt(pathlib.Path(sys.argv[1]))
