"""Checks that the compressed-tensors package reads a checkpoint as nibble does.

Usage: check_compressed_tensors.py CHECKPOINT_DIRECTORY VALUES.safetensors
VALUES holds `<module>.weight` in float32 as nibble decodes it. The package multiplies in the type
of the scales, so nibble's values are rounded to that type before they are compared, bit by bit.
Tried with compressed-tensors 0.20.0, torch 2.15.0, safetensors 0.8.0.
"""

import json
import pathlib
import sys

import torch
from compressed_tensors.compressors.base import BaseCompressor
from compressed_tensors.quantization import QuantizationConfig
from compressed_tensors.utils.match import is_match
from safetensors import safe_open


def load(directory):
    index = directory / "model.safetensors.index.json"
    names = (sorted(set(json.loads(index.read_text())["weight_map"].values()))
             if index.exists() else ["model.safetensors"])
    tensors = {}
    for name in names:
        with safe_open(directory / name, "pt") as file:
            tensors.update({key: file.get_tensor(key) for key in file.keys()})
    return tensors


def scheme_of(config, module):
    linear = torch.nn.Linear(1, 1)
    if is_match(module, linear, config.ignore):
        raise ValueError(f"{module} is ignored by the config")
    matches = [s for s in config.config_groups.values() if is_match(module, linear, s.targets)]
    if len(matches) != 1:
        raise ValueError(f"{module} is matched by {len(matches)} groups")
    return matches[0]


def main(directory, values_path):
    config = QuantizationConfig.model_validate(
        json.loads((directory / "config.json").read_text())["quantization_config"])
    compressor = BaseCompressor.get_value_from_registry(config.format)
    tensors = load(directory)
    with safe_open(values_path, "pt") as file:
        values = {key: file.get_tensor(key) for key in file.keys()}
    modules = sorted({key.rsplit(".", 1)[0] for key in tensors if key.endswith(".weight_packed")})
    wrong = []
    for module in modules:
        scheme = scheme_of(config, module)
        state = {key[len(module) + 1:]: value for key, value in tensors.items()
                 if key.rsplit(".", 1)[0] == module}
        expected = set(compressor.compression_param_names(scheme))
        weight = compressor.decompress(state, scheme)["weight"]
        ours = values[module + ".weight"].to(weight.dtype)
        if set(state) != expected or not torch.equal(weight, ours):
            wrong.append(module)
    print(f"{len(modules)} modules, {len(wrong)} differ", *wrong)
    if not modules or wrong:
        sys.exit(1)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
