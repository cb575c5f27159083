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

std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& path) {
  struct Kind {
    const char* file;
    const char* suffix;
    TokenizerLoader load;
  };
  static constexpr Kind kKinds[] = {
#define NIBBLE_TOKENIZER(function, file, suffix) {file, suffix, function},
#include "model/tokenizer/loaders.def"
#undef NIBBLE_TOKENIZER
  };
  const bool directory = std::filesystem::is_directory(path);
  if (!directory && !std::filesystem::exists(path)) {
    fail(ErrorKind::kCorrupt, "{}: no such file or directory", path.string());
  }
  const std::string name = path.filename().string();
  for (const Kind& kind : kKinds) {
    if (directory) {
      if (std::filesystem::exists(path / kind.file)) return kind.load(path / kind.file);
    } else if (name == kind.file) {
      return kind.load(path);
    }
  }
  for (const Kind& kind : kKinds) {
    if (!directory && name.find(kind.suffix) != std::string::npos) return kind.load(path);
  }
  fail(ErrorKind::kCorrupt,
       "{}: no tokenizer here (tokenizer.json, tokenizer.model, vocab.json with merges.txt, "
       "vocab.txt or tokenizer.bin)",
       path.string());
}

}  // namespace nibble
