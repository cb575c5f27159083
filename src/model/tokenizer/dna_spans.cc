#include "model/tokenizer/dna_spans.h"

#include <algorithm>
#include <string>
#include <utility>

namespace nibble {
namespace {

constexpr std::string_view kBegin = "<dna>";
constexpr std::string_view kEnd = "</dna>";
constexpr std::size_t kLetters = 6;  // of a token

char upper(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; }

}  // namespace

std::optional<DnaSpans> DnaSpans::of(std::shared_ptr<const Vocab> vocab) {
  const auto begin = vocab->find(kBegin);
  const auto end = vocab->find(kEnd);
  const auto unknown = vocab->find("<oov>");
  if (!begin || !end || !unknown) return std::nullopt;
  DnaSpans spans;
  spans.vocab_ = std::move(vocab);
  spans.begin_ = *begin;
  spans.end_ = *end;
  spans.unknown_ = *unknown;
  return spans;
}

void DnaSpans::encode(std::string_view text, const std::function<void(std::string_view)>& other,
                      std::vector<std::int32_t>& ids) const {
  while (!text.empty()) {
    const std::size_t open = std::min(text.find(kBegin), text.size());
    if (open > 0) other(text.substr(0, open));
    if (open == text.size()) return;
    ids.push_back(begin_);
    text.remove_prefix(open + kBegin.size());
    const std::size_t close = std::min(text.find(kEnd), text.size());
    append_letters(text.substr(0, close), ids);
    if (close == text.size()) return;
    ids.push_back(end_);
    text.remove_prefix(close + kEnd.size());
  }
}

void DnaSpans::append_letters(std::string_view letters, std::vector<std::int32_t>& ids) const {
  for (std::size_t at = 0; at < letters.size(); at += kLetters) {
    std::string token(letters.substr(at, kLetters));
    std::ranges::transform(token, token.begin(), upper);
    token.resize(kLetters, 'A');
    token += kDnaMark;
    ids.push_back(vocab_->find(token).value_or(unknown_));
  }
}

}  // namespace nibble
