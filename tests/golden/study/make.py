"""Writes rounding.json, scaling.json and outliers.json: weights rounded by block, what that does to a
model, and the outliers of its activations.

    python make.py OUTPUT_DIRECTORY MODEL TEXT

MODEL is models/tiny-novel, TEXT data/verify.txt of this repository. Made with numpy 2.4, torch
2.15 and transformers 5.17. Rounding is done in float64 on weights flattened row by row; scales are
the largest magnitude of a block, rounded to float16.
"""

import json
import pathlib
import sys

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def int_levels(bits):
    top = 2 ** (bits - 1) - 1
    return np.arange(-top, top + 1).astype(np.float64)


def float_levels(exponent, mantissa):
    """All-finite floats; the bias does not matter."""
    values = {0.0}
    for e in range(2**exponent):
        for m in range(2**mantissa):
            fraction = m / 2**mantissa
            values.add(fraction * 2.0 if e == 0 else (1 + fraction) * 2.0**e)
    positive = np.array(sorted(values))
    return np.unique(np.concatenate([-positive, positive]))


def normal_float_levels(bits):
    """QLoRA's construction; bitsandbytes' create_normal_map for 4 bits."""
    offset = 1 - (1 / (2**bits - 1) + 1 / 2**bits) / 4
    ppf = lambda p: torch.special.ndtri(torch.tensor(p, dtype=torch.float64)).numpy()
    above = ppf(np.linspace(offset, 0.5, 2 ** (bits - 1) + 1)[:-1])
    below = -ppf(np.linspace(offset, 0.5, 2 ** (bits - 1))[:-1])
    levels = np.sort(np.concatenate([above, [0.0], below]))
    return levels / np.abs(levels).max()


def quantile_levels(values, bits):
    q = np.quantile(values.astype(np.float64), (np.arange(2**bits) + 0.5) / 2**bits)
    return (q / np.abs(q).max()).astype(np.float32).astype(np.float16).astype(np.float64)


def round_blocks(levels, block, values):
    flat = values.astype(np.float64).ravel()
    result = np.empty_like(flat)
    top = np.abs(levels).max()
    for begin in range(0, flat.size, block):
        part = flat[begin : begin + block]
        scale = float(np.float16(np.abs(part).max()))
        distance = np.abs(part[:, None] * top - levels[None, :] * scale)  # exact
        nearest = distance.argmin(axis=1)
        tied = np.flatnonzero((distance == distance.min(axis=1, keepdims=True)).sum(axis=1) > 1)
        nearest[tied] += (nearest[tied] - levels.searchsorted(0)) % 2  # to the even one
        result[begin : begin + block] = levels[nearest] * scale / top
    return result.astype(np.float32).reshape(values.shape)


def levels_of(element, values):
    if element.startswith("e"):
        return float_levels(int(element[1]), int(element[3]))
    name, bits = element[:-1], int(element[-1])
    if name == "quantile":
        return quantile_levels(values, bits)
    return {"int": int_levels, "nf": normal_float_levels}[name](bits)


ELEMENTS = ["int2", "int3", "int4", "int8", "e1m0", "e2m1", "e3m0", "e3m2", "e4m3", "e7m0",
            "quantile2", "quantile4", "quantile8", "nf2", "nf3", "nf4"]


def rounding_cases():
    rng = np.random.default_rng(20)
    rows, cols = 3, 97
    values = (rng.standard_t(4, size=(rows, cols)) * 0.03).astype(np.float32)
    cases = []
    for element in ELEMENTS:
        for block in (32, 128, 0):  # 0: a channel; neither 32 nor 128 divides 291
            rounded = round_blocks(levels_of(element, values), block or cols, values)
            cases.append({"element": element, "block": block,
                          "values": [float(v) for v in rounded.ravel()]})
    return {"rows": rows, "cols": cols, "values": [float(v) for v in values.ravel()],
            "cases": cases}


def log_probabilities(model, ids):
    with torch.no_grad():
        return torch.log_softmax(model(ids).logits.double(), dim=-1)[:, :-1]


def scaling_cases(model_path, text_path):
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    ids = tokenizer(pathlib.Path(text_path).read_text())["input_ids"][:300]
    windows = torch.tensor(ids[: 2 * 128]).reshape(2, 128)  # the tail is left out
    load = lambda: AutoModelForCausalLM.from_pretrained(
        model_path, dtype=torch.float32, attn_implementation="eager").eval()
    reference = log_probabilities(load(), windows)
    targets = windows[:, 1:, None]
    cases = []
    for element, block in [("int4", 64), ("int3", 0), ("e2m1", 1024), ("quantile3", 128),
                           ("nf4", 32), ("16-bit", 0)]:
        model = load()
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) and ".layers." in name and element != "16-bit":
                w = module.weight.detach().numpy()
                rounded = round_blocks(levels_of(element, w), block or w.shape[1], w)
                module.weight.data = torch.from_numpy(rounded)
        result = log_probabilities(model, windows)
        kl = (reference.exp() * (reference - result)).sum(-1)
        agree = (reference.argmax(-1) == result.argmax(-1)).double()
        nll = -result.gather(-1, targets)
        cases.append({"element": element, "block": block, "nll": nll.mean().item(),
                      "stderr": (nll.std() / nll.numel() ** 0.5).item(),
                      "kl": kl.mean().item(), "top1": agree.mean().item()})
    return {"ids": ids, "context": 128, "cases": cases}


SITES = {"attn_in": "self_attn.q_proj", "attn_out": "self_attn.o_proj",
         "mlp_in": "mlp.gate_proj", "mlp_down": "mlp.down_proj"}


def describe(x):
    """x is [tokens, channels]."""
    flat = x.ravel()
    absmax = np.abs(x).max(axis=0)
    return {"absmax": float(absmax.max()), "channel": int(absmax.argmax()),
            "ratio": float(absmax.max() / np.sort(absmax)[absmax.size // 2]),
            "kurtosis": float(((flat - flat.mean()) ** 4).mean() / flat.var() ** 2),
            "outlier_channels": int((absmax >= 6).sum()),
            "token_share": float((np.abs(x) >= 6).any(axis=1).mean())}


def outlier_cases(model_path, windows):
    model = AutoModelForCausalLM.from_pretrained(
        model_path, dtype=torch.float32, attn_implementation="eager").eval()
    seen = {}
    keep = lambda key, x: seen.__setitem__(key, x.detach().double().numpy().reshape(-1, x.shape[-1]))
    for i, layer in enumerate(model.model.layers):
        for site, module in SITES.items():
            layer.get_submodule(module).register_forward_pre_hook(
                lambda m, args, key=(i, site): keep(key, args[0]))
        layer.register_forward_hook(lambda m, args, out, key=(i, "hidden"): keep(
            key, out[0] if isinstance(out, tuple) else out))
    with torch.no_grad():
        model(windows)
    layers = len(model.model.layers)
    sites = [{"layer": i, "site": site, **describe(seen[i, site])}
             for i in range(layers) for site in sorted(SITES)]
    hidden = [np.abs(seen[i, "hidden"]) for i in range(layers)]
    last = hidden[-1]
    token, channel = np.unravel_index(last.argmax(), last.shape)
    # Feature dimensions: channels at 6 or more in what attention and MLP read.
    at = [(np.abs(seen[i, "attn_in"]) >= 6) | (np.abs(seen[i, "mlp_in"]) >= 6)
          for i in range(layers)]
    layer_share = np.mean([a.any(axis=0) for a in at], axis=0)
    token_share = np.any(at, axis=0).mean(axis=0)
    features = {str(c): [float(layer_share[c]), float(token_share[c])]
                for c in np.flatnonzero(layer_share)}
    return {"sites": sites, "features": features,
            "hidden_absmax": [float(h.max()) for h in hidden],
            "hidden_median": [float(np.sort(h.ravel())[h.size // 2]) for h in hidden],
            "last_token": int(token), "last_channel": int(channel)}


def main(directory, model, text):
    out = pathlib.Path(directory)
    (out / "rounding.json").write_text(json.dumps(rounding_cases()) + "\n")
    scaling = scaling_cases(model, text)
    (out / "scaling.json").write_text(json.dumps(scaling, indent=1) + "\n")
    windows = torch.tensor(scaling["ids"][: 2 * 128]).reshape(2, 128)
    (out / "outliers.json").write_text(json.dumps(outlier_cases(model, windows), indent=1) + "\n")


main(*sys.argv[1:])
