#include <unordered_map>

#include "base/error.h"
#include "model/tokenizer/subword.h"
#include "model/tokenizer/symbol_list.h"
#include "model/tokenizer/unicode.h"

namespace nibble {
namespace {

std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
         static_cast<std::uint32_t>(right);
}

class Bpe : public SubwordModel {
 public:
  Bpe(std::shared_ptr<const Vocab> vocab, const BpeMerges& merges, const BpeOptions& options)
      : vocab_(std::move(vocab)), options_(options), bytes_(*vocab_) {
    if (!options.unk_token.empty()) unk_ = vocab_->find(options.unk_token);
    const std::size_t prefix = options.continuing_subword_prefix.size();
    merges_.reserve(merges.size());
    double rank = 0;
    for (const auto& [left, right] : merges) {
      if (right.size() < prefix) {
        fail(ErrorKind::kCorrupt, "tokenizer: merge '{} {}' lacks the subword prefix", left, right);
      }
      const MergeResult merge{rank++, known(left + right.substr(prefix), left, right)};
      merges_.insert_or_assign(pair_key(known(left, left, right), known(right, left, right)),
                               merge);
    }
  }

  void tokenize(std::string_view word, std::vector<std::int32_t>& ids) const override {
    if (options_.ignore_merges) {
      if (const auto id = vocab_->find(word)) {
        ids.push_back(*id);
        return;
      }
    }
    std::vector<std::int32_t> start;
    initial_symbols(word, start);
    merge_symbols(
        start, [this](std::int32_t a, std::int32_t b) { return find_merge(a, b); }, ids);
  }

 private:
  std::int32_t known(const std::string& piece, const std::string& left,
                     const std::string& right) const {
    const auto id = vocab_->find(piece);
    if (!id) {
      fail(ErrorKind::kCorrupt, "tokenizer: merge '{} {}' needs the token '{}', which is not there",
           left, right, piece);
    }
    return *id;
  }

  void initial_symbols(std::string_view word, std::vector<std::int32_t>& symbols) const {
    symbols.reserve(word.size());
    std::string spelled;
    bool after_unknown = false;
    for (std::size_t i = 0; i < word.size();) {
      const std::string_view c = word.substr(i, utf8_length(word[i]));
      spelled.clear();
      if (i > 0) spelled += options_.continuing_subword_prefix;
      spelled += c;
      i += c.size();
      if (i == word.size()) spelled += options_.end_of_word_suffix;
      if (const auto id = vocab_->find(spelled)) {
        symbols.push_back(*id);
        after_unknown = false;
      } else if (options_.byte_fallback && bytes_.append(spelled, symbols)) {
        after_unknown = false;
      } else if (!options_.unk_token.empty()) {
        if (!unk_) {
          fail(ErrorKind::kCorrupt, "tokenizer: '{}' is unknown and the vocabulary has no '{}'", c,
               options_.unk_token);
        }
        if (!(after_unknown && options_.fuse_unk)) symbols.push_back(*unk_);
        after_unknown = true;
      }
    }
  }

  std::optional<MergeResult> find_merge(std::int32_t left, std::int32_t right) const {
    const auto it = merges_.find(pair_key(left, right));
    if (it == merges_.end()) return std::nullopt;
    return it->second;
  }

  std::shared_ptr<const Vocab> vocab_;
  BpeOptions options_;
  ByteFallback bytes_;
  std::optional<std::int32_t> unk_;
  std::unordered_map<std::uint64_t, MergeResult> merges_;
};

}  // namespace

std::unique_ptr<SubwordModel> make_bpe(std::shared_ptr<const Vocab> vocab, const BpeMerges& merges,
                                       const BpeOptions& options) {
  return std::make_unique<Bpe>(std::move(vocab), merges, options);
}

ByteFallback::ByteFallback(const Vocab& vocab) {
  for (int byte = 0; byte < 256; ++byte) {
    ids_[byte] = vocab.find(fmt::format("<0x{:02X}>", byte)).value_or(-1);
  }
}

bool ByteFallback::append(std::string_view text, std::vector<std::int32_t>& ids) const {
  const std::size_t before = ids.size();
  for (const char c : text) {
    const std::int32_t id = ids_[static_cast<unsigned char>(c)];
    if (id < 0) {
      ids.resize(before);
      return false;
    }
    ids.push_back(id);
  }
  return true;
}

}  // namespace nibble
