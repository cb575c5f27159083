// The body of POST /v1/embeddings.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/completion_request.h"

namespace nibble::server {

struct EmbeddingDefaults {
  std::int64_t vocab = 0;
  std::int64_t dimensions = 0;  // of the model's vectors
  bool normalize = true;
};

struct EmbeddingRequest {
  std::string model;            // empty: not given
  std::vector<Prompt> inputs;   // at least one
  bool base64 = false;          // of little-endian float32; else numbers
  std::int64_t dimensions = 0;  // the first so many of each vector
  bool normalize = true;        // after that
  bool add_special_tokens = true;
  // Longer inputs are cut to so many tokens at their end; -1: to what the model takes. Without,
  // they are refused.
  std::optional<std::int64_t> truncate;
};

struct ParsedEmbedding {
  EmbeddingRequest request;
  std::vector<std::string> ignored;  // members that mean nothing here
};

// ApiError 400 (and kCorrupt for what is no JSON) on anything that cannot be meant.
ParsedEmbedding parse_embedding(std::string_view body, const EmbeddingDefaults& defaults);

}  // namespace nibble::server
