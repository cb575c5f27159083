// Frequencies and slopes against transformers, at real sizes.
#include "model/rope.h"

#include <cmath>

#include "model/oracles.h"
#include "model/rope_config.h"

namespace nibble {
namespace {

Json golden() {
  return read_json_file((test::source_dir() / "tests/golden/archs/ropes.json").string());
}

TEST(Rope, FrequenciesAndScaleMatchTransformers) {
  const Json rows = golden()["ropes"];
  ASSERT_EQ(rows.size(), 48u);
  for (const Json& row : rows) {
    SCOPED_TRACE(row["name"].get<std::string>() + " at " + row["length"].dump());
    AttentionSpec attention;
    RopeDefaults defaults;
    defaults.head_dim = row["head_dim"];
    defaults.max_positions = row["max_position_embeddings"];
    read_rope(ConfigReader(row), defaults, attention);
    const RopeTable table = rope_table(*attention.rope, row["length"]);
    const auto expected = row["inv_freq"].get<std::vector<double>>();
    EXPECT_FLOAT_EQ(table.scale, row["scale"].get<float>());
    ASSERT_EQ(table.inv_freq.size(), expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
      // power and reciprocal may each be a unit in the last place (2^-23) off: torch's power is not
      // correctly rounded
      ASSERT_NEAR(table.inv_freq[i] / expected[i], 1, 2 * 0x1p-23) << i;
    }
  }
}

TEST(Alibi, SlopesMatchTransformers) {
  const Json all = golden()["alibi_slopes"];
  ASSERT_EQ(all.size(), 9u);
  for (const auto& [heads, expected] : all.items()) {
    const std::vector<float> slopes = alibi_slopes(std::stoll(heads));
    ASSERT_EQ(slopes.size(), expected.size()) << heads;
    for (std::size_t i = 0; i < slopes.size(); ++i) {
      EXPECT_FLOAT_EQ(slopes[i], expected[i].get<float>()) << heads << " heads, " << i;
    }
  }
}

}  // namespace
}  // namespace nibble
