// How much of an evaluation is in memory at once.
#pragma once

#include <algorithm>
#include <cstdint>

namespace nibble {

// Tokens of one forward call: enough for efficient matrix products, few enough for the caches.
inline constexpr std::int64_t kRowsPerCall = 4096;

// Rows of logits at once: about 64 MB, whatever the vocabulary.
inline std::int64_t head_rows(std::int64_t vocab) {
  constexpr std::int64_t kLogitBytes = std::int64_t{64} << 20;
  return std::clamp<std::int64_t>(kLogitBytes / (vocab * 4), 16, kRowsPerCall);
}

}  // namespace nibble
