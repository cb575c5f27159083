// tokenizer.model: encoding by the SentencePiece library, added tokens from tokenizer_config.json.
#include <sentencepiece_processor.h>

#include <unordered_set>

#include "base/error.h"
#include "base/file.h"
#include "model/tokenizer/check.h"
#include "model/tokenizer/json_fields.h"
#include "model/tokenizer/loaders.h"
#include "model/tokenizer/pattern.h"
#include "model/tokenizer/sentencepiece_proto.h"
#include "model/tokenizer/unicode.h"

namespace nibble {
namespace {

constexpr std::string_view kMark = "\u2581";  // stands for a space in pieces

// The library's exceptions (of its trie builder) and error statuses mean a damaged file.
std::unique_ptr<sentencepiece::SentencePieceProcessor> make_processor(std::string_view bytes,
                                                                      std::string_view what) {
  auto processor = std::make_unique<sentencepiece::SentencePieceProcessor>();
  std::string problem;
  try {
    const auto status = processor->LoadFromSerializedProto({bytes.data(), bytes.size()});
    if (!status.ok()) problem = status.ToString();
  } catch (const std::exception& e) {
    problem = e.what();
  }
  if (!problem.empty()) fail(ErrorKind::kCorrupt, "{}: {}", what, problem);
  return processor;
}

class SentencePieceTokenizer : public Tokenizer {
 public:
  SentencePieceTokenizer(std::string bytes, const TokenizerConfig& config, std::string_view what)
      : proto_(parse_sentencepiece_proto(bytes, what)),
        vocab_(static_cast<std::int64_t>(proto_.pieces.size() + config.added_tokens.size()), what),
        first_(make_processor(bytes, what)),
        legacy_(bool_field_or(config.json, "legacy", false, "tokenizer_config.json")) {
    // Repeating a protobuf message merges the two: this one says add_dummy_prefix = false.
    bytes += std::string_view("\x1a\x02\x18\x00", 4);
    rest_ = make_processor(bytes, what);
    fill_vocab();
    add_tokens(config);
    set_edges(config);
  }

  std::vector<std::int32_t> encode(std::string_view text,
                                   const EncodeOptions& options) const override {
    check_text(text);
    std::vector<std::int32_t> ids;
    if (options.add_special) ids = edges_.before;
    for (const TextSegment& segment : added_.segments(text, options.parse_special)) {
      if (segment.id != TextSegment::kText) {
        ids.push_back(segment.id);
      } else {
        const bool prefixed = legacy_ || segment.begin == 0;
        append_text(text.substr(segment.begin, segment.end - segment.begin),
                    prefixed ? *first_ : *rest_, ids);
      }
    }
    if (options.add_special) ids.insert(ids.end(), edges_.after.begin(), edges_.after.end());
    return ids;
  }

  std::string decode(const std::vector<std::int32_t>& ids, bool skip_special) const override {
    std::string text;
    std::string bytes;
    bool at_start = true;
    const auto flush = [&] {
      text += replace_each_invalid_byte(bytes);
      bytes.clear();
    };
    for (const std::int32_t id : ids) {
      check_id(*this, id);
      const auto i = static_cast<std::size_t>(id);
      if (types_[i] == SentencePieceProto::kByte) {
        bytes += static_cast<char>(std::stoi(vocab_.piece(id).substr(3, 2), nullptr, 16));
        at_start = false;
        continue;
      }
      flush();
      if (is_literal(id)) {
        if (!skip_special || !is_special(id)) text += vocab_.piece(id);
      } else if (types_[i] == SentencePieceProto::kUnknown) {
        text += proto_.unk_surface;
        at_start = false;
      } else {
        append_piece(vocab_.piece(id), at_start, text);
        at_start = false;
      }
    }
    flush();
    return text;
  }

  std::int64_t vocab_size() const override { return vocab_.size(); }
  std::string piece(std::int32_t id) const override {
    check_id(*this, id);
    return vocab_.piece(id);
  }
  std::optional<std::int32_t> piece_id(std::string_view piece) const override {
    return vocab_.find(piece);
  }
  bool is_special(std::int32_t id) const override { return special_.contains(id); }
  std::optional<std::int32_t> bos() const override { return bos_; }
  std::optional<std::int32_t> eos() const override { return eos_; }

 private:
  void fill_vocab() {
    for (std::size_t i = 0; i < proto_.pieces.size(); ++i) {
      const auto id = static_cast<std::int32_t>(i);
      const SentencePieceProto::Piece& piece = proto_.pieces[i];
      vocab_.add(piece.text, id);
      types_.push_back(piece.type);
      const bool control = piece.type == SentencePieceProto::kControl;
      if (control || piece.type == SentencePieceProto::kUnknown) special_.insert(id);
      // Text that spells <s> becomes the token, as users of chat templates expect.
      if (control) added_.add(piece.text, {.id = id, .content = piece.text, .special = true});
      if (control) literal_.insert(id);
    }
    proto_.pieces.clear();
  }

  void add_tokens(const TokenizerConfig& config) {
    std::vector<AddedToken> tokens;
    merge_added_tokens(config, vocab_, tokens);
    for (const AddedToken& token : tokens) {
      vocab_.set(token.content, token.id);
      types_.resize(static_cast<std::size_t>(vocab_.size()), SentencePieceProto::kUserDefined);
      const auto id = static_cast<std::int32_t>(token.id);
      if (token.special) special_.insert(id);
      if (types_[static_cast<std::size_t>(id)] == SentencePieceProto::kUnknown) continue;
      added_.add(token.content, token);
      literal_.insert(id);
    }
  }

  // BOS is on unless the configuration says otherwise: that is how models with such a file were
  // trained.
  void set_edges(const TokenizerConfig& config) {
    const EdgeTokens named = find_edge_tokens(config, vocab_);
    const auto known = [&](std::int64_t id) -> std::optional<std::int32_t> {
      if (id < 0 || id >= vocab_.size()) return std::nullopt;
      return static_cast<std::int32_t>(id);
    };
    bos_ = named.bos ? named.bos : known(proto_.bos_id);
    eos_ = named.eos ? named.eos : known(proto_.eos_id);
    if (config.add_bos.value_or(true) && bos_) edges_.before = {*bos_};
    if (config.add_eos.value_or(false) && eos_) edges_.after = {*eos_};
  }

  static void append_text(std::string_view text,
                          const sentencepiece::SentencePieceProcessor& processor,
                          std::vector<std::int32_t>& ids) {
    std::vector<int> part;
    const auto status = processor.Encode({text.data(), text.size()}, &part);
    if (!status.ok()) fail(ErrorKind::kCorrupt, "tokenizer.model: {}", status.ToString());
    ids.insert(ids.end(), part.begin(), part.end());
  }

  void append_piece(std::string_view piece, bool at_start, std::string& text) const {
    const bool strip = proto_.add_dummy_prefix || proto_.remove_extra_whitespaces;
    if (at_start && strip && piece.starts_with(kMark)) piece.remove_prefix(kMark.size());
    text += replace_all(piece, kMark, " ");
  }

  // Tokens that stand for their own spelling: control and added ones.
  bool is_literal(std::int32_t id) const { return literal_.contains(id); }

  SentencePieceProto proto_;
  Vocab vocab_;
  std::vector<int> types_;
  std::unique_ptr<sentencepiece::SentencePieceProcessor> first_;
  std::unique_ptr<sentencepiece::SentencePieceProcessor> rest_;  // without the leading space
  bool legacy_;  // every part of the text between tokens gets a leading space, not only the first
  TokenFinder added_;
  std::unordered_set<std::int32_t> special_;
  std::unordered_set<std::int32_t> literal_;
  PostProcessor edges_;
  std::optional<std::int32_t> bos_;
  std::optional<std::int32_t> eos_;
};

}  // namespace

std::unique_ptr<Tokenizer> load_sentencepiece(const std::filesystem::path& file_path) {
  constexpr std::uintmax_t kMaxBytes = std::uintmax_t{256} << 20;
  std::error_code error;
  if (std::filesystem::file_size(file_path, error) > kMaxBytes || error) {
    fail(ErrorKind::kCorrupt, "{}: no SentencePiece model of sane size", file_path.string());
  }
  return std::make_unique<SentencePieceTokenizer>(read_text_file(file_path),
                                                  read_tokenizer_config(file_path.parent_path()),
                                                  file_path.string());
}

}  // namespace nibble
