#include "formats/format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "formats/affine.h"
#include "formats/registry.h"
#include "support/test_data.h"

namespace nibble {
namespace {

TEST(Dense, SharesTheBytesOfTheTensor) {
  const std::vector<float> values = {1, -2, 3, 4, 5, 6};
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16}) {
    const Tensor tensor = from_float(values.data(), type, {2, 3});
    const QuantTensor weight = dense(tensor);
    EXPECT_EQ(weight.planes[0].bytes().data(), tensor.bytes().data());
    std::vector<float> decoded(6);
    decode_all(weight, decoded.data());
    EXPECT_EQ(decoded, values);
    validate(weight);
  }
}

TEST(Dense, RefusesWhatIsNoFloatMatrix) {
  EXPECT_ERROR(dense(Tensor::allocate(DType::kF32, {4})), ErrorKind::kCorrupt, "no matrix");
  EXPECT_ERROR(dense(Tensor::allocate(DType::kI32, {4, 4})), ErrorKind::kCorrupt, "no matrix");
}

TEST(Validate, NamesThePlaneThatIsWrong) {
  const std::vector<float> w(64, 0.5f);
  const QuantTensor good = parse_weight_format("int4_g16_asym")->encode(w.data(), 2, 32);
  validate(good);

  QuantTensor wrong_shape = good;
  wrong_shape.planes[1] = Tensor::allocate(DType::kF16, {2, 3});
  EXPECT_ERROR(validate(wrong_shape), ErrorKind::kCorrupt, "scales");
  QuantTensor wrong_type = good;
  wrong_type.planes[2] = Tensor::allocate(DType::kI8, {2, 2});
  EXPECT_ERROR(validate(wrong_type), ErrorKind::kCorrupt, "zeros");
  QuantTensor missing = good;
  missing.planes.pop_back();
  EXPECT_ERROR(validate(missing), ErrorKind::kCorrupt, "2 planes instead of 3");
  QuantTensor wrong_cols = good;
  wrong_cols.cols = 40;
  EXPECT_ERROR(validate(wrong_cols), ErrorKind::kCorrupt, "group 16 does not divide 40");
  EXPECT_ERROR(validate(QuantTensor{}), ErrorKind::kCorrupt, "no format");
}

TEST(Encode, RefusesShapesThatTheFormatCannotHold) {
  const std::vector<float> w(40, 0.5f);
  EXPECT_ERROR(parse_weight_format("int4_g16")->encode(w.data(), 1, 40), ErrorKind::kUsage,
               "does not divide");
  EXPECT_ERROR(parse_weight_format("bf16")->encode(w.data(), 0, 40), ErrorKind::kUsage, "empty");
}

TEST(Encode, RefusesValuesBeyondTheType) {
  const std::vector<float> w = {1, 70000};
  EXPECT_ERROR(parse_weight_format("f16")->encode(w.data(), 1, 2), ErrorKind::kUnsupported,
               "beyond");
  EXPECT_EQ(parse_weight_format("bf16")->encode(w.data(), 1, 2).rows, 1);
}

// The released SmoothQuant+ code lets codes of one-sided groups leave their range; here they must
// stay in it and near their weight.
TEST(Encode, KeepsCodesOfOneSidedGroupsInRange) {
  const std::vector<float> w = {2.0f, 2.1f, 2.2f, 2.3f, -2.0f, -2.1f, -2.2f, -2.3f};
  const QuantTensor t = parse_weight_format("int4_g4_asym_sf32")->encode(w.data(), 1, 8);
  std::vector<float> decoded(8);
  decode_all(t, decoded.data());
  for (std::size_t i = 0; i < 8; ++i) EXPECT_NEAR(decoded[i], w[i], 2.3 / 15 / 2 * 1.0001);
}

TEST(RoundTrip, EqualsEncodeAndDecodeBitForBit) {
  std::mt19937 random(7);
  std::student_t_distribution<float> heavy(2);
  for (const char* name : {"int2_g24_sym", "int3_g24_asym_sbf16", "int4_g24_asym", "int4_g24_sym",
                           "int5_g24_asym_sf32", "int8_g24_asym", "int8_g24_sym_sbf16"}) {
    const FormatPtr format = parse_weight_format(name);
    std::vector<float> w(24 * 64);
    for (float& v : w) v = heavy(random);
    w[5] = -0.0f;
    // Ranges narrower than the weights, so that codes clamp on both sides.
    std::vector<AffineParams> params;
    for (int g = 0; g < 64; ++g) {
      params.push_back(affine_params(format->descriptor(), -0.02f * static_cast<float>(g), 1.0f));
    }
    std::vector<float> decoded(w.size());
    decode_all(affine_encode(format, w.data(), 8, 192, params), decoded.data());
    std::vector<float> direct = w;
    for (std::size_t g = 0; g < 64; ++g) {
      float* group = direct.data() + g * 24;
      affine_round_trip(format->descriptor(), params[g], group, 24, group);  // in place
    }
    EXPECT_EQ(std::memcmp(decoded.data(), direct.data(), w.size() * 4), 0) << name;
  }
}

}  // namespace
}  // namespace nibble
