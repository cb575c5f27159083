// Configs of quantized checkpoints: any text is a config or a clean error, and a config answers for
// any module.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "checkpoint/bnb_state.h"
#include "checkpoint/compressed_tensors_config.h"
#include "checkpoint/gptq_config.h"
#include "checkpoint/input_transforms.h"
#include "formats/weight_source.h"

namespace {

// Calls body, which may refuse but not fail by a bug of ours.
template <class Body>
void expect_no_bug(const Body& body) {
  try {
    body();
  } catch (const nibble::Error& error) {
    if (error.kind() == nibble::ErrorKind::kInternal) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace nibble;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  expect_no_bug([&] {
    const BnbState state = parse_bnb_state(text, "fuzz");
    if (state.rows < 1 || state.cols < 1 || state.block < 1) std::abort();
  });
  expect_no_bug([&] {
    const Json config = parse_json(text, "fuzz", {.max_bytes = 1 << 16, .max_depth = 64});
    if (!config.is_object()) return;
    const std::string module = "model.layers.3.mlp.up_proj";
    expect_no_bug([&] {
      const GptqArgs args = GptqConfig(config, "fuzz").args(module);
      if (args.bits < 2 || args.bits > 8 || args.group < 0) std::abort();
    });
    expect_no_bug([&] {
      const std::int64_t block = InputTransforms(config, "fuzz").block(module);
      if (block < WeightSource::kWholeInput) std::abort();
    });
    expect_no_bug([&] {
      const CompressedConfig compressed(config, "fuzz");
      const CompressedArgs& args = compressed.args(module);
      const bool grouped =
          args.granularity == Granularity::kGroup || args.granularity == Granularity::kBlock;
      if ((grouped && args.group < 1) || args.block_rows < 1) std::abort();
    });
  });
  return 0;
}
