// The packed order of weights against its definition, element by element.
#include "backends/cuda/fragment_weight.h"

#include <gmock/gmock.h>

#include <cstring>
#include <random>

#include "formats/affine.h"
#include "formats/registry.h"

namespace nibble::cuda {
namespace {

using ::testing::HasSubstr;

constexpr std::int64_t kRows = 192;
constexpr std::int64_t kCols = 256;

QuantTensor random_weight(const std::string& format, std::int64_t rows, std::int64_t cols) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0.1f, 1.0f);
  std::vector<float> values(static_cast<std::size_t>(rows * cols));
  for (float& value : values) value = normal(random);
  return parse_weight_format(format)->encode(values.data(), rows, cols);
}

// Where the definition puts the code of (row, col): which lane, register and half hold the element
// of a 16 x 16 tile follows the figures of PTX for mma.m16n8k16, operand A.
int packed_code(const FragmentWeight& weight, std::int64_t row, std::int64_t col) {
  const std::int64_t block = row / 64 * (weight.cols / 64) + col / 64;
  const std::int64_t in_row = row % 16;
  const std::int64_t in_col = col % 16;
  const std::int64_t lane = in_row % 8 * 4 + in_col % 8 / 2;
  const std::int64_t reg = in_row / 8 + 2 * (in_col / 8);
  const std::int64_t strip = block * 4 + row % 64 / 16;  // of 16 rows
  const std::int64_t tile = col % 64 / 16;
  const std::byte* codes = weight.codes.bytes().data();
  if (weight.bits == 8) {
    const std::int64_t sixteen = (strip * 2 + tile / 2) * 32 + lane;
    return std::to_integer<int>(codes[sixteen * 16 + tile % 2 * 8 + reg * 2 + in_col % 2]);
  }
  std::uint32_t word;
  std::memcpy(&word, codes + ((strip * 32 + lane) * 4 + tile) * 4, 4);
  return static_cast<int>(word >> (4 * reg + 16 * (in_col % 2)) & 0xfu);
}

class FragmentWeightTest : public ::testing::TestWithParam<const char*> {};

TEST_P(FragmentWeightTest, EveryElementStandsWhereTheLayoutSays) {
  const QuantTensor weight = random_weight(GetParam(), kRows, kCols);
  ThreadPool pool(2);
  const FragmentWeight packed = pack_fragments(weight, pool);
  ASSERT_EQ(packed.rows, kRows);
  ASSERT_EQ(packed.cols, kCols);
  ASSERT_EQ(packed.group * packed.groups, kCols);
  const bool symmetric = weight.format->descriptor().scheme.symmetric;
  ASSERT_EQ(packed.zeros.empty(), symmetric);
  ASSERT_EQ(packed.scales.dtype(), weight.planes[1].dtype());
  std::vector<float> scales(static_cast<std::size_t>(packed.scales.elements()));
  to_float(packed.scales, scales.data());

  std::vector<float> expected(kCols);
  for (std::int64_t row = 0; row < kRows; ++row) {
    weight.format->decode(weight, row, 0, kCols, expected.data());
    for (std::int64_t col = 0; col < kCols; ++col) {
      const std::int64_t at = (row / 64 * packed.groups + col / packed.group) * 64 + row % 64;
      const int zero = symmetric ? 1 << (packed.bits - 1)
                                 : packed.zeros.data<std::uint8_t>()[static_cast<std::size_t>(at)];
      const float value = scales[static_cast<std::size_t>(at)] *
                          static_cast<float>(packed_code(packed, row, col) - zero);
      ASSERT_EQ(value, expected[static_cast<std::size_t>(col)]) << row << " " << col;
    }
  }
}

// Nothing is lost: the canonical planes can be made of the packed ones.
TEST_P(FragmentWeightTest, TheCanonicalPlanesComeBack) {
  const QuantTensor weight = random_weight(GetParam(), kRows, kCols);
  ThreadPool pool(2);
  const FragmentWeight packed = pack_fragments(weight, pool);
  const auto row_words = static_cast<std::size_t>(kCols * packed.bits / 32);
  std::vector<std::uint32_t> words(kRows * row_words);
  std::vector<std::uint8_t> codes(kCols);
  for (std::int64_t row = 0; row < kRows; ++row) {
    for (std::int64_t col = 0; col < kCols; ++col) {
      codes[static_cast<std::size_t>(col)] =
          static_cast<std::uint8_t>(packed_code(packed, row, col));
    }
    pack_codes(codes, packed.bits, words.data() + static_cast<std::size_t>(row) * row_words);
  }
  const auto same = [](const std::byte* a, std::span<const std::byte> b) {
    return std::memcmp(a, b.data(), b.size()) == 0;
  };
  ASSERT_EQ(words.size() * 4, weight.planes[0].bytes().size());
  EXPECT_TRUE(same(reinterpret_cast<const std::byte*>(words.data()), weight.planes[0].bytes()));

  const auto numbers = [&](const Tensor& plane, const Tensor& canonical) {
    const std::size_t size = dtype_size(plane.dtype());
    std::vector<std::byte> rows(canonical.bytes().size());
    ASSERT_EQ(rows.size(), plane.bytes().size());
    for (std::int64_t at = 0; at < kRows * packed.groups; ++at) {
      const std::int64_t row = at / packed.groups;
      const std::int64_t from = (row / 64 * packed.groups + at % packed.groups) * 64 + row % 64;
      std::memcpy(rows.data() + static_cast<std::size_t>(at) * size,
                  plane.bytes().data() + static_cast<std::size_t>(from) * size, size);
    }
    EXPECT_TRUE(same(rows.data(), canonical.bytes()));
  };
  numbers(packed.scales, weight.planes[1]);
  if (!packed.zeros.empty()) numbers(packed.zeros, weight.planes[2]);
}

INSTANTIATE_TEST_SUITE_P(Formats, FragmentWeightTest,
                         ::testing::Values("int4_g32_asym", "int4_g64_sym", "int4_g128_asym",
                                           "int4_g128_asym_sbf16", "int4_channel_asym",
                                           "int4_channel_sym", "int8_g32_asym",
                                           "int8_g64_sym_sbf16", "int8_g128_asym",
                                           "int8_channel_sym"),
                         [](const auto& test) { return std::string(test.param); });

TEST(FragmentWeightWhyNotTest, SaysWhatCannotBePacked) {
  const auto reason = [](const char* format, std::int64_t rows, std::int64_t cols) {
    return why_no_fragments(random_weight(format, rows, cols));
  };
  EXPECT_EQ(reason("int4_g128_asym", 64, 128), "");
  EXPECT_EQ(reason("int8_g128_asym", 64, 128), "");
  EXPECT_THAT(reason("int3_g64_asym", 64, 128), HasSubstr("3 bits"));
  EXPECT_THAT(reason("bf16", 64, 128), HasSubstr("no integers"));
  EXPECT_THAT(reason("int4_tensor_sym", 64, 128), HasSubstr("whole tensor"));
  EXPECT_THAT(reason("int4_g16_asym", 64, 128), HasSubstr("groups of 16"));
  EXPECT_THAT(reason("int4_g64_asym_sf32", 64, 128), HasSubstr("16 bits"));
  EXPECT_THAT(reason("int4_g64_asym", 72, 128), HasSubstr("72 rows"));
  EXPECT_THAT(reason("int4_g32_asym", 64, 160), HasSubstr("160 columns"));
}

TEST(FragmentWeightWhyNotTest, ZeroPointsBeyondTheCodesAreRefused) {
  QuantTensor weight = random_weight("int4_g64_asym", 64, 128);
  weight.planes[2].mutable_data<std::uint8_t>()[100] = 16;
  EXPECT_EQ(why_no_fragments(weight), "");
  weight.planes[2].mutable_data<std::uint8_t>()[100] = 17;
  EXPECT_THAT(why_no_fragments(weight), HasSubstr("above 16"));
  ThreadPool pool(1);
  try {
    pack_fragments(weight, pool);
    FAIL() << "packed";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUnsupported);
  }
}

}  // namespace
}  // namespace nibble::cuda
