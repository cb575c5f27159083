// Any text is a recipe or a clean error.
#include "quantize/recipe.h"

#include <cstddef>
#include <cstdint>

#include "base/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const nibble::Recipe recipe =
        nibble::parse_recipe({reinterpret_cast<const char*>(data), size}, "fuzz");
    nibble::to_string(recipe);
  } catch (const nibble::Error&) {
    // The expected answer to most inputs.
  }
  return 0;
}
