// Cross-layer equalization of a whole model.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "quantize/small_model.h"
#include "support/exact_backend.h"
#include "support/tolerance.h"

namespace nibble::test {
namespace {

TEST(CrossLayerEqualization, RowsAndTheColumnsThatReadThemHaveOneRange) {
  TempDir dir;
  const auto backend = exact_backend(2);
  write_small_model(dir / "model", 1);
  QuantizeOptions options = small_options(dir / "model", dir / "out", R"({"steps": [
      {"algorithm": "cross_layer_equalization"}, {"algorithm": "rtn"}]})");
  options.format = parse_model_format("w=bf16");
  quantize(options, *backend);
  const auto result = open_checkpoint(dir / "out");
  const Tensor up = to_float(result->tensor("model.layers.0.mlp.up_proj.weight"));
  const Tensor down = to_float(result->tensor("model.layers.0.mlp.down_proj.weight"));
  const std::int64_t channels = up.dim(0), width = up.dim(1);
  ASSERT_EQ(down.dim(1), channels);
  for (std::int64_t j = 0; j < channels; ++j) {
    float made = 0, read = 0;
    for (std::int64_t i = 0; i < width; ++i) {
      made = std::max(made, std::abs(up.data<float>()[j * width + i]));
      read = std::max(read, std::abs(down.data<float>()[i * channels + j]));
    }
    EXPECT_NEAR(made, read, 2.1 * unit_roundoff(DType::kBF16) * static_cast<double>(read)) << j;
  }
}

}  // namespace
}  // namespace nibble::test
