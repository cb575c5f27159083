#include "model/tokenizer/tokenizer.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "model/tokenizer/check.h"
#include "model/tokenizer/loaders.h"

namespace nibble {

void check_text(std::string_view text) {
  constexpr std::size_t kMaxBytes = std::size_t{1} << 30;
  if (text.size() > kMaxBytes) {
    fail(ErrorKind::kUsage, "tokenizer: {} bytes of text at once; cut it into parts of 1 GiB",
         text.size());
  }
  if (!is_valid_utf8(text)) fail(ErrorKind::kUsage, "tokenizer: the text is not valid UTF-8");
}

void check_id(const Tokenizer& tokenizer, std::int32_t id) {
  if (id < 0 || id >= tokenizer.vocab_size()) {
    fail(ErrorKind::kUsage, "tokenizer: id {} is outside of the vocabulary of {}", id,
         tokenizer.vocab_size());
  }
}

namespace {

struct Kind {
  const char* file;
  const char* suffix;
  TokenizerLoader load;
};
constexpr Kind kKinds[] = {
#define NIBBLE_TOKENIZER(function, file, suffix) {file, suffix, function},
#include "model/tokenizer/loaders.def"
#undef NIBBLE_TOKENIZER
};

// The tok<vocab>.bin that travels with a converted llama2.c checkpoint; none when there are two.
std::optional<std::filesystem::path> only_tok_bin(const std::filesystem::path& directory) {
  std::optional<std::filesystem::path> found;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("tok") || !name.ends_with(".bin")) continue;
    if (found) return std::nullopt;
    found = entry.path();
  }
  return found;
}

TokenizerLoader loader_of(const std::filesystem::path& file) {
  const std::string name = file.filename().string();
  for (const Kind& kind : kKinds) {
    if (name == kind.file) return kind.load;
  }
  for (const Kind& kind : kKinds) {
    if (name.find(kind.suffix) != std::string::npos) return kind.load;
  }
  return nullptr;
}

}  // namespace

std::optional<std::filesystem::path> find_tokenizer(const std::filesystem::path& path) {
  if (!std::filesystem::is_directory(path)) {
    if (std::filesystem::exists(path) && loader_of(path) != nullptr) return path;
    return std::nullopt;
  }
  for (const Kind& kind : kKinds) {
    if (std::filesystem::exists(path / kind.file)) return path / kind.file;
  }
  return only_tok_bin(path);
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) {
    fail(ErrorKind::kCorrupt, "{}: no such file or directory", path.string());
  }
  const auto file = find_tokenizer(path);
  if (!file) {
    fail(ErrorKind::kCorrupt,
         "{}: no tokenizer here (tokenizer.json, tokenizer.model, vocab.json with merges.txt, "
         "vocab.txt, tokenizer.bin or one tok*.bin)",
         path.string());
  }
  return loader_of(*file)(*file);
}

}  // namespace nibble
