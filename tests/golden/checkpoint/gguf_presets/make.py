#!/usr/bin/env python3
"""Writes expected.json: the type that llama.cpp's own quantizer gives each tensor, by preset.

    make.py LIBRARY

LIBRARY is a built libllama.so; the packages gguf and numpy are needed. Models have one tensor of
each role a layer, as small as the blocks allow; types depend on names, layers, heads, experts and
the length of rows alone. A tensor that stays as it was is "F32".
"""

import ctypes
import json
import os
import sys
import tempfile

import gguf
import numpy as np

FILE_TYPES = {
    "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K_S": 11, "Q3_K_M": 12,
    "Q3_K_L": 13, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_S": 16, "Q5_K_M": 17, "Q6_K": 18,
    "Q2_K_S": 21, "IQ4_NL": 25, "IQ4_XS": 30, "TQ1_0": 36, "TQ2_0": 37, "MXFP4_MOE": 38}

SPLIT = ["attn_q", "attn_k", "attn_v"]
MLP = ["ffn_gate", "ffn_up", "ffn_down"]
EXPERTS = ["ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"]

MODELS = [
    {"arch": "llama", "layers": 32, "heads": 8, "kv_heads": 2, "cols": 256, "output": True},
    {"arch": "llama", "layers": 12, "heads": 4, "kv_heads": 4, "cols": 256, "output": False},
    {"arch": "llama", "layers": 6, "heads": 4, "kv_heads": 2, "cols": 160, "output": True},
    {"arch": "llama", "layers": 3, "heads": 4, "kv_heads": 2, "cols": 48, "output": False},
    {"arch": "llama", "layers": 80, "heads": 8, "kv_heads": 1, "cols": 256, "output": True},
    {"arch": "llama", "layers": 8, "heads": 8, "kv_heads": 2, "cols": 256, "output": True,
     "experts": 8},
    {"arch": "llama", "layers": 8, "heads": 8, "kv_heads": 2, "cols": 256, "output": True,
     "experts": 4},
    {"arch": "phi3", "layers": 16, "heads": 4, "kv_heads": 4, "cols": 256, "output": True},
    {"arch": "gpt2", "layers": 8, "heads": 4, "kv_heads": 4, "cols": 256, "output": False},
]


def roles(model):
    qkv = SPLIT if model["arch"] == "llama" else ["attn_qkv"]
    mlp = MLP[1:] if model["arch"] != "llama" else EXPERTS if "experts" in model else MLP
    return qkv + ["attn_output"] + mlp


def write_model(path, model):
    writer = gguf.GGUFWriter(path, model["arch"])
    writer.add_block_count(model["layers"])
    writer.add_context_length(64)
    writer.add_embedding_length(model["cols"])
    writer.add_feed_forward_length(model["cols"])
    writer.add_head_count(model["heads"])
    writer.add_head_count_kv(model["kv_heads"])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_layer_norm_eps(1e-5)
    writer.add_rope_dimension_count(model["cols"] // model["heads"])
    writer.add_sliding_window(0)
    writer.add_vocab_size(32)
    writer.add_tokenizer_model("none")
    if "experts" in model:
        writer.add_expert_count(model["experts"])
        writer.add_expert_used_count(2)
    matrix = np.random.default_rng(1).standard_normal((2, model["cols"])).astype(np.float32)
    stack = np.repeat(matrix[None], 2, axis=0)
    writer.add_tensor("token_embd.weight", matrix)
    writer.add_tensor("output_norm.weight", matrix[0])
    if model["output"]:
        writer.add_tensor("output.weight", matrix)
    for layer in range(model["layers"]):
        for role in roles(model):
            writer.add_tensor(f"blk.{layer}.{role}.weight", stack if "exps" in role else matrix)
        writer.add_tensor(f"blk.{layer}.attn_norm.weight", matrix[0])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Parameters(ctypes.Structure):
    """The leading fields of llama_model_quantize_params; the rest stays as the library made it."""
    _fields_ = [("threads", ctypes.c_int32), ("file_type", ctypes.c_int32),
                ("rest", ctypes.c_uint8 * 1024)]


def quantize(library, source, target, file_type):
    library.llama_model_quantize_default_params.restype = Parameters
    parameters = library.llama_model_quantize_default_params()
    parameters.threads, parameters.file_type = 1, file_type
    return library.llama_model_quantize(source.encode(), target.encode(),
                                        ctypes.byref(parameters)) == 0


def main():
    library = ctypes.CDLL(sys.argv[1])
    silent = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(
        lambda *_: None)
    library.llama_log_set(silent, None)
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        source, target = os.path.join(folder, "in.gguf"), os.path.join(folder, "out.gguf")
        for model in MODELS:
            write_model(source, model)
            presets = {}
            for preset, file_type in FILE_TYPES.items():
                if not quantize(library, source, target, file_type):
                    continue  # Q2_K_S without an importance matrix
                types = {t.name: t.tensor_type.name for t in gguf.GGUFReader(target).tensors}
                row = {"token_embd": types["token_embd.weight"]}
                if model["output"]:
                    row["output"] = types["output.weight"]
                for role in roles(model):
                    row[role] = [types[f"blk.{layer}.{role}.weight"]
                                 for layer in range(model["layers"])]
                    if len(set(row[role])) == 1:
                        row[role] = row[role][0]
                presets[preset] = row
            cases.append({"model": model, "presets": presets})
    with open(os.path.join(os.path.dirname(__file__), "expected.json"), "w") as file:
        json.dump(cases, file, separators=(",", ":"))
        file.write("\n")


main()
