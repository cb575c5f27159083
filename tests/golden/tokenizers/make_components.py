"""Golden outputs of single normalizers, pre-tokenizers and decoders, made with tokenizers 0.23.3.

    make_components.py OUT [MODEL]

Writes OUT/components.json; MODEL is a tokenizer.model whose precompiled character map (nmt_nfkc) is
the one tested.
"""

import base64
import json
import pathlib
import sys

from tokenizers import Tokenizer

from texts import TEXTS

NORMALIZERS = [
    {"type": "NFC"}, {"type": "NFD"}, {"type": "NFKC"}, {"type": "NFKD"}, {"type": "Lowercase"},
    {"type": "Strip", "strip_left": True, "strip_right": False},
    {"type": "Strip", "strip_left": False, "strip_right": True},
    {"type": "StripAccents"},
    {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}]},
    {"type": "Replace", "pattern": {"String": "aa"}, "content": "<$1>"},
    {"type": "Replace", "pattern": {"Regex": "[0-9]+|\\s"}, "content": "#"},
    {"type": "Prepend", "prepend": "▁"}, {"type": "Nmt"}, {"type": "ByteLevel"},
    {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
     "strip_accents": None, "lowercase": True},
    {"type": "BertNormalizer", "clean_text": False, "handle_chinese_chars": False,
     "strip_accents": True, "lowercase": False},
]


def split(pattern, behavior, invert=False):
    kind = "Regex" if len(pattern) > 1 else "String"
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
         r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
         r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}"
         r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"
CJK = r"[一-龥぀-ゟ゠-ヿ]+"
BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]

PRE_TOKENIZERS = [
    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": False},
    *[split(regex, "Isolated") for regex in (GPT2, LLAMA3, QWEN2, O200K, BLOOM, CJK)],
    split(r"\w+|[^\w\s]+", "Removed", True), split(r"\W", "Isolated"), split(r"\h+", "Isolated"),
    split("^.|.$", "Isolated"), split(r"[\s\d]+|[^\S\n]", "Isolated"), split(r"\b", "Isolated"),
    *[split(p, b, i) for p in ("[a ]", " ") for b in BEHAVIORS for i in (False, True)],
    {"type": "Whitespace"}, {"type": "WhitespaceSplit"}, {"type": "BertPreTokenizer"},
    *[{"type": "Metaspace", "replacement": "▁", "prepend_scheme": s, "split": c}
      for s in ("always", "first", "never") for c in (False, True)],
    {"type": "Metaspace", "replacement": "_", "add_prefix_space": True},
    {"type": "Metaspace", "replacement": "▁", "add_prefix_space": False, "prepend_scheme": "never"},
    {"type": "Digits", "individual_digits": False}, {"type": "Digits", "individual_digits": True},
    *[{"type": "Punctuation", "behavior": b} for b in BEHAVIORS],
    {"type": "CharDelimiterSplit", "delimiter": "e"},
    {"type": "Sequence", "pretokenizers": [
        {"type": "WhitespaceSplit"}, {"type": "Punctuation", "behavior": "Isolated"},
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True}]},
]

DECODERS = [
    None,
    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": True},
    {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True},
    {"type": "ByteFallback"}, {"type": "Fuse"},
    {"type": "Strip", "content": "_", "start": 2, "stop": 1},
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
    {"type": "Replace", "pattern": {"Regex": "[aeiou]+"}, "content": "-"},
    {"type": "WordPiece", "prefix": "##", "cleanup": True},
    {"type": "WordPiece", "prefix": "@@", "cleanup": False},
    {"type": "BPEDecoder", "suffix": "</w>"},
    {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
        {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
]

PIECES = [
    ["▁Hello", "▁wor", "ld", "!"], ["Hello", "Ġworld", "Ċ", "Ã©", "â", "Ĥ¬", "Ã"],
    ["<0xE2>", "<0x82>", "<0xAC>", "x", "<0xFF>", "y"], ["<0x41>", "<0x62>", "▁▁a▁", "<0x0a>"],
    ["__a__", "_b", "c_", "___", "d"], ["un", "##believ", "##able", ".", "do", "n't", "##"],
    ["he", "'s", ",", "we", "'ve", "no", "!", "?", "do not", "@@x", "'", "s"],
    ["low</w>", "er", "est</w>", "new</w>"], ["日本", "Ġ語", "<|x|>"], ["▁", "▁", "a"], [],
]


def single(kind, description):
    """A tokenizer with one part, through which that part can be called."""
    document = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
                "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None,
                "model": {"type": "WordLevel", "vocab": {"x": 0}, "unk_token": "x"}}
    document[kind] = description
    return Tokenizer.from_str(json.dumps(document))


def character_map(model):
    """The bytes field that follows the name of the normalization rule in the protobuf message."""
    name = b"nmt_nfkc\x12"
    at = model.rindex(name) + len(name)
    length = shift = 0
    while True:
        byte = model[at]
        at += 1
        length |= (byte & 0x7f) << shift
        shift += 7
        if byte < 0x80:
            return model[at:at + length]


def main(out, model):
    normalizers = list(NORMALIZERS)
    if model:
        charsmap = base64.b64encode(character_map(pathlib.Path(model).read_bytes())).decode()
        normalizers.append({"type": "Precompiled", "precompiled_charsmap": charsmap})
    rows = []
    for part in normalizers:
        t = single("normalizer", part)
        outputs = [t.normalizer.normalize_str(text) for text in TEXTS]
        if part["type"] == "Precompiled":
            part = {"type": "Precompiled"}  # the test takes the map from the model itself
        rows.append({"kind": "normalizer", "part": part, "outputs": outputs})
    for part in PRE_TOKENIZERS:
        t = single("pre_tokenizer", part)
        rows.append({"kind": "pre_tokenizer", "part": part, "outputs": [
            [word for word, _ in t.pre_tokenizer.pre_tokenize_str(text)] for text in TEXTS]})
    for part in DECODERS:
        t = single("decoder", part)
        rows.append({"kind": "decoder", "part": part, "outputs": [
            t.decoder.decode(pieces) if part else " ".join(pieces) for pieces in PIECES]})
    document = {"texts": TEXTS, "pieces": PIECES, "rows": rows}
    text = json.dumps(document, ensure_ascii=True, separators=(",", ":")).replace(
        '{"kind"', '\n{"kind"')
    (pathlib.Path(out) / "components.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
