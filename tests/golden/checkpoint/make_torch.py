"""Writes checkpoints of torch.save, and the same tensors as safetensors.

Usage: make_torch.py OUTPUT_DIRECTORY     (torch 2.15, safetensors)

  torch_bin      pytorch_model.bin: every dtype, tensors that share a storage, begin in its middle or
                 do not lie in order, and a parameter
  torch_sharded  two shards under an index; the state stands under "state_dict", protocol 4
  torch_old      the form before PyTorch 1.6
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import save_file


def finish(path, tensors):
    (path / "config.json").write_text('{"model_type": "none"}\n')
    save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()},
              path / "expected.safetensors")


def make(directory):
    generator = torch.Generator().manual_seed(5)
    base = torch.randn(6, 10, generator=generator)
    tensors = {
        "whole": base,
        "rows": base[2:4],
        "turned": base.t(),
        "columns": base[:, 1::3],
        "half": torch.randn(3, 4, 5, generator=generator).half(),
        "bf16": torch.randn(7, generator=generator).bfloat16(),
        "double": torch.randn(2, 2, generator=generator).double(),
        "scalar": torch.tensor(2.5),
        "none": torch.empty(0, 4),
        "i64": torch.arange(5),
        "i32": torch.arange(4, dtype=torch.int32),
        "i16": torch.arange(3, dtype=torch.int16),
        "i8": torch.arange(3, dtype=torch.int8) - 1,
        "u8": torch.arange(9, dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]),
        "fp8": torch.randn(8, generator=generator).to(torch.float8_e4m3fn),
        "parameter": torch.nn.Parameter(torch.randn(2, 3, generator=generator)),
    }
    path = directory / "torch_bin"
    path.mkdir(exist_ok=True)
    torch.save(tensors, path / "pytorch_model.bin")
    finish(path, tensors)

    path = directory / "torch_sharded"
    path.mkdir(exist_ok=True)
    shards = [{"a.weight": base[:3].clone()}, {"b.weight": base[3:].clone(), "b.bias": base[0].clone()}]
    weight_map = {}
    for i, shard in enumerate(shards):
        name = f"pytorch_model-{i + 1:05}-of-00002.bin"
        torch.save({"epoch": 3, "lr": 0.1, "state_dict": shard}, path / name, pickle_protocol=4)
        weight_map.update({k: name for k in shard})
    (path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}) + "\n")
    finish(path, {**shards[0], **shards[1]})

    path = directory / "torch_old"
    path.mkdir(exist_ok=True)
    torch.save({"a": torch.ones(2)}, path / "pytorch_model.bin",
               _use_new_zipfile_serialization=False)
    (path / "config.json").write_text('{"model_type": "none"}\n')


if __name__ == "__main__":
    make(pathlib.Path(sys.argv[1]))
