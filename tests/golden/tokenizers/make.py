"""Golden tokenizers and vectors, made with tokenizers 0.23.3, sentencepiece 0.2.3 and
transformers 5.17.0.

    make.py CORPUS OUT [SHARED]

CORPUS is a public-domain text of a few megabytes on which tiny tokenizers are trained; OUT gets
one folder a tokenizer (the file itself and cases.json); SHARED is a folder of larger test data
whose vocabularies are not copied: only vectors for them are written.
"""

import io
import json
import pathlib
import sys

import sentencepiece
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers,
                        pre_tokenizers, processors, trainers)

from texts import TEXTS


def cases_of(tokenizer, texts):
    """One row a text: ids with and without special tokens, and both decodings."""
    rows = []
    for text in texts:
        with_special = tokenizer.encode(text).ids
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        rows.append({
            "text": text,
            "ids": with_special,
            "plain": plain,
            "decoded": tokenizer.decode(with_special, skip_special_tokens=True),
            "decoded_all": tokenizer.decode(with_special, skip_special_tokens=False),
        })
    return rows


def write(folder, tokenizer, config=None):
    folder.mkdir(parents=True, exist_ok=True)
    document = json.loads(tokenizer.to_str())
    (folder / "tokenizer.json").write_text(
        json.dumps(document, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    write_cases(folder / "cases.json", cases_of(tokenizer, TEXTS))


def write_cases(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(row, ensure_ascii=True) for row in rows)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def byte_bpe(corpus):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(corpus, trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<|begin|>", "<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    t.add_special_tokens([AddedToken("<|im_start|>", special=True),
                          AddedToken("<mask>", lstrip=True, special=True),
                          AddedToken("<|im_end|>", rstrip=True, special=True)])
    t.add_tokens([AddedToken("<added>", single_word=True, normalized=True)])
    t.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin|> $A", pair="<|begin|> $A <|begin|> $B",
                                      special_tokens=[("<|begin|>", t.token_to_id("<|begin|>"))])])
    return t


def roberta(corpus):
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(corpus, trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<s>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    t.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    return t


def spm_style_bpe(corpus, metaspace):
    """As Llama's converted tokenizer: byte fallback, fused unknowns."""
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if metaspace:
        t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        t.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    decoder = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
               decoders.Strip(content=" ", left=1)]
    t.decoder = decoders.Sequence(decoder)
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False,
                                  limit_alphabet=60)
    if metaspace:
        t.train_from_iterator(corpus, trainer)
    else:
        t.pre_tokenizer = pre_tokenizers.Metaspace()
        t.train_from_iterator(corpus, trainer)
        t.pre_tokenizer = None
    document = json.loads(t.to_str())
    document["added_tokens"] = document["added_tokens"][:3]
    t = Tokenizer.from_str(json.dumps(document))
    t.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    return t


def unigram(corpus, byte_fallback):
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0)]
    if byte_fallback:
        pieces += [(f"<0x{b:02X}>", 0.0) for b in range(256)]
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(corpus, trainers.UnigramTrainer(
        vocab_size=400, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False))
    learned = json.loads(trained.to_str())["model"]["vocab"][1:]
    t = Tokenizer(models.Unigram(pieces + [tuple(p) for p in learned], 0, byte_fallback))
    t.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(),
                                         normalizers.Replace(Regex(" {2,}"), " ")])
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.decoder = (decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
                 if byte_fallback else decoders.Metaspace())
    t.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 2)])
    t.add_special_tokens(["<unk>", "<s>", "</s>"])
    return t


def wordpiece(corpus):
    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer()
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.WordPiece()
    t.train_from_iterator(corpus, trainers.WordPieceTrainer(
        vocab_size=500, limit_alphabet=80, show_progress=False,
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
    t.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return t


def wordlevel(corpus):
    t = Tokenizer(models.WordLevel(unk_token="<unk>"))
    t.normalizer = normalizers.Lowercase()
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)])
    t.train_from_iterator(corpus, trainers.WordLevelTrainer(
        vocab_size=300, special_tokens=["<unk>"], show_progress=False))
    return t


def suffix_bpe(corpus):
    """The original BPE spelling: </w> ends words; unknown characters are tokens each."""
    t = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    t.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=True)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.BPEDecoder(suffix="</w>")
    t.train_from_iterator(corpus, trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<unk>"], end_of_word_suffix="</w>", limit_alphabet=50,
        show_progress=False))
    return t


def prefix_bpe(corpus):
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, continuing_subword_prefix="##"))
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("contiguous")])
    t.decoder = decoders.WordPiece(cleanup=False)
    t.train_from_iterator(corpus, trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<unk>"], continuing_subword_prefix="##",
        limit_alphabet=50, show_progress=False))
    return t


def ignore_merges(corpus):
    """Whole words in the vocabulary win over merges, as in Llama 3."""
    document = json.loads(byte_bpe(corpus).to_str())
    document["model"]["ignore_merges"] = True
    document["model"]["merges"] = document["model"]["merges"][:100]
    return Tokenizer.from_str(json.dumps(document))


def write_sentencepiece(folder, corpus, kind):
    folder.mkdir(parents=True, exist_ok=True)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus), model_writer=model, model_type=kind, vocab_size=600,
        byte_fallback=True, character_coverage=0.995, minloglevel=2,
        normalization_rule_name="identity" if kind == "bpe" else "nmt_nfkc",
        remove_extra_whitespaces=kind != "bpe", user_defined_symbols=["<mask>"])
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    write_cases(folder / "cases.json", sentencepiece_cases(model.getvalue()))


def sentencepiece_cases(model):
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    rows = []
    for text in TEXTS:
        if "<s>" in text or "\0" in text:  # the package never finds control tokens in text
            continue
        plain = processor.encode(text)
        decoded = processor.decode(plain)
        rows.append({"text": text, "ids": [processor.bos_id()] + plain, "plain": plain,
                     "decoded": decoded, "decoded_all": None})
    return rows


def main(corpus_path, out, shared):
    out = pathlib.Path(out)
    corpus = pathlib.Path(corpus_path).read_text(encoding="utf-8").splitlines()[:20000]
    write(out / "byte_bpe", byte_bpe(corpus), {"bos_token": "<|begin|>",
                                               "eos_token": "<|endoftext|>"})
    write(out / "ignore_merges", ignore_merges(corpus))
    write(out / "roberta", roberta(corpus))
    write(out / "spm_bpe_normalizer", spm_style_bpe(corpus, False))
    write(out / "spm_bpe_metaspace", spm_style_bpe(corpus, True))
    write(out / "unigram", unigram(corpus, False))
    write(out / "unigram_bytes", unigram(corpus, True))
    write(out / "wordpiece", wordpiece(corpus))
    write(out / "wordlevel", wordlevel(corpus))
    write(out / "suffix_bpe", suffix_bpe(corpus))
    write(out / "prefix_bpe", prefix_bpe(corpus))
    write_sentencepiece(out / "sentencepiece_bpe", corpus, "bpe")
    write_sentencepiece(out / "sentencepiece_unigram", corpus, "unigram")
    if shared:
        shared = pathlib.Path(shared)
        for name, file in [("gpt_neox", "tokenizers/gpt-neox/gpt-neox-20B.tokenizer.json"),
                           ("falcon", "tokenizers/falcon/falcon.tokenizer.json"),
                           ("novel_28m", "models/novel-28m/tokenizer.json"),
                           ("tiny_novel", "models/tiny-novel/tokenizer.json")]:
            tokenizer = Tokenizer.from_file(str(shared / file))
            write_cases(out / "shared" / f"{name}.json", cases_of(tokenizer, TEXTS))
        mistral = (shared / "tokenizers/mistral/tokenizer.model.v1").read_bytes()
        write_cases(out / "shared" / "mistral_v1.json", sentencepiece_cases(mistral))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None)
