"""Makes the golden checkpoint with columns in another order of tests/checkpoint/compressed_tensors_test.cc.

Usage: make_act_order.py OUTPUT_DIRECTORY
Made with compressed-tensors 0.11.0, the last line of versions that has actorder "group", torch
2.15.0, safetensors 0.8.0. expected.safetensors is what its dequantize() gives.
"""

import json
import pathlib
import sys

import torch
from compressed_tensors.compressors import PackedQuantizationCompressor
from compressed_tensors.compressors.quantized_compressors.pack_quantized import unpack_from_int32
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import dequantize
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors.torch import save_file

ROWS, COLS, GROUP = 20, 96, 32


def main(root):
    torch.manual_seed(6)
    tensors, expected, groups = {}, {}, {}
    compressor = PackedQuantizationCompressor()
    for symmetric in (True, False):
        name = "sym" if symmetric else "asym"
        args = QuantizationArgs(num_bits=4, strategy="group", group_size=GROUP,
                                symmetric=symmetric, actorder="group")
        weight = (torch.randn(ROWS, COLS) * 0.1).to(torch.bfloat16)
        group_of = (torch.argsort(torch.randperm(COLS)) // GROUP).to(torch.int32)
        blocks = weight[:, torch.argsort(group_of, stable=True)].reshape(ROWS, -1, GROUP)
        scale, zero = calculate_qparams(blocks.amin(-1), blocks.amax(-1), args)
        stored = compressor.compress_weight(weight, scale, quantization_args=args, zero_point=zero,
                                            g_idx=group_of)
        stored |= {"weight_scale": scale, "weight_g_idx": group_of}
        codes = unpack_from_int32(stored["weight_packed"], 4, weight.shape)
        expected[f"{name}.weight"] = dequantize(codes, scale, zero, g_idx=group_of)
        for key, value in stored.items():
            tensors[f"{name}.{key}"] = value.contiguous()
        groups[f"group_{len(groups)}"] = {
            "targets": [name], "weights": args.model_dump(mode="json"), "input_activations": None,
            "output_activations": None}
    directory = root / "act_order"
    directory.mkdir(parents=True, exist_ok=True)
    quantization = {"quant_method": "compressed-tensors", "quantization_status": "compressed",
                    "format": "pack-quantized", "config_groups": groups, "ignore": ["lm_head"],
                    "version": "0.11.0"}
    tensors["lm_head.weight"] = torch.randn(4, COLS).to(torch.bfloat16)
    (directory / "config.json").write_text(
        json.dumps({"model_type": "llama", "quantization_config": quantization}, indent=1) + "\n")
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    save_file(expected, directory / "expected.safetensors")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
