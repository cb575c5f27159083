// Any bytes as tokenizer.json: loads or throws an Error, and what loaded can be used.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "model/tokenizer/loaders.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const auto json = nibble::parse_json(text, "fuzz", {.max_bytes = 1 << 20, .max_depth = 64});
    const auto tokenizer = nibble::tokenizer_from_json(json, {});
    const auto ids = tokenizer->encode("Hello  w\u00f6rld's <s>123\n\u4e2d\u0301 a");
    tokenizer->decode(ids);
    tokenizer->decode(ids, false);
    nibble::StreamDecoder stream(*tokenizer);
    for (const auto id : ids) stream.push(id);
    stream.flush();
  } catch (const nibble::Error& error) {
    if (error.kind() == nibble::ErrorKind::kInternal) throw;
  }
  return 0;
}
