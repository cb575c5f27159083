// The tokenizer that is put together from parts: added tokens, normalizer, pre-tokenizer, subword
// model, post-processor, decoder, in the order of the `tokenizers` library.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/tokenizer/added_tokens.h"
#include "model/tokenizer/decoder.h"
#include "model/tokenizer/dna_spans.h"
#include "model/tokenizer/normalizer.h"
#include "model/tokenizer/post_processor.h"
#include "model/tokenizer/pre_tokenizer.h"
#include "model/tokenizer/subword.h"
#include "model/tokenizer/tokenizer.h"
#include "model/tokenizer/vocab.h"

namespace nibble {

struct PipelineParts {
  std::shared_ptr<const Vocab> vocab;  // of the subword model and the added tokens
  std::unique_ptr<SubwordModel> model;
  std::vector<AddedToken> added_tokens;
  Normalizer normalizer;
  std::optional<DnaSpans> dna;  // cut out of the normalized text, before words are
  PreTokenizer pre_tokenizer;
  PostProcessor post_processor;
  Decoder decoder;
  std::optional<std::int32_t> bos;
  std::optional<std::int32_t> eos;
};

std::unique_ptr<Tokenizer> make_pipeline(PipelineParts parts);

}  // namespace nibble
