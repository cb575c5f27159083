// Arbitrary bytes as config.json: parsing and building a spec either works or throws Error.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "model/arch.h"
#include "model/rope.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace nibble;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const ModelSpec spec = build_spec(parse_json(text, "config.json", {.max_bytes = 1 << 16}));
    if (spec.attention.windows.size() != static_cast<std::size_t>(spec.layers)) std::abort();
    for (const auto& rope : {spec.attention.rope, spec.attention.window_rope}) {
      if (rope) rope_table(*rope, 100000);
    }
    if (spec.attention.alibi) alibi_slopes(spec.attention.heads);
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kInternal) std::abort();
  }
  return 0;
}
