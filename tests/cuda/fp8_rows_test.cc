// Rows of activations as fp8, against the format's own definition.
#include "backends/cuda/kernels/fp8_rows.h"

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "base/half.h"
#include "cuda/device_array.h"
#include "formats/activation_format.h"
#include "formats/float_bits.h"

namespace nibble::test {
namespace {

constexpr std::int64_t kRows = 11;

// Rows of the usual size, tiny, huge, subnormal and zero; one holds an infinity and one a NaN.
std::vector<float> awkward_rows(std::int64_t cols, std::int64_t stride) {
  std::mt19937 random(static_cast<unsigned>(cols));
  std::normal_distribution<float> normal;
  constexpr float kSizes[kRows] = {1, 0x1p-60f, 0x1p100f, 0x1p-140f, 0,        3,
                                   1, 1,        0x1p-20f, 0x1p-119f, 0x1p-121f};
  std::vector<float> x(static_cast<std::size_t>(kRows * stride));
  for (std::int64_t i = 0; i < kRows * stride; ++i) {
    x[static_cast<std::size_t>(i)] = kSizes[i / stride] * normal(random);
  }
  x[static_cast<std::size_t>(6 * stride + cols / 2)] = INFINITY;
  x[static_cast<std::size_t>(7 * stride + cols - 1)] = NAN;
  return x;
}

// Where kernels/fp8_rows.h puts a column.
std::int64_t place_of(std::int64_t col) {
  const std::int64_t within = col % 16;
  return col / 16 * 16 + within % 8 / 2 * 4 + within % 2 * 2 + within / 8;
}

// What the two bfloat16 of a sum stand for.
double sum_at(const std::vector<std::uint16_t>& sums, std::int64_t row_columns, std::int64_t row,
              std::int64_t group) {
  const auto at = static_cast<std::size_t>(row * row_columns + group / 32 * 64 +
                                           group % 32 / 16 * 32 + group % 16);
  return double{to_float(bf16{sums[at]})} + double{to_float(bf16{sums[at + 16]})};
}

void expect_as_the_format_rounds(std::int64_t cols) {
  const std::int64_t stride = cols + 4;
  const std::int64_t row_columns = cuda::fp8_sum_columns(cols);
  const std::vector<float> x = awkward_rows(cols, stride);
  std::vector<float> wanted(x.size());
  parse_activation_format("fp8_e4m3_token")
      ->round(x.data(), stride, kRows, cols, wanted.data(), stride);
  DeviceArray<float> device_x(x), scales(kRows);
  DeviceArray<std::uint8_t> codes(static_cast<std::size_t>(kRows * cols));
  DeviceArray<std::uint16_t> sums(static_cast<std::size_t>(kRows * row_columns));
  sums.fill(0xff);
  const cuda::Fp8Rows args{device_x.data(), codes.data(), scales.data(), sums.data(),
                           stride,          kRows,        cols};
  ASSERT_EQ(cudaSuccess, fp8_rows(args, nullptr));
  const std::vector<std::uint8_t> c = codes.host();
  const std::vector<float> s = scales.host();
  const std::vector<std::uint16_t> pairs = sums.host();
  for (std::int64_t row = 0; row < kRows; ++row) {
    const float scale = s[static_cast<std::size_t>(row)];
    double sum = 0;
    for (std::int64_t col = 0; col < cols; ++col) {
      const float value =
          e4m3_table().value(c[static_cast<std::size_t>(row * cols + place_of(col))]);
      const float y = wanted[static_cast<std::size_t>(row * stride + col)];
      ASSERT_TRUE(std::isnan(y) ? std::isnan(scale) : scale * value == y)
          << row << ' ' << col << ": " << scale << " * " << value << " instead of " << y;
      sum = (col % 128 == 0 ? 0 : sum) + double{value};
      if (col % 128 != 127 || std::isnan(scale)) continue;
      EXPECT_NEAR(sum, sum_at(pairs, row_columns, row, col / 128), std::abs(sum) * 0x1p-16)
          << row << ' ' << col;
    }
    for (std::int64_t group = cols / 128; group < row_columns / 2; ++group) {
      EXPECT_EQ(0, sum_at(pairs, row_columns, row, group)) << row << ' ' << group;
    }
  }
}

TEST(Fp8Rows, AreAsTheFormatRounds) {
  NIBBLE_NEEDS_CUDA();
  // In registers, four pieces of a thread in registers, and read again.
  for (const std::int64_t cols : {128, 4096, 4224, 16384, 16512, 22016}) {
    SCOPED_TRACE(cols);
    expect_as_the_format_rounds(cols);
  }
}

}  // namespace
}  // namespace nibble::test
