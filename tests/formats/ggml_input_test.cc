// What ggml's kernels round, against products that they made
// (tests/golden/formats/make_products.py).
#include "formats/ggml_input.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/json.h"
#include "formats/registry.h"
#include "support/hex.h"
#include "support/test_data.h"

namespace nibble::test {
namespace {

constexpr std::int64_t kRows = 2;
constexpr std::int64_t kCols = 512;

Json golden() {
  return read_json_file((source_dir() / "tests/golden/formats/products.json").string());
}

std::vector<float> floats_of(const std::string& hex) {
  const std::vector<std::uint8_t> bytes = from_hex(hex);
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

QuantTensor weight_of(BlockType type, const std::string& hex) {
  const std::vector<std::uint8_t> bytes = from_hex(hex);
  QuantTensor weight{block_format(type), kRows, kCols, {}};
  weight.planes.push_back(
      Tensor::allocate(DType::kU8, {kRows, static_cast<std::int64_t>(bytes.size()) / kRows}));
  std::memcpy(weight.planes[0].mutable_data<std::uint8_t>(), bytes.data(), bytes.size());
  return weight;
}

// The largest difference of x w^T to y, in units of the sum of the magnitudes of the products.
double error_of(const std::vector<float>& x, const QuantTensor& weight, const Json& y) {
  std::vector<float> w(kCols);
  double worst = 0;
  for (std::int64_t n = 0; n < kRows; ++n) {
    weight.format->decode(weight, n, 0, kCols, w.data());
    for (std::size_t m = 0; m < y.size(); ++m) {
      double sum = 0;
      double magnitude = 0;
      for (std::size_t k = 0; k < w.size(); ++k) {
        const double product = static_cast<double>(x[m * w.size() + k]) * w[k];
        sum += product;
        magnitude += std::abs(product);
      }
      const double expected = y[m][static_cast<std::size_t>(n)].get<double>();
      worst = std::max(worst, std::abs(sum - expected) / magnitude);
    }
  }
  return worst;
}

// Kernels sum a block in integers and blocks in float32: a few roundings of 2^-24. The sums of q4_1
// and q5_1 are rounded to F16, within 2^-12 of what is multiplied with the minimums.
TEST(GgmlInput, MakesTheProductsOfGgmlsKernels) {
  const Json file = golden();
  const std::vector<float> x = floats_of(file.at("x").get<std::string>());
  const auto rows = static_cast<std::int64_t>(x.size()) / kCols;
  ASSERT_EQ(file.at("types").size(), 25u);
  for (const auto& [name, row] : file.at("types").items()) {
    const auto type = block_type_named(name);
    ASSERT_TRUE(type.has_value()) << name;
    const QuantTensor weight = weight_of(*type, row.at("hex").get<std::string>());
    const ActivationFormatPtr format = ggml_input(*weight.format);
    std::vector<float> rounded(x.size());
    format->round(x.data(), kCols, rows, kCols, rounded.data(), kCols);
    const double bound = name == "q4_1" || name == "q5_1" ? 0x1p-12 : 0x1p-21;
    EXPECT_LT(error_of(rounded, weight, row.at("y")), bound) << name;
    EXPECT_GT(error_of(x, weight, row.at("y")), 4 * bound) << name;
  }
}

TEST(GgmlInput, IsNoFormatBeforeTheWeightIsKnown) {
  EXPECT_FALSE(parse_activation_format("ggml")->is_complete());
}

TEST(GgmlInput, FollowsFromBlocksAlone) {
  EXPECT_EQ(ggml_input(*block_format(BlockType::kQ4_K))->name(), "int8_g256");
  EXPECT_EQ(ggml_input(*block_format(BlockType::kQ4_0))->name(), "int8_g32_sf16");
  EXPECT_EQ(ggml_input(*parse_weight_format("bf16")), nullptr);
  EXPECT_ERROR(ggml_input(*parse_weight_format("int4_g128")), ErrorKind::kUnsupported, "int4_g128");
}

}  // namespace
}  // namespace nibble::test
