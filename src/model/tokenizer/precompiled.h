// SentencePiece's precompiled character map: a double-array trie (Yata's darts-clone) from byte
// strings to replacements. Layout: uint32 size of the trie in bytes, the trie's units (uint32,
// little-endian), then the replacements, each ended by a NUL.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

// Immutable and thread-safe.
class PrecompiledMap {
 public:
  // kCorrupt when any key leads out of the trie or to a replacement that is not valid UTF-8.
  PrecompiledMap(std::string_view blob, std::string_view what);

  // The replacement of the shortest key that `text` starts with.
  std::optional<std::string_view> find_shortest(std::string_view text) const;

  // As the `tokenizers` library does it: grapheme by grapheme, and character by character where
  // the grapheme has no replacement.
  std::string normalize(std::string_view text) const;

 private:
  void check(std::string_view what) const;

  std::vector<std::uint32_t> units_;
  std::string replacements_;
};

}  // namespace nibble
