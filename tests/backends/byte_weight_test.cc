// Weights as bytes for tensor cores: the same values, and a refusal of everything else.
#include "backends/cuda/byte_weight.h"

#include <gtest/gtest.h>

#include <cmath>

#include "formats/float_bits.h"
#include "formats/registry.h"

namespace nibble::test {
namespace {

using cuda::ByteType;

std::vector<float> weights(std::int64_t count) {
  std::vector<float> values;
  for (std::int64_t i = 0; i < count; ++i) {
    values.push_back(std::sin(static_cast<float>(i)) * static_cast<float>(1 + i % 7));
  }
  return values;
}

float value_of_code(ByteType type, std::uint8_t code) {
  if (type == ByteType::kInt8) return static_cast<float>(static_cast<std::int8_t>(code));
  return value_of(FloatBits{}, code);
}

struct Case {
  const char* format;
  ByteType type;
};

TEST(ByteWeight, HasTheValuesOfTheFormat) {
  constexpr std::int64_t kRows = 32, kCols = 48;
  ThreadPool pool(2);
  for (const Case& c :
       {Case{"int8_channel_sym", ByteType::kInt8}, Case{"int8_channel_sym_sf32", ByteType::kInt8},
        Case{"fp8_e4m3_channel", ByteType::kFp8}}) {
    const std::vector<float> w = weights(kRows * kCols);
    const QuantTensor tensor = parse_weight_format(c.format)->encode(w.data(), kRows, kCols);
    const cuda::ByteWeight bytes = cuda::pack_bytes(tensor, c.type, pool);
    std::vector<float> expected(w.size());
    decode_all(tensor, expected.data());
    for (std::size_t i = 0; i < w.size(); ++i) {
      const float scale = bytes.scales.data<float>()[i / kCols];
      EXPECT_EQ(scale * value_of_code(c.type, bytes.codes.data<std::uint8_t>()[i]), expected[i])
          << c.format << " at " << i;
    }
  }
}

TEST(ByteWeight, RefusesWhatIsNoByteARowScale) {
  ThreadPool pool(1);
  for (const char* format : {"int8_channel_asym", "int8_g32_sym", "int4_channel_sym", "bf16",
                             "fp8_e5m2_channel", "fp8_e4m3_g32", "int8_tensor_sym"}) {
    const std::vector<float> w = weights(32 * 64);
    const QuantTensor tensor = parse_weight_format(format)->encode(w.data(), 32, 64);
    for (const ByteType type : {ByteType::kInt8, ByteType::kFp8}) {
      EXPECT_NE(cuda::bytes_why_not(tensor, type), "") << format;
      EXPECT_THROW(cuda::pack_bytes(tensor, type, pool), Error) << format;
    }
  }
  const std::vector<float> w = weights(24 * 64);
  const FormatPtr format = parse_weight_format("int8_channel_sym");
  EXPECT_NE(cuda::bytes_why_not(format->encode(w.data(), 24, 64), ByteType::kInt8), "");
  EXPECT_NE(cuda::bytes_why_not(format->encode(w.data(), 64, 24), ByteType::kInt8), "");
}

TEST(ByteWeight, IsForSymmetricBytesByToken) {
  const auto type = [](const char* name) {
    return cuda::byte_type(*parse_activation_format(name));
  };
  EXPECT_EQ(type("int8_token"), ByteType::kInt8);
  EXPECT_EQ(type("fp8_e4m3_token"), ByteType::kFp8);
  for (const char* name : {"int4_token", "int8_asym_token", "int8_g128", "int8_token_o6",
                           "int8_tensor", "fp8_e5m2_token", "fp8_e4m3_tensor"}) {
    EXPECT_EQ(type(name), std::nullopt) << name;
  }
}

}  // namespace
}  // namespace nibble::test
