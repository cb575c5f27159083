// Small floats under scales: compressed-tensors, FP8 of DeepSeek and transformers, ModelOpt.
#include "checkpoint/scaled_floats.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "checkpoint/checkpoint.h"
#include "support/golden_checkpoint.h"
#include "support/test_data.h"

namespace nibble {
namespace {

using test::golden_checkpoint;

class ScaledFloatsGolden : public testing::TestWithParam<const char*> {};

TEST_P(ScaledFloatsGolden, DecodesToTheValuesOfTheReference) {
  for (const test::GoldenWeight& weight : test::golden_weights(GetParam())) {
    SCOPED_TRACE(weight.module);
    // NVFP4 of compressed-tensors keeps the inverse of its second scale: two roundings more.
    const bool inverse = weight.module == "nvfp4" && std::string(GetParam()) == "float_quantized";
    const float tolerance = inverse ? 0x1p-22f : 0.0f;
    for (std::size_t i = 0; i < weight.ours.size(); ++i) {
      ASSERT_NEAR(weight.ours[i], weight.theirs[i], std::abs(weight.theirs[i]) * tolerance) << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, ScaledFloatsGolden,
                         testing::Values("float_quantized", "fp8", "modelopt"),
                         [](const auto& test) { return std::string(test.param); });

TEST(ScaledFloats, KeepTheirFormats) {
  const auto compressed = open_checkpoint(golden_checkpoint("float_quantized"));
  EXPECT_EQ(compressed->linear("fp8.tensor").format->name(), "fp8_e4m3_tensor");
  EXPECT_EQ(compressed->linear("fp8.block").format->name(), "fp8_e4m3_b16x32");
  EXPECT_EQ(compressed->linear("nvfp4").format->name(), "fp4_e2m1_g16_se4m3");
  EXPECT_EQ(compressed->linear("mxfp4").format->name(), "fp4_e2m1_g32_se8m0");
  EXPECT_EQ(compressed->linear("mxfp8").format->name(), "fp8_e4m3_g32_se8m0");
  EXPECT_EQ(open_checkpoint(golden_checkpoint("fp8"))->linear("blocks").format->name(),
            "fp8_e4m3_b128x128");
  EXPECT_THAT(open_checkpoint(golden_checkpoint("fp8"))->notes(),
              testing::ElementsAre(testing::HasSubstr("activations")));
}

TEST(ScaledFloats, CodesAreMappedNotCopied) {
  const auto checkpoint = open_checkpoint(golden_checkpoint("modelopt"));
  EXPECT_EQ(checkpoint->linear("nvfp4").planes[0].bytes().data(),
            checkpoint->tensor("nvfp4.weight").bytes().data());
}

TEST(ScaledFloats, RowsThatEndInsideAWordArePadded) {
  ScaledFloats parts;
  parts.codes = Tensor::allocate(DType::kF8E4M3, {2, 3});
  std::ranges::fill_n(static_cast<std::uint8_t*>(parts.codes.address()), 6, 0x38);  // 1.0
  const float scale = 2;
  parts.scales = from_float(&scale, DType::kF32, {1});
  const QuantTensor weight = assemble(parts, "w");
  std::vector<float> values(6);
  decode_all(weight, values.data());
  EXPECT_EQ(values, std::vector<float>(6, 2.0f));
}

TEST(ScaledFloats, RefusesPartsThatDoNotFit) {
  const auto parts = [] {
    ScaledFloats p;
    p.codes = Tensor::allocate(DType::kF8E4M3, {4, 8});
    p.scales = Tensor::allocate(DType::kF32, {4, 1});
    p.granularity = Granularity::kChannel;
    return p;
  };
  EXPECT_NO_THROW(assemble(parts(), "w"));
  ScaledFloats wrong = parts();
  wrong.scales = Tensor::allocate(DType::kF32, {3, 1});
  EXPECT_ERROR(assemble(wrong, "w"), ErrorKind::kCorrupt, "[4, 1]");
  wrong = parts();
  wrong.codes = Tensor::allocate(DType::kF8E5M2, {4, 8});
  EXPECT_ERROR(assemble(wrong, "w"), ErrorKind::kUnsupported, "F8_E5M2");
  wrong = parts();
  wrong.granularity = Granularity::kGroup;
  wrong.group = 3;
  EXPECT_ERROR(assemble(wrong, "w"), ErrorKind::kUnsupported, "w: group 3");
  wrong = parts();
  wrong.scales = Tensor::allocate(DType::kI32, {4, 1});
  EXPECT_ERROR(assemble(wrong, "w"), ErrorKind::kUnsupported, "scales of I32");
  wrong = parts();
  wrong.tensor_scale = 2.0f;
  EXPECT_ERROR(assemble(wrong, "w"), ErrorKind::kUnsupported, "scale of the tensor");
  for (const std::optional<float> scale :
       {std::optional<float>(), std::optional(0.0f), std::optional(-1.0f),
        std::optional(std::numeric_limits<float>::infinity())}) {
    wrong = parts();
    wrong.scales = Tensor::allocate(DType::kF8E4M3, {4, 1});
    wrong.tensor_scale = scale;
    EXPECT_ERROR(assemble(wrong, "w"), ErrorKind::kCorrupt, "positive scale of the tensor");
  }
}

}  // namespace
}  // namespace nibble
