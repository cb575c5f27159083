#!/usr/bin/env python3
"""Writes sampling.json: rows of logits before and after the logits processors of transformers.

Made with transformers 5.24.0 and torch 2.15.0 (CPU).  Usage: make.py OUT_DIR
The processors are taken from a GenerationConfig by `generate`'s own function, so their order is
the library's, not ours. null stands for -infinity.
"""
import json
import pathlib
import sys

import torch
import transformers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

VOCAB = 50
CASES = [
    {},
    {"temperature": 0.7},
    {"top_k": 5},
    {"top_k": 1},
    {"top_k": 200},
    {"top_p": 0.9},
    {"top_p": 0.3},
    {"top_p": 0.01},
    {"min_p": 0.1},
    {"min_p": 1.0},
    {"typical_p": 0.2},
    {"typical_p": 0.8},
    {"temperature": 1.4, "top_k": 25, "min_p": 0.02, "typical_p": 0.6},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.8, "temperature": 1.7},
    {"temperature": 0.6, "top_k": 20, "top_p": 0.8},
    {"temperature": 1.5, "top_p": 0.95, "min_p": 0.05, "repetition_penalty": 1.1},
    {"temperature": 2.0, "top_k": 30, "top_p": 0.7, "min_p": 0.2, "repetition_penalty": 1.5},
    {"sequence_bias": [[[3], 2.5], [[17], -4.0], [[41], 100.0]]},
    {"sequence_bias": [[[1], -3.0], [[5], 6.0]], "repetition_penalty": 1.4, "temperature": 0.8},
]


def main(out):
    torch.manual_seed(1)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCAB, hidden_size=16, intermediate_size=16,
                                         num_hidden_layers=1, num_attention_heads=2))
    rows = []
    for case in CASES:
        for spread in (0.5, 3.0, 12.0):
            logits = torch.randn(1, VOCAB) * spread
            context = torch.randint(0, VOCAB, (1, 12))
            config = GenerationConfig(do_sample=True, **{"top_k": 0, **case})
            model._prepare_special_tokens(config, device="cpu")
            processors = model._get_logits_processor(config, input_ids_seq_length=12)
            scores = processors(context, logits.clone())[0]
            rows.append({
                "options": case,
                "context": context[0].tolist(),
                "logits": logits[0].tolist(),
                "expected": [None if v == float("-inf") else v for v in scores.tolist()],
            })
    document = {"transformers": transformers.__version__, "rows": rows}
    (pathlib.Path(out) / "sampling.json").write_text(json.dumps(document) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
