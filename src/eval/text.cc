#include "eval/text.h"

#include "base/error.h"
#include "base/file.h"

namespace nibble {

std::vector<std::int32_t> read_text_ids(const Tokenizer& tokenizer,
                                        const std::filesystem::path& path) {
  const std::string text = read_text_file(path);
  if (!is_valid_utf8(text)) {
    fail(ErrorKind::kUsage, "{}: the text is not valid UTF-8; convert it first", path.string());
  }
  return tokenizer.encode(text);
}

}  // namespace nibble
