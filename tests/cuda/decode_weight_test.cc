// Weights on their canonical planes to plain floats on the device, bit for bit what the format
// decodes.
#include "backends/cuda/kernels/decode_weight.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backends/cuda/weight.h"
#include "cuda/device_array.h"
#include "formats/registry.h"

namespace nibble::test {
namespace {

using cuda::FloatType;

constexpr FloatType kTypes[] = {FloatType::kF16, FloatType::kBF16, FloatType::kF32};

// The bytes of the values as the kernel should store them.
std::vector<std::byte> bytes_of(const std::vector<float>& values, FloatType type) {
  const DType dtypes[] = {DType::kF16, DType::kBF16, DType::kF32};
  const Tensor tensor = from_float(values.data(), dtypes[static_cast<int>(type)],
                                   {static_cast<std::int64_t>(values.size())});
  const auto bytes = tensor.bytes();
  return {bytes.begin(), bytes.end()};
}

// A weight whose planes are on the device, and its values on the host.
class TestWeight {
 public:
  TestWeight(const std::string& format, std::int64_t rows, std::int64_t cols) {
    std::mt19937 random(5);
    std::normal_distribution<float> normal(0.1f, 1.0f);
    values_.resize(static_cast<std::size_t>(rows * cols));
    for (float& value : values_) value = normal(random);
    const QuantTensor tensor = parse_weight_format(format)->encode(values_.data(), rows, cols);
    decode_all(tensor, values_.data());
    QuantTensor on_device = cuda::with_tables(tensor);
    for (Tensor& plane : on_device.planes) plane = upload(plane);
    planes_ = cuda::planes_of(on_device);
  }

  // Rows [first, first + count) in poisoned memory, and nothing behind them.
  void expect_right(std::int64_t first, std::int64_t count, FloatType type) const {
    const auto begin = values_.begin() + first * planes_.cols;
    const std::vector<std::byte> expected = bytes_of({begin, begin + count * planes_.cols}, type);
    constexpr std::size_t kGuard = 64;
    DeviceArray<std::byte> out(expected.size() + kGuard);
    out.fill(0xff);
    cuda::DecodeWeight args;
    args.weight = planes_;
    args.first_row = first;
    args.rows = count;
    args.out = out.data();
    args.type = static_cast<std::int64_t>(type);
    ASSERT_EQ(cudaSuccess, cuda::decode_weight(args, nullptr));
    const std::vector<std::byte> result = out.host();
    EXPECT_EQ(0, std::memcmp(result.data(), expected.data(), expected.size()));
    for (std::size_t i = expected.size(); i < result.size(); ++i) {
      ASSERT_EQ(result[i], std::byte{0xff}) << "behind the end: " << i - expected.size();
    }
  }

 private:
  Tensor upload(const Tensor& tensor) {
    const auto bytes = tensor.bytes();
    arrays_.push_back(std::make_unique<DeviceArray<std::byte>>(
        std::vector<std::byte>(bytes.begin(), bytes.end())));
    return Tensor::on_device(tensor.dtype(), tensor.shape(), arrays_.back()->data(), nullptr);
  }

  std::vector<float> values_;
  std::vector<std::unique_ptr<DeviceArray<std::byte>>> arrays_;
  cuda::WeightPlanes planes_;
};

void expect_right(const std::string& format, std::int64_t rows, std::int64_t cols) {
  SCOPED_TRACE(::testing::Message() << format << " " << rows << " x " << cols);
  const TestWeight weight(format, rows, cols);
  for (const FloatType type : kTypes) {
    weight.expect_right(0, rows, type);
    weight.expect_right(rows / 2, rows - rows / 2, type);
  }
}

class DecodeWeightTest : public ::testing::TestWithParam<int> {
 protected:
  static std::string format(const std::string& rest) {
    return "int" + std::to_string(GetParam()) + "_" + rest;
  }
};

TEST_P(DecodeWeightTest, EveryGroupAndScale) {
  NIBBLE_NEEDS_CUDA();
  for (const char* rest : {"g16_asym", "g32_sym", "g64_asym_sf32", "g128_asym", "g128_sym_sbf16",
                           "channel_asym", "channel_sym", "tensor_sym"}) {
    expect_right(format(rest), 7, 1280);
  }
}

// Rows whose last words are cut, and more columns or rows than a block of threads takes.
TEST_P(DecodeWeightTest, EveryWidth) {
  NIBBLE_NEEDS_CUDA();
  for (const std::int64_t cols : {8, 24, 40, 1000, 1032})
    expect_right(format("channel_asym"), 5, cols);
  expect_right(format("g16_asym"), 3, 48);
  expect_right(format("g32_asym"), 4097, 32);
}

// Columns that are no multiple of eight go one by one.
TEST_P(DecodeWeightTest, OddWidths) {
  NIBBLE_NEEDS_CUDA();
  for (const std::int64_t cols : {1, 7, 33, 1001}) expect_right(format("channel_asym"), 5, cols);
}

INSTANTIATE_TEST_SUITE_P(Bits, DecodeWeightTest, ::testing::Range(2, 9));

// Small floats and codebooks, under every kind of scale.
TEST(DecodeTablesTest, EveryTableAndScale) {
  NIBBLE_NEEDS_CUDA();
  for (const FormatAlias& alias : format_aliases()) {
    const FormatPtr format = parse_model_format(alias.name).weights;
    if (format == nullptr || !format->why_not(7, 1280).empty()) continue;
    if (!cuda::has_decoder(*format)) continue;
    expect_right(format->name(), 7, 1280);
    if (format->why_not(5, 1001).empty()) expect_right(format->name(), 5, 1001);
  }
  expect_right("int4_b16x32_sym", 37, 1000);  // blocks cut at the edges
}

TEST(DecodeFloatsTest, PlainFloats) {
  NIBBLE_NEEDS_CUDA();
  for (const char* format : {"f32", "f16", "bf16"}) expect_right(format, 5, 72);
}

}  // namespace
}  // namespace nibble::test
