#!/usr/bin/env python3
"""GGUF files of ours in llama.cpp: ids of a text, and logits against those of `nibble eval logits`.

Usage: gguf_in_llama_cpp.py NIBBLE MODEL TEXT [--presets Q4_K_M,...] [--blocks 1,...]
(the program, a checkpoint directory of a llama with 16-bit weights, and a text)
Exits with 77, saying so, where llama-cpp-python is missing. Made with llama-cpp-python 0.3.36.

Prints mean KL, in nats, of llama.cpp's logits (caches of F32, no flash attention) to

  exact   nibble without rounded activations
  ggml    nibble with what ggml's kernels round (--activations ggml)
  itself  llama.cpp with caches of F16

A last bit that differs now and then moves a value to the next code, and every block after it carries
that on: with depth two programs that round alike drift apart as far as two that do not, and as one
program whose caches change. So the models are cut behind their first blocks, and the bars are that one
block is nearer with ggml's rounding than without, and that no depth is farther than llama.cpp from itself
(a quarter more, since both figures vary).
"""
import argparse
import json
import pathlib
import struct
import subprocess
import sys
import tempfile

try:
    import numpy as np
    from llama_cpp import Llama
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

F32, F16 = 0, 1
TOKENS = 1024
# Of one block: under this share of what it is without ggml's rounding.
ONE_BLOCK = 0.5


def cut(model, blocks, target):
    """A copy of the checkpoint with its first blocks alone."""
    target.mkdir()
    config = json.loads((model / "config.json").read_text())
    config["num_hidden_layers"] = blocks
    (target / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (target / name).write_bytes((model / name).read_bytes())
    header, data = {}, bytearray()
    for file in sorted(model.glob("*.safetensors")):
        raw = file.read_bytes()
        (size,) = struct.unpack("<Q", raw[:8])
        for name, tensor in json.loads(raw[8:8 + size]).items():
            parts = name.split(".")
            if name == "__metadata__" or parts[1] == "layers" and int(parts[2]) >= blocks:
                continue
            begin, end = tensor["data_offsets"]
            header[name] = {**tensor, "data_offsets": [len(data), len(data) + end - begin]}
            data += raw[8 + size + begin:8 + size + end]
    text = json.dumps(header).encode()
    (target / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)


def log_softmax(x):
    x = x.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def mean_kl(p, q):
    p, q = log_softmax(p), log_softmax(q)
    return float((np.exp(p) * (p - q)).sum(-1).mean())


class Comparison:
    def __init__(self, program, text, folder):
        self.program, self.text, self.folder = program, text, folder

    def nibble(self, *arguments):
        subprocess.run([self.program, "--quiet", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)

    def ids_of(self, file):
        """Of the text in both programs, which must agree."""
        theirs = Llama(str(file), vocab_only=True, verbose=False).tokenize(self.text.encode(), add_bos=False)
        answer = subprocess.run([self.program, "--json", "tokenize", str(file), "--text", self.text, "--no-special"],
                                check=True, capture_output=True)
        assert json.loads(answer.stdout)["ids"] == theirs, "the ids of the text differ"
        return theirs[:TOKENS]

    def theirs(self, file, ids, cache):
        model = Llama(str(file), n_ctx=TOKENS, logits_all=True, verbose=False, flash_attn=False, type_k=cache,
                      type_v=cache)
        model.eval(ids)
        return np.array(model.scores[:len(ids)])

    def ours(self, file, ids, *more):
        np.save(self.folder / "ids.npy", np.array([ids], np.int32))
        out = self.folder / "logits.npy"
        self.nibble("--exact", "eval", "logits", file, "--ids", self.folder / "ids.npy", "--out", out, *more)
        return np.load(out)[0]

    def figures(self, checkpoint, preset):
        file = self.folder / f"{checkpoint.name}-{preset}.gguf"
        self.nibble("convert", checkpoint, file, "--to", "gguf", "--preset", preset, "--requantize", "--no-verify")
        ids = self.ids_of(file)
        reference = self.theirs(file, ids, F32)
        return [mean_kl(reference, other) for other in (
            self.ours(file, ids), self.ours(file, ids, "--activations", "ggml"), self.theirs(file, ids, F16))]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("text", type=pathlib.Path)
    parser.add_argument("--presets", default="Q4_K_M,Q8_0")
    parser.add_argument("--blocks", default="1,3")
    options = parser.parse_args()
    text = options.text.read_text(encoding="utf-8")[:8 * TOKENS]
    failed = False
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        comparison = Comparison(options.program, text, folder)
        print("blocks  preset     exact     ggml    itself")
        for blocks in map(int, options.blocks.split(",")):
            checkpoint = folder / f"first{blocks}"
            cut(options.model, blocks, checkpoint)
            for preset in options.presets.split(","):
                exact, ggml, itself = comparison.figures(checkpoint, preset)
                good = ggml < ONE_BLOCK * exact if blocks == 1 else min(exact, ggml) < 1.25 * itself
                failed |= not good
                print(f"{blocks:6}  {preset:7}  {exact:.2e}  {ggml:.2e}  {itself:.2e}{'' if good else '  too far'}",
                      flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
