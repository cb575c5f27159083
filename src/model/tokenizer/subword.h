// The models that cut a word into pieces of the vocabulary: the inner step of a tokenizer.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/tokenizer/vocab.h"

namespace nibble {

// Immutable and thread-safe.
class SubwordModel {
 public:
  virtual ~SubwordModel() = default;
  // Appends the ids of one word (valid UTF-8, not empty). kCorrupt when the word needs the unknown
  // token and the vocabulary has none. Time is at most O(n log n) in the length of the word.
  virtual void tokenize(std::string_view word, std::vector<std::int32_t>& ids) const = 0;
};

// Byte-pair encoding (Sennrich et al. 2016): starts from characters and applies the merge of the
// lowest rank until none applies.
struct BpeOptions {
  std::string unk_token;                  // empty: unknown characters vanish
  std::string continuing_subword_prefix;  // stands before every symbol but a word's first
  std::string end_of_word_suffix;         // stands after a word's last symbol
  bool fuse_unk = false;                  // neighbouring unknown characters are one token
  bool byte_fallback = false;             // unknown characters become pieces <0x00>...<0xFF>
  bool ignore_merges = false;             // a word that is a piece is taken whole
};
using BpeMerges = std::vector<std::pair<std::string, std::string>>;  // best first
// kCorrupt when a merge names a piece that the vocabulary lacks.
std::unique_ptr<SubwordModel> make_bpe(std::shared_ptr<const Vocab> vocab, const BpeMerges& merges,
                                       const BpeOptions& options);

// The most probable segmentation under a unigram language model (Kudo 2018). scores[id] is the log
// probability of the piece with that id.
struct UnigramOptions {
  std::optional<std::int32_t> unk_id;
  bool byte_fallback = false;
};
std::unique_ptr<SubwordModel> make_unigram(std::shared_ptr<const Vocab> vocab,
                                           std::vector<double> scores,
                                           const UnigramOptions& options);

// Longest match first, from the left (BERT).
struct WordPieceOptions {
  std::string unk_token = "[UNK]";
  std::string continuing_subword_prefix = "##";
  std::int64_t max_input_chars_per_word = 100;  // a longer word is one unknown token
};
std::unique_ptr<SubwordModel> make_wordpiece(std::shared_ptr<const Vocab> vocab,
                                             const WordPieceOptions& options);

// Whole words only.
std::unique_ptr<SubwordModel> make_wordlevel(std::shared_ptr<const Vocab> vocab,
                                             const std::string& unk_token);

// Ids of the pieces <0x00> ... <0xFF>, where the vocabulary has them.
class ByteFallback {
 public:
  explicit ByteFallback(const Vocab& vocab);
  // Appends one id a byte and says true, or leaves `ids` alone when a byte has no piece.
  bool append(std::string_view text, std::vector<std::int32_t>& ids) const;

 private:
  std::array<std::int32_t, 256> ids_;  // -1: no piece
};

}  // namespace nibble
