#include "model/tokenizer/pipeline.h"

#include <limits>
#include <unordered_set>
#include <utility>

#include "base/error.h"
#include "model/tokenizer/check.h"

namespace nibble {
namespace {

// Ids of the words met during one call, because natural text repeats its words.
class WordCache {
 public:
  explicit WordCache(const SubwordModel& model) : model_(model) {}

  void append(const std::string& word, std::vector<std::int32_t>& ids) {
    if (word.size() > kMaxWordBytes || known_.size() >= kMaxWords) {
      model_.tokenize(word, ids);
      return;
    }
    const auto [it, added] = known_.try_emplace(word);
    if (added) model_.tokenize(word, it->second);
    ids.insert(ids.end(), it->second.begin(), it->second.end());
  }

 private:
  static constexpr std::size_t kMaxWordBytes = 128;
  static constexpr std::size_t kMaxWords = 1 << 16;

  const SubwordModel& model_;
  StringMap<std::vector<std::int32_t>> known_;
};

class Pipeline : public Tokenizer {
 public:
  explicit Pipeline(PipelineParts parts) : parts_(std::move(parts)) {
    for (const AddedToken& token : parts_.added_tokens) {
      if (token.special) special_.insert(static_cast<std::int32_t>(token.id));
      if (token.normalized) {
        std::string key = token.content;
        parts_.normalizer(key);
        normalized_tokens_.add(key, token);
      } else {
        raw_tokens_.add(token.content, token);
      }
    }
  }

  std::vector<std::int32_t> encode(std::string_view text,
                                   const EncodeOptions& options) const override {
    check_text(text);
    std::vector<std::int32_t> ids;
    if (options.add_special) ids = parts_.post_processor.before;
    WordCache cache(*parts_.model);
    for (const TextSegment& segment : raw_tokens_.segments(text, options.parse_special)) {
      if (segment.id != TextSegment::kText) {
        ids.push_back(segment.id);
        continue;
      }
      std::string part(text.substr(segment.begin, segment.end - segment.begin));
      parts_.normalizer(part);
      encode_normalized(part, segment.begin == 0, options.parse_special, cache, ids);
    }
    if (options.add_special) {
      ids.insert(ids.end(), parts_.post_processor.after.begin(), parts_.post_processor.after.end());
    }
    return ids;
  }

  std::string decode(const std::vector<std::int32_t>& ids, bool skip_special) const override {
    std::vector<std::string> pieces;
    pieces.reserve(ids.size());
    for (const std::int32_t id : ids) {
      check_id(*this, id);
      if (skip_special && is_special(id)) continue;
      pieces.push_back(parts_.vocab->piece(id));
    }
    parts_.decoder(pieces);
    std::string text;
    for (const std::string& piece : pieces) text += piece;
    return text;
  }

  std::int64_t vocab_size() const override { return parts_.vocab->size(); }
  std::string piece(std::int32_t id) const override {
    check_id(*this, id);
    return parts_.vocab->piece(id);
  }
  std::optional<std::int32_t> piece_id(std::string_view piece) const override {
    return parts_.vocab->find(piece);
  }
  bool is_special(std::int32_t id) const override { return special_.contains(id); }
  std::optional<std::int32_t> bos() const override { return parts_.bos; }
  std::optional<std::int32_t> eos() const override { return parts_.eos; }

 private:
  void encode_normalized(std::string_view text, bool first, bool with_special, WordCache& cache,
                         std::vector<std::int32_t>& ids) const {
    for (const TextSegment& segment : normalized_tokens_.segments(text, with_special)) {
      if (segment.id != TextSegment::kText) {
        ids.push_back(segment.id);
        continue;
      }
      bool front = first && segment.begin == 0;
      const auto encode_words = [&](std::string_view part) {
        std::vector<Word> words = {{std::string(part), std::exchange(front, false)}};
        parts_.pre_tokenizer(words);
        for (const Word& word : words) cache.append(word.text, ids);
      };
      const std::string_view part = text.substr(segment.begin, segment.end - segment.begin);
      if (parts_.dna) {
        parts_.dna->encode(part, encode_words, ids);
      } else {
        encode_words(part);
      }
    }
  }

  PipelineParts parts_;
  TokenFinder raw_tokens_;
  TokenFinder normalized_tokens_;
  std::unordered_set<std::int32_t> special_;
};

}  // namespace

std::unique_ptr<Tokenizer> make_pipeline(PipelineParts parts) {
  return std::make_unique<Pipeline>(std::move(parts));
}

}  // namespace nibble
