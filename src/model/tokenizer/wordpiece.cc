#include "base/error.h"
#include "model/tokenizer/subword.h"
#include "model/tokenizer/trie.h"
#include "model/tokenizer/unicode.h"

namespace nibble {
namespace {

std::int32_t unknown_id(const Vocab& vocab, const std::string& unk_token, std::string_view word) {
  const auto id = vocab.find(unk_token);
  if (!id) {
    fail(ErrorKind::kCorrupt, "tokenizer: '{}' is unknown and the vocabulary has no '{}'",
         word.substr(0, 64), unk_token);
  }
  return *id;
}

class WordPiece : public SubwordModel {
 public:
  WordPiece(std::shared_ptr<const Vocab> vocab, const WordPieceOptions& options)
      : vocab_(std::move(vocab)), options_(options) {
    for (std::int32_t id = 0; id < vocab_->size(); ++id) {
      const std::string& piece = vocab_->piece(id);
      if (!piece.empty()) trie_.insert(piece, id);
    }
    for (const char byte : options.continuing_subword_prefix) {
      if (!trie_.step(continuing_, byte)) {
        has_continuing_ = false;
        break;
      }
    }
  }

  void tokenize(std::string_view word, std::vector<std::int32_t>& ids) const override {
    const std::size_t before = ids.size();
    if (too_long(word) || !append_pieces(word, ids)) {
      ids.resize(before);
      ids.push_back(unknown_id(*vocab_, options_.unk_token, word));
    }
  }

 private:
  bool too_long(std::string_view word) const {
    std::int64_t characters = 0;
    for (std::size_t i = 0; i < word.size(); i += utf8_length(word[i])) ++characters;
    return characters > options_.max_input_chars_per_word;
  }

  bool append_pieces(std::string_view word, std::vector<std::int32_t>& ids) const {
    std::uint32_t node = Trie::kRoot;
    while (!word.empty()) {
      const Trie::Match match = trie_.longest(word, node);
      if (match.length == 0) return false;
      ids.push_back(match.value);
      word.remove_prefix(match.length);
      if (!word.empty() && !has_continuing_) return false;
      node = continuing_;
    }
    return true;
  }

  std::shared_ptr<const Vocab> vocab_;
  WordPieceOptions options_;
  Trie trie_;
  std::uint32_t continuing_ = Trie::kRoot;  // where the pieces with the prefix begin
  bool has_continuing_ = true;
};

class WordLevel : public SubwordModel {
 public:
  WordLevel(std::shared_ptr<const Vocab> vocab, std::string unk_token)
      : vocab_(std::move(vocab)), unk_token_(std::move(unk_token)) {}

  void tokenize(std::string_view word, std::vector<std::int32_t>& ids) const override {
    const auto id = vocab_->find(word);
    ids.push_back(id ? *id : unknown_id(*vocab_, unk_token_, word));
  }

 private:
  std::shared_ptr<const Vocab> vocab_;
  std::string unk_token_;
};

}  // namespace

std::unique_ptr<SubwordModel> make_wordpiece(std::shared_ptr<const Vocab> vocab,
                                             const WordPieceOptions& options) {
  return std::make_unique<WordPiece>(std::move(vocab), options);
}

std::unique_ptr<SubwordModel> make_wordlevel(std::shared_ptr<const Vocab> vocab,
                                             const std::string& unk_token) {
  return std::make_unique<WordLevel>(std::move(vocab), unk_token);
}

}  // namespace nibble
