// Spans of nucleotides within text, as in HybridDNATokenizer's vocabularies: what stands between
// <dna> and </dna>, or the end of the text, is cut into six letters a token, whatever their case,
// the last ones filled up with A. Those tokens are spelled with U+E000 behind their letters in the
// vocabulary, which parts them from words of the same letters; letters without one are <oov>.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "model/tokenizer/vocab.h"

namespace nibble {

inline constexpr std::string_view kDnaMark = "\ue000";

// Immutable and thread-safe.
class DnaSpans {
 public:
  // Nothing unless the vocabulary has the tokens <dna>, </dna> and <oov>.
  static std::optional<DnaSpans> of(std::shared_ptr<const Vocab> vocab);

  // Appends the ids of all spans of `text`; what lies before, between and behind them, and is never
  // empty, is given to `other`, which appends its own.
  void encode(std::string_view text, const std::function<void(std::string_view)>& other,
              std::vector<std::int32_t>& ids) const;

 private:
  DnaSpans() = default;
  void append_letters(std::string_view letters, std::vector<std::int32_t>& ids) const;

  std::shared_ptr<const Vocab> vocab_;
  std::int32_t begin_ = 0, end_ = 0, unknown_ = 0;
};

}  // namespace nibble
