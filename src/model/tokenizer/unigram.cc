#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "model/tokenizer/subword.h"
#include "model/tokenizer/trie.h"
#include "model/tokenizer/unicode.h"

namespace nibble {
namespace {

// How much worse than the worst piece an unknown character is (SentencePiece's kUnkPenalty).
constexpr double kUnknownPenalty = 10.0;
constexpr std::int32_t kUnknown = -1;

// The best segmentation of the text up to one place.
struct Node {
  double score = -std::numeric_limits<double>::infinity();
  std::size_t begin = 0;  // of the last piece
  std::int32_t id = kUnknown;
  bool reached = false;
};

struct Span {
  std::size_t begin;
  std::size_t end;
  std::int32_t id;
};

class Unigram : public SubwordModel {
 public:
  Unigram(std::shared_ptr<const Vocab> vocab, std::vector<double> scores,
          const UnigramOptions& options)
      : vocab_(std::move(vocab)), scores_(std::move(scores)), options_(options), bytes_(*vocab_) {
    double worst = 0;
    for (std::int32_t id = 0; id < static_cast<std::int32_t>(scores_.size()); ++id) {
      if (!std::isfinite(scores_[id])) {
        fail(ErrorKind::kCorrupt, "tokenizer: score of '{}' is not finite", vocab_->piece(id));
      }
      worst = id == 0 ? scores_[id] : std::min(worst, scores_[id]);
      if (!vocab_->piece(id).empty()) trie_.insert(vocab_->piece(id), id);
    }
    unknown_score_ = worst - kUnknownPenalty;
  }

  void tokenize(std::string_view word, std::vector<std::int32_t>& ids) const override {
    for (const Span& span : spans(word, best_path(word))) {
      if (span.id != kUnknown) {
        ids.push_back(span.id);
        continue;
      }
      const std::string_view text = word.substr(span.begin, span.end - span.begin);
      if (const auto id = vocab_->find(text)) {
        ids.push_back(*id);
      } else if (!(options_.byte_fallback && bytes_.append(text, ids))) {
        if (!options_.unk_id) {
          fail(ErrorKind::kCorrupt, "tokenizer: '{}' is unknown and there is no unk_id", text);
        }
        ids.push_back(*options_.unk_id);
      }
    }
  }

 private:
  // nodes[i]: the best way to cut word[0, i).
  std::vector<Node> best_path(std::string_view word) const {
    std::vector<Node> nodes(word.size() + 1);
    nodes[0].score = 0;
    for (std::size_t begin = 0; begin < word.size();) {
      const std::size_t character = utf8_length(word[begin]);
      const double score = nodes[begin].score;
      const auto offer = [&](std::size_t end, double candidate, std::int32_t id) {
        Node& node = nodes[end];
        if (!node.reached || candidate > node.score) node = {candidate, begin, id, true};
      };
      bool single = false;
      std::uint32_t at = Trie::kRoot;
      for (std::size_t end = begin; end < word.size() && trie_.step(at, word[end]);) {
        ++end;
        const std::int32_t id = trie_.value(at);
        if (id == Trie::kNoValue) continue;
        offer(end, score + scores_[id], is_unknown(id) ? kUnknown : id);
        single = single || end - begin == character;
      }
      if (!single) offer(begin + character, score + unknown_score_, kUnknown);
      begin += character;
    }
    return nodes;
  }

  bool is_unknown(std::int32_t id) const { return options_.unk_id && *options_.unk_id == id; }

  // The path read backwards, neighbouring unknown characters joined.
  static std::vector<Span> spans(std::string_view word, const std::vector<Node>& nodes) {
    std::vector<Span> out;
    for (std::size_t end = word.size(); end > 0;) {
      const Node& node = nodes[end];
      if (node.id == kUnknown && !out.empty() && out.back().id == kUnknown) {
        out.back().begin = node.begin;
      } else {
        out.push_back({node.begin, end, node.id});
      }
      end = node.begin;
    }
    std::reverse(out.begin(), out.end());
    return out;
  }

  std::shared_ptr<const Vocab> vocab_;
  std::vector<double> scores_;
  UnigramOptions options_;
  ByteFallback bytes_;
  Trie trie_;
  double unknown_score_ = 0;
};

}  // namespace

std::unique_ptr<SubwordModel> make_unigram(std::shared_ptr<const Vocab> vocab,
                                           std::vector<double> scores,
                                           const UnigramOptions& options) {
  return std::make_unique<Unigram>(std::move(vocab), std::move(scores), options);
}

}  // namespace nibble
