#include "checkpoint/pre_patterns.h"

#include <algorithm>

#include "base/error.h"
#include "checkpoint/gguf_tokenizer.h"

namespace nibble {
namespace {

std::string_view first_pattern(std::string_view name) {
  const auto& types = gguf_pre_types();
  const auto type = std::ranges::find_if(types, [&](const GgufPreType& t) {
    return std::ranges::find(t.names, name) != t.names.end();
  });
  return type->patterns.front();
}

[[noreturn]] void cannot(const std::string& what) {
  fail(ErrorKind::kUnsupported, "tokenizer.json: pre-tokenizer '{}', which GGUF cannot say",
       what.substr(0, 64));
}

// A part between matches that is dropped, with everything that is no match, is the matches alone.
std::string split_pattern(const Json& split) {
  const Json pattern = split.value("pattern", Json::object());
  const Json regex = pattern.is_object() ? pattern.value("Regex", Json()) : Json();
  const std::string behavior = split.value("behavior", "");
  const bool inverted = split.value("invert", false);
  const bool isolates =
      (behavior == "Isolated" && !inverted) || (behavior == "Removed" && inverted);
  if (!regex.is_string() || !isolates) cannot("Split");
  return regex.get<std::string>();
}

}  // namespace

void add_pre_patterns(const Json& part, std::vector<std::string>& patterns) {
  const Json named = part.is_object() ? part.value("type", Json()) : Json();
  const std::string type = named.is_string() ? named.get<std::string>() : "";
  if (type == "ByteLevel") {
    if (part.value("use_regex", true)) patterns.emplace_back(first_pattern("gpt-2"));
  } else if (type == "Split") {
    patterns.push_back(split_pattern(part));
  } else if (type == "Digits") {
    patterns.emplace_back(part.value("individual_digits", false) ? R"(\p{N})" : R"(\p{N}+)");
  } else if (type == "Punctuation") {
    patterns.emplace_back(first_pattern("falcon"));
  } else {
    cannot(type);
  }
}

std::string_view pre_type_of(const std::vector<std::string>& patterns, bool ignore_merges) {
  const auto& types = gguf_pre_types();
  const auto found = std::ranges::find_if(types, [&](const GgufPreType& type) {
    return type.ignore_merges == ignore_merges && std::ranges::equal(type.patterns, patterns);
  });
  return found == types.end() ? std::string_view() : found->names.front();
}

}  // namespace nibble
