// tokenizer.ggml.token_type of GGUF files. Source: llama.cpp, src/llama-vocab.h.
#pragma once

#include <cstdint>

namespace nibble {

enum GgufTokenType : std::int32_t {
  kNormalToken = 1,
  kUnknownToken = 2,
  kControlToken = 3,
  kUserDefinedToken = 4,
  kUnusedToken = 5,
  kByteToken = 6
};

}  // namespace nibble
