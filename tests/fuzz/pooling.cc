// Any modules.json says how to pool or gets a clean error.
#include "runtime/pooling.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const nibble::Json json = nibble::parse_json(text, "modules.json");
    // The last element stands for the file that the others name.
    nibble::read_pooling(json, [&](const std::string&) { return json.back(); });
  } catch (const nibble::Error&) {
    // The expected answer to most inputs.
  }
  return 0;
}
