"""Makes the golden bitsandbytes checkpoints of tests/checkpoint/bnb_test.cc.

Usage: make_bnb.py OUTPUT_DIRECTORY
Made with bitsandbytes 0.50.2 (on the CPU), torch 2.15.0, safetensors 0.8.0.

expected.safetensors holds what the library's own dequantization gives, in float32.
"""

import json
import pathlib
import sys

import torch
from bitsandbytes import functional
from safetensors.torch import save_file

ROWS, COLS = 40, 128


def main(root):
    torch.manual_seed(4)
    tensors, expected = {}, {}
    for kind in ("nf4", "fp4"):
        for block in (64, 128):
            for nested in (False, True):
                name = f"{kind}.{block}.{'nested' if nested else 'plain'}"
                weight = torch.randn(ROWS, COLS) * 0.05
                packed, state = functional.quantize_4bit(weight, blocksize=block, quant_type=kind,
                                                         compress_statistics=nested)
                expected[f"{name}.weight"] = functional.dequantize_4bit(packed, state)
                tensors[f"{name}.weight"] = packed
                for key, value in state.as_dict(packed=True).items():
                    tensors[f"{name}.weight.{key}"] = value
    # Rows that are no whole number of blocks: blocks run over their ends.
    weight = torch.randn(6, 96) * 0.05
    packed, state = functional.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    # The library's CPU kernel takes such blocks for blocks of rows and is wrong by it (0.067 against
    # 0.021 at most from the weights), so its own definition is computed here.
    codes = torch.stack([packed.flatten() >> 4, packed.flatten() & 15], 1).flatten().long()
    expected["odd.weight"] = (state.code[codes] * state.absmax.repeat_interleave(64)).reshape(6, 96)
    tensors["odd.weight"] = packed
    for key, value in state.as_dict(packed=True).items():
        tensors[f"odd.weight.{key}"] = value

    weight = torch.randn(ROWS, COLS).half()
    codes, maxima, _ = functional.int8_vectorwise_quant(weight)
    tensors |= {"int8.weight": codes, "int8.SCB": maxima,
                "int8.weight_format": torch.tensor(0, dtype=torch.uint8)}
    expected["int8.weight"] = functional.int8_vectorwise_dequant(codes, maxima)

    directory = root / "bnb"
    directory.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "llama", "quantization_config": {
        "quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False,
        "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}}
    (directory / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    save_file({k: v.contiguous() for k, v in tensors.items()}, directory / "model.safetensors",
              metadata={"format": "pt"})
    save_file({k: v.float().contiguous() for k, v in expected.items()},
              directory / "expected.safetensors")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
