// GPTQ weights in Marlin's order.
#include <fstream>

#include "checkpoint/checkpoint.h"
#include "support/golden_checkpoint.h"
#include "support/test_data.h"

namespace nibble {
namespace {

using test::golden_checkpoint;
using test::TempDir;

TEST(Marlin, DecodesToTheValuesThatWerePacked) {
  for (const test::GoldenWeight& weight : test::golden_weights("marlin")) {
    EXPECT_EQ(weight.ours, weight.theirs) << weight.module;
  }
}

TEST(Marlin, IsIntegersInMemory) {
  const auto checkpoint = open_checkpoint(golden_checkpoint("marlin"));
  EXPECT_EQ(checkpoint->convention(), "marlin");
  EXPECT_EQ(checkpoint->linear("layers.0.rows").format->name(), "int4_channel_sym");
  EXPECT_EQ(checkpoint->linear("layers.0.groups").format->name(), "int4_g128_sym");
}

TEST(Marlin, IsKnownUnderEachOfItsNames) {
  for (const Json& config : {Json{{"quant_method", "marlin"}, {"group_size", 128}},
                             Json{{"quant_method", "gptq"}, {"is_marlin_format", true}},
                             Json{{"quant_method", "gptq"}, {"format", "marlin"}}}) {
    TempDir dir;
    std::filesystem::copy(golden_checkpoint("marlin"), dir / "model");
    std::ofstream(dir / "model/config.json", std::ios::trunc)
        << Json{{"model_type", "llama"}, {"quantization_config", config}};
    EXPECT_EQ(open_checkpoint(dir / "model")->convention(), "marlin") << config;
  }
  TempDir dir;
  std::filesystem::copy(golden_checkpoint("marlin"), dir / "model");
  std::ofstream(dir / "model/config.json", std::ios::trunc)
      << R"({"quantization_config": {"quant_method": "marlin", "bits": 8}})";
  EXPECT_ERROR(open_checkpoint(dir / "model"), ErrorKind::kUnsupported, "8 bits");
}

}  // namespace
}  // namespace nibble
