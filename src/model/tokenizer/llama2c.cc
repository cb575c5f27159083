// The tokenizer file of llama2.c (karpathy/llama2.c, tokenizer.py): int32 max_token_length, then
// for each token float32 score, int32 length and that many bytes. Ids 0, 1, 2 are <unk>, <s>, </s>,
// ids 3...258 the bytes.
#include <bit>
#include <cmath>
#include <cstring>
#include <queue>
#include <unordered_map>

#include "base/error.h"
#include "base/file.h"
#include "base/mmap.h"
#include "model/tokenizer/check.h"
#include "model/tokenizer/loaders.h"
#include "model/tokenizer/symbol_list.h"
#include "model/tokenizer/unicode.h"

namespace nibble {
namespace {

constexpr std::int32_t kBos = 1;
constexpr std::int32_t kEos = 2;
constexpr std::int32_t kFirstByte = 3;
constexpr std::int32_t kFirstPiece = kFirstByte + 256;

struct ScoredPiece {
  std::string text;
  float score;
};

// Pieces of the file, or none when it is no such file.
std::vector<ScoredPiece> parse_pieces(std::string_view bytes) {
  const auto read_int = [&](std::size_t at) {
    std::int32_t value;
    std::memcpy(&value, bytes.data() + at, sizeof value);
    return value;
  };
  std::vector<ScoredPiece> pieces;
  if (bytes.size() < 4) return {};
  const std::int32_t longest = read_int(0);
  for (std::size_t at = 4; at < bytes.size();) {
    if (bytes.size() - at < 8) return {};
    const float score = std::bit_cast<float>(read_int(at));
    const std::int32_t length = read_int(at + 4);
    at += 8;
    const bool sane =
        length >= 0 && length <= longest && static_cast<std::size_t>(length) <= bytes.size() - at;
    if (!sane || !std::isfinite(score)) return {};
    pieces.push_back({std::string(bytes.substr(at, static_cast<std::size_t>(length))), score});
    at += static_cast<std::size_t>(length);
  }
  if (pieces.size() < static_cast<std::size_t>(kFirstPiece)) return {};
  return pieces;
}

class Llama2cTokenizer : public Tokenizer {
 public:
  Llama2cTokenizer(std::vector<ScoredPiece> pieces, std::string_view what)
      : pieces_(std::move(pieces)) {
    for (std::size_t i = 0; i < pieces_.size(); ++i) {
      std::string& text = pieces_[i].text;
      const auto id = static_cast<std::int32_t>(i);
      // The file writes BOS and EOS as they should print; they are controls all the same.
      if (id == kBos) text = "<s>";
      if (id == kEos) text = "</s>";
      if (!is_valid_utf8(text)) {
        fail(ErrorKind::kCorrupt, "{}: token {} is not valid UTF-8", what, id);
      }
      ids_.emplace(text, id);  // of equal pieces the first counts
    }
  }

  std::vector<std::int32_t> encode(std::string_view text,
                                   const EncodeOptions& options) const override {
    check_text(text);
    std::vector<std::int32_t> ids;
    if (options.add_special) ids.push_back(kBos);
    if (text.empty()) return ids;
    std::vector<std::int32_t> symbols;
    const auto space = ids_.find(" ");
    if (space != ids_.end()) symbols.push_back(space->second);
    for (std::size_t i = 0; i < text.size();) {
      const std::string_view c = text.substr(i, utf8_length(text[i]));
      i += c.size();
      if (const auto id = piece_id(c)) {
        symbols.push_back(*id);
      } else {
        for (const char byte : c) {
          symbols.push_back(kFirstByte + static_cast<unsigned char>(byte));
        }
      }
    }
    merge_symbols(
        symbols, [this](std::int32_t a, std::int32_t b) { return find_merge(a, b); }, ids);
    return ids;
  }

  std::string decode(const std::vector<std::int32_t>& ids, bool skip_special) const override {
    std::string bytes;
    bool after_bos = true;  // the first piece of a text carries the dummy space
    for (const std::int32_t id : ids) {
      check_id(*this, id);
      if (is_special(id)) {
        if (!skip_special) bytes += pieces_[id].text;
        after_bos = after_bos || id == kBos;
        continue;
      }
      std::string_view piece = pieces_[id].text;
      if (id >= kFirstByte && id < kFirstPiece) {
        bytes += static_cast<char>(id - kFirstByte);
      } else {
        if (after_bos && piece.starts_with(' ')) piece.remove_prefix(1);
        bytes += piece;
      }
      after_bos = false;
    }
    return replace_each_invalid_byte(bytes);
  }

  std::int64_t vocab_size() const override { return static_cast<std::int64_t>(pieces_.size()); }
  std::string piece(std::int32_t id) const override {
    check_id(*this, id);
    return pieces_[id].text;
  }
  std::optional<std::int32_t> piece_id(std::string_view piece) const override {
    const auto it = ids_.find(piece);
    if (it == ids_.end()) return std::nullopt;
    return it->second;
  }
  bool is_special(std::int32_t id) const override { return id >= 0 && id < kFirstByte; }
  std::optional<std::int32_t> bos() const override { return kBos; }
  std::optional<std::int32_t> eos() const override { return kEos; }

 private:
  // The pair of the highest score merges first.
  std::optional<MergeResult> find_merge(std::int32_t left, std::int32_t right) const {
    const auto it = ids_.find(pieces_[left].text + pieces_[right].text);
    if (it == ids_.end()) return std::nullopt;
    return MergeResult{-pieces_[it->second].score, it->second};
  }

  std::vector<ScoredPiece> pieces_;
  StringMap<std::int32_t> ids_;
};

std::string_view text_of(const MappedFile& file) {
  const auto bytes = file.bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Vocabulary size in the header of a llama2.c checkpoint (int32 x 7, the sixth; negative when the
// classifier is separate).
std::optional<std::size_t> checkpoint_vocab(std::string_view bytes) {
  std::int32_t header[7];
  if (bytes.size() < sizeof header) return std::nullopt;
  std::memcpy(header, bytes.data(), sizeof header);
  if (header[5] == 0 || header[5] == INT32_MIN) return std::nullopt;
  return static_cast<std::size_t>(std::abs(header[5]));
}

}  // namespace

std::unique_ptr<Tokenizer> load_llama2c(const std::filesystem::path& file_path) {
  const auto file = MappedFile::open(file_path);
  if (auto pieces = parse_pieces(text_of(*file)); !pieces.empty()) {
    return std::make_unique<Llama2cTokenizer>(std::move(pieces), file_path.string());
  }
  // A checkpoint then: the tokenizer is the tok*.bin beside it with as many tokens.
  const auto wanted = checkpoint_vocab(text_of(*file));
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(
           file_path.has_parent_path() ? file_path.parent_path() : ".", error)) {
    const std::string name = entry.path().filename().string();
    if (!wanted || !entry.is_regular_file() || !name.starts_with("tok") ||
        !name.ends_with(".bin")) {
      continue;
    }
    auto pieces = parse_pieces(text_of(*MappedFile::open(entry.path())));
    if (pieces.size() == *wanted) {
      return std::make_unique<Llama2cTokenizer>(std::move(pieces), entry.path().string());
    }
  }
  fail(ErrorKind::kCorrupt, "{}: no tokenizer, and no tok*.bin beside it that fits",
       file_path.string());
}

}  // namespace nibble
