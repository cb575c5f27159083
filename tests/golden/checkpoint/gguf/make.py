"""A tiny random Llama as a GGUF file of many types, and its logits: model.gguf and expected.json.

    pip install gguf==0.19.0 numpy && python make.py

The logits are those of a forward pass below in the conventions of llama.cpp (pairs of neighbours are
rotated, no rows are moved), on weights that the package decodes, in float64.
"""
import json
import pathlib

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

HERE = pathlib.Path(__file__).parent
H, HEADS, KV, D, FFN, VOCAB, EPS = 32, 2, 1, 16, 256, 24, 1e-5
rng = np.random.default_rng(5)
tokens = ["<unk>", "<s>", "</s>"] + ["\u2581", "a", "b", "c", "\u2581a", "bc", "\u2581ab", "abc", "\u2581abc"]
tokens += [f"<0x{b:02X}>" for b in range(0x41, 0x41 + VOCAB - len(tokens))]
types = [2, 3, 3] + [1] * 9 + [6] * (VOCAB - 12)
scores = [0.0] * 7 + [-1.0, -2.0, -3.0, -4.0, -5.0] + [0.0] * (VOCAB - 12)

writer = gguf.GGUFWriter(HERE / "model.gguf", "llama")
writer.add_block_count(1)
writer.add_context_length(64)
writer.add_embedding_length(H)
writer.add_feed_forward_length(FFN)
writer.add_head_count(HEADS)
writer.add_head_count_kv(KV)
writer.add_layer_norm_rms_eps(EPS)
writer.add_rope_freq_base(10000.0)
writer.add_tokenizer_model("llama")
writer.add_tokenizer_pre("default")
writer.add_token_list(tokens)
writer.add_token_scores(scores)
writer.add_token_types(types)
writer.add_bos_token_id(1)
writer.add_eos_token_id(2)
writer.add_unk_token_id(0)
writer.add_chat_template("{{ messages[0].content }}")

weights = {}


def add(name, shape, qtype, scale=0.2):
    w = rng.normal(0, scale, shape).astype(np.float32)
    if qtype == T.Q4_K:  # the package has no encoder: random codes under small scales
        raw = rng.integers(0, 256, (shape[0], shape[1] // 256 * 144), dtype=np.uint8)
        raw[:, 0:4] = np.array([0.002, 0.01], np.float16).view(np.uint8)
    else:
        raw = gguf.quants.quantize(w, qtype)
    writer.add_tensor(name, raw, raw_dtype=qtype)
    weights[name] = gguf.quants.dequantize(raw, qtype).astype(np.float64).reshape(shape)


add("token_embd.weight", (VOCAB, H), T.F16, 1.0)
add("output_norm.weight", (H,), T.F32, 1.0)
add("output.weight", (VOCAB, H), T.Q8_0)
add("blk.0.attn_norm.weight", (H,), T.F32, 1.0)
add("blk.0.attn_q.weight", (HEADS * D, H), T.Q8_0)
add("blk.0.attn_k.weight", (KV * D, H), T.Q4_0)
add("blk.0.attn_v.weight", (KV * D, H), T.BF16)
add("blk.0.attn_output.weight", (H, HEADS * D), T.Q5_0)
add("blk.0.ffn_norm.weight", (H,), T.F32, 1.0)
add("blk.0.ffn_gate.weight", (FFN, H), T.Q4_1)
add("blk.0.ffn_up.weight", (FFN, H), T.Q5_1)
add("blk.0.ffn_down.weight", (H, FFN), T.Q4_K)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()


def norm(x, w):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * w


def rope(x):  # [tokens, heads, D], neighbours are pairs
    angle = np.arange(len(x))[:, None] * 10000.0 ** (-2 * np.arange(D // 2) / D)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    even, odd = x[..., 0::2], x[..., 1::2]
    out = np.empty_like(x)
    out[..., 0::2], out[..., 1::2] = even * cos - odd * sin, even * sin + odd * cos
    return out


ids = [1, 7, 8, 5, 11, 4]
w = lambda name: weights[f"blk.0.{name}.weight"]
x = weights["token_embd.weight"][ids]
a = norm(x, w("attn_norm"))
q = rope((a @ w("attn_q").T).reshape(-1, HEADS, D))
k = rope((a @ w("attn_k").T).reshape(-1, KV, D))
v = (a @ w("attn_v").T).reshape(-1, KV, D)
out = np.zeros((len(ids), HEADS, D))
for h in range(HEADS):
    s = q[:, h] @ k[:, 0].T / np.sqrt(D)
    s[np.triu_indices(len(ids), 1)] = -np.inf
    p = np.exp(s - s.max(-1, keepdims=True))
    out[:, h] = p / p.sum(-1, keepdims=True) @ v[:, 0]
x = x + out.reshape(len(ids), -1) @ w("attn_output").T
m = norm(x, w("ffn_norm"))
gate = m @ w("ffn_gate").T
x = x + (gate / (1 + np.exp(-gate)) * (m @ w("ffn_up").T)) @ w("ffn_down").T
logits = norm(x, weights["output_norm.weight"]) @ weights["output.weight"].T
(HERE / "expected.json").write_text(json.dumps({
    "ids": ids, "logits": [[round(float(v), 6) for v in row] for row in logits]}) + "\n")
