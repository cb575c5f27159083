// JSON values and a parser that is safe on hostile input. Values are nlohmann::json.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string_view>

namespace nibble {

using Json = nlohmann::json;

struct JsonLimits {
  std::size_t max_bytes = std::size_t{256} << 20;
  int max_depth = 64;
};

// Parses one JSON document. Throws kCorrupt, naming `what`, on syntax errors, invalid UTF-8,
// duplicate keys, nesting deeper than the limit or text longer than the limit. Never recurses with
// the input.
Json parse_json(std::string_view text, std::string_view what, const JsonLimits& limits = {});

// Reads and parses a file; kCorrupt when it is missing or too large.
Json read_json_file(const std::string& path, const JsonLimits& limits = {});

}  // namespace nibble
