#!/usr/bin/env python3
"""Golden values of the evaluations, from Hugging Face transformers in float32 on tiny-novel.

Made with transformers 5.17.0 and torch 2.15.0 (CPU).
Usage: make.py MODEL_DIR CALIB_TEXT EVAL_DIR OUT_DIR
  MODEL_DIR   models/tiny-novel
  CALIB_TEXT  novels_calib.txt: the excerpt that windows.json speaks of is cut from it
  EVAL_DIR    the folder of novels_heldout.txt, piqa.jsonl and the other task files
Writes excerpt.txt, windows.json (perplexity and divergence on it), heldout.json (the same on the
beginning of the held-out text, and for round-to-nearest 4-bit g128 weights) and tasks.json
(log-likelihood and greedy match of each choice of the first documents of each file; prompts as in
lm-evaluation-harness 0.4, written here independently of the C++).
"""
import json
import math
import pathlib
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

EXCERPT_BYTES = 12000
DOCS = 40
HELDOUT_TOKENS = 65536
GROUP = 128
SCALE = 1.02  # the divergence is between the model and itself with every linear layer times this


def losses(model, ids, context, bos=None, first=0):
    """Per-position NLL (float64) of the counted predictions of all windows."""
    out = []
    for start in range(0, len(ids) - context + 1, context):
        window = list(ids[start:start + context])
        if bos is not None:
            window[0] = bos
        logits = model(torch.tensor([window])).logits[0].double()
        lp = torch.log_softmax(logits, -1)
        out += [-lp[i, window[i + 1]].item() for i in range(first, context - 1)]
    return out


def figures(nll):
    n = len(nll)
    mean = sum(nll) / n
    var = sum((v - mean) ** 2 for v in nll) / (n - 1)
    return {"perplexity": math.exp(mean), "predicted": n, "stderr_nll": math.sqrt(var / n)}


def log_probs(model, ids, context):
    return torch.cat([
        torch.log_softmax(model(torch.tensor([ids[s:s + context]])).logits[0, :-1].double(), -1)
        for s in range(0, len(ids) - context + 1, context)])


def with_linears(model, change, run):
    """run() while every linear layer of the blocks holds change(weight)."""
    linears = [m for n, m in model.named_modules()
               if isinstance(m, torch.nn.Linear) and not n.endswith("lm_head")]
    saved = [m.weight.data for m in linears]
    for m in linears:
        m.weight.data = change(m.weight.data)
    result = run()
    for m, w in zip(linears, saved):
        m.weight.data = w
    return result


def compare(p, q):
    kl = (p.exp() * (p - q)).sum(-1)
    return {"mean_kl": kl.mean().item(), "p99_kl": torch.quantile(kl, 0.99).item(),
            "max_kl": kl.max().item(),
            "top1_agreement": (p.argmax(-1) == q.argmax(-1)).double().mean().item(),
            "positions": kl.numel()}


def divergence(model, ids, context):
    p = log_probs(model, ids, context)
    q = with_linears(model, lambda w: w * torch.tensor(SCALE),
                     lambda: log_probs(model, ids, context))
    return {"scale": SCALE, "context": context, **compare(p, q)}


def round_to_nearest(w):
    """4 bits, asymmetric, groups along the input, the range widened to hold 0, float32 scales."""
    g = w.reshape(-1, GROUP)
    lo, hi = g.amin(1, keepdim=True).clamp(max=0), g.amax(1, keepdim=True).clamp(min=0)
    scale = (hi - lo) / 15
    zero = (-lo / scale).round().clamp(0, 15)
    code = ((g / scale).round() + zero).clamp(0, 15)
    return ((code - zero) * scale).reshape(w.shape)


def heldout(model, tokenizer, text):
    ids = tokenizer(text)["input_ids"][:HELDOUT_TOKENS]
    targets = torch.tensor([ids[s + 1:s + 1024] for s in range(0, len(ids), 1024)]).flatten()
    both = [log_probs(model, ids, 1024)]
    both.append(with_linears(model, round_to_nearest, lambda: log_probs(model, ids, 1024)))
    ppl = [math.exp(-lp.gather(1, targets[:, None]).mean().item()) for lp in both]
    return {"tokens": len(ids), "context": 1024, "perplexity": ppl[0],
            "rtn_w4g128": {"perplexity": ppl[1], **compare(*both)}}


def windows(model, tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    bos = tokenizer.bos_token_id
    result = {"tokens": len(ids), "windows": {}, "llama.cpp": {}}
    for context in (64, 256):
        result["windows"][str(context)] = figures(losses(model, ids, context))
        result["llama.cpp"][str(context)] = figures(losses(model, ids, context, bos, context // 2))
    result["divergence"] = divergence(model, ids, 256)
    return result


def choice(prefix, choices):
    return [(prefix, " " + c) for c in choices]


def lambada(d):
    text = d["context"] + " " + d["continuation"]
    words = text.split(" ")
    return [(" ".join(words[:-1]), " " + words[-1])]


TASKS = {
    "lambada_openai.jsonl": lambada,
    "piqa.jsonl": lambda d: choice(f"Question: {d['query'][len('Question: '):-1]}\nAnswer:",
                                   d["choices"]),
    "arc_easy.jsonl": lambda d: choice(d["query"] + "\nAnswer:", d["choices"]),
    "arc_challenge.jsonl": lambda d: choice(d["query"] + "\nAnswer:", d["choices"]),
    "boolq.jsonl": lambda d: choice(d["query"][len("Passage: "):] + "\nAnswer:", ["no", "yes"]),
    "winogrande.jsonl": lambda d: [(c, " " + d["continuation"]) for c in d["context_options"]],
    "openbook_qa.jsonl": lambda d: choice(d["query"], d["choices"]),
}


def score(model, tokenizer, context, continuation, limit):
    blanks = len(context) - len(context.rstrip())
    if blanks:
        context, continuation = context[:-blanks], context[-blanks:] + continuation
    whole = tokenizer(context + continuation)["input_ids"]
    tail = whole[len(tokenizer(context)["input_ids"]):]
    ids = whole[-(limit + 1):]
    logits = model(torch.tensor([ids[:-1]])).logits[0, -len(tail):].double()
    target = torch.tensor(tail)
    lp = torch.log_softmax(logits, -1)
    top = bool((logits.argmax(-1) == target).all())
    return [lp.gather(1, target[:, None]).sum().item(), top]


def tasks(model, tokenizer, folder):
    result = {}
    for name, requests in TASKS.items():
        docs = []
        with open(pathlib.Path(folder) / name, encoding="utf8") as lines:
            for line, _ in zip(lines, range(DOCS)):
                d = json.loads(line)
                docs.append({"gold": d.get("gold", 0),
                             "scores": [score(model, tokenizer, c, t, 2048)
                                        for c, t in requests(d)]})
        result[name] = docs
    return result


def main(model_dir, calib, eval_dir, out):
    torch.set_grad_enabled(False)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32,
                                                 attn_implementation="eager").eval()
    out = pathlib.Path(out)
    raw = pathlib.Path(calib).read_bytes()[-EXCERPT_BYTES:].decode("utf8", "ignore")
    (out / "excerpt.txt").write_bytes(raw.encode("utf8"))
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    held = (pathlib.Path(eval_dir) / "novels_heldout.txt").read_bytes().decode("utf8")
    for name, value in (("windows", windows(model, tokenizer, raw)),
                        ("heldout", heldout(model, tokenizer, held)),
                        ("tasks", tasks(model, tokenizer, eval_dir))):
        (out / f"{name}.json").write_text(json.dumps({**versions, name: value}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
