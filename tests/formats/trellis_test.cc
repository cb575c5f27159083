#include "formats/trellis.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "base/json.h"
#include "formats/exl3_code.h"
#include "formats/hadamard.h"
#include "formats/low_rank.h"
#include "formats/registry.h"
#include "support/decoded.h"
#include "support/random_floats.h"
#include "support/test_data.h"

namespace nibble {
namespace {

// As large as weights are.
std::vector<float> gaussian(std::int64_t count, unsigned seed) {
  return test::random_floats(count, seed, 0.02f);
}

double squared_distance(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += std::pow(double{a[i]} - double{b[i]}, 2);
  return sum;
}

using test::decoded;

TEST(Trellis, DecodesWhatItsDescriptionSays) {
  const Json golden = read_json_file(test::source_dir() / "tests/golden/formats/trellis.json");
  for (const Json& c : golden.at("cases")) {
    const auto scales = c.at("scales").get<std::vector<float>>();
    const auto words = c.at("words").get<std::vector<std::uint32_t>>();
    const auto wanted = c.at("decoded").get<std::vector<float>>();
    const FormatPtr format = parse_weight_format(fmt::format("trellis{}", c.at("bits").get<int>()));
    QuantTensor tensor = trellis_tensor(format, c.at("rows"), c.at("cols"), scales);
    ASSERT_EQ(tensor.planes[0].byte_size(), words.size() * 4);
    std::memcpy(tensor.planes[0].mutable_data<std::uint32_t>(), words.data(), words.size() * 4);
    EXPECT_THAT(decoded(tensor), testing::Pointwise(testing::FloatNear(1e-5f), wanted));
  }
}

// Near the bound of rate and distortion, 4^-bits: uniform steps of least error are at 1.9 times it
// with 2 bits and 2.6 times with 4.
TEST(Trellis, ErrorOfGaussianWeightsIsNearTheBound) {
  const std::vector<float> w = gaussian(16 * 48, 1);
  const double power = squared_distance(w, std::vector<float>(w.size(), 0.0f));
  for (const auto& [bits, most] : std::vector<std::pair<int, double>>{{2, 1.25}, {4, 1.3}}) {
    const FormatPtr format = parse_weight_format(fmt::format("trellis{}", bits));
    const QuantTensor tensor = format->encode(w.data(), 16, 48);
    validate(tensor);
    const double share = squared_distance(decoded(tensor), w) / power;
    EXPECT_LT(share, most * std::pow(4.0, -bits)) << bits;
    EXPECT_GT(share, 0.9 * std::pow(4.0, -bits)) << bits;
  }
}

// Blocks of codes as the header has them: tiles of values, both transforms, a scale and a sign.
TEST(Trellis, TwoSidedIsWhatItsHeaderSays) {
  constexpr std::int64_t kSize = 128, kBits = 3;
  const FormatPtr format = parse_weight_format("trellis3_exl3");
  EXPECT_EQ(format->name(), "trellis3_exl3");
  const std::vector<float> scales = gaussian(2 * kSize, 9);
  QuantTensor tensor = trellis_tensor(format, 2 * kSize, kSize, scales);
  std::mt19937 random(10);
  for (std::int64_t tile = 0; tile < 16 * 8; ++tile) {
    for (std::uint32_t& word : trellis_words(tensor, tile / 8, tile % 8))
      word = static_cast<std::uint32_t>(random());
  }
  validate(tensor);
  const std::vector<float> ours = decoded(tensor);
  std::vector<double> values(kSize * kSize);  // of the second block of rows
  const auto* words = tensor.planes[0].data<std::uint32_t>() + 8 * 64 * kBits;
  for (std::int64_t tile = 0; tile < 64; ++tile) {
    for (std::int64_t t = 0; t < 256; ++t) {
      std::uint32_t state = 0;
      for (std::int64_t b = 0; b < 16; ++b) {
        const std::int64_t bit = (t * kBits + b) % (256 * kBits);
        state |= (words[tile * 8 * kBits + bit / 32] >> bit % 32 & 1) << b;
      }
      const Exl3Place place = exl3_places()[static_cast<std::size_t>(255 - t)];
      const std::int64_t row = tile / 8 * 16 + place.out, col = tile % 8 * 16 + place.in;
      values[static_cast<std::size_t>(row * kSize + col)] =
          double{exl3_value(Exl3Codebook::kMul1, state)};
    }
  }
  hadamard_sums_of_rows(values.data(), kSize, kSize);
  for (std::int64_t row = 0; row < kSize; ++row) hadamard_sums(values.data() + row * kSize, kSize);
  const std::vector<float> stored = trellis_scales(tensor);
  for (std::int64_t i = 0; i < kSize * kSize; ++i) {
    const double scale = double{stored[static_cast<std::size_t>(kSize + i / kSize)]} / kSize;
    const double wanted =
        values[static_cast<std::size_t>(i)] * scale * double{trellis_sign(i % kSize)};
    ASSERT_NEAR(ours[static_cast<std::size_t>(kSize * kSize + i)], wanted, 1e-6) << i;
  }
  std::vector<float> part(50);
  format->decode(tensor, 130, 70, 50, part.data());
  EXPECT_TRUE(std::equal(part.begin(), part.end(), ours.begin() + 130 * kSize + 70));
}

// The error of a plain trellis, whatever rows are larger than others, and zeros stay zeros.
TEST(Trellis, TwoSidedErrorIsNearTheBound) {
  constexpr std::int64_t kSize = 128, kBits = 3;
  const FormatPtr format = parse_weight_format("trellis3_exl3");
  std::vector<float> w = gaussian(kSize * kSize, 9);
  for (std::int64_t j = 0; j < kSize; ++j) w[static_cast<std::size_t>(5 * kSize + j)] *= 8;
  std::fill_n(w.begin() + 7 * kSize, kSize, 0.0f);
  const std::vector<float> ours = decoded(format->encode(w.data(), kSize, kSize));
  double power = 0;
  for (const float v : w) power += double{v} * double{v};
  EXPECT_LT(squared_distance(ours, w) / power, 1.25 * std::pow(4.0, -kBits));
  EXPECT_EQ(ours[7 * kSize + 3], 0);
  for (const auto& [rows, cols] : {std::pair{64, 128}, {128, 64}}) {
    EXPECT_NE(format->why_not(rows, cols), "");
  }
  EXPECT_ERROR(parse_weight_format("trellis3_exl3_sf32"), ErrorKind::kUnsupported, "F16");
  EXPECT_ERROR(parse_weight_format("trellis3_exl3_lr4"), ErrorKind::kUnsupported, "EXL3");
}

// A path of least error cannot be bettered by any other code for one weight, unless that changes
// how the path closes, which is settled before: the first codes of a tile.
TEST(Trellis, NoOtherCodeOfOneWeightIsBetter) {
  constexpr int kBits = 4;
  const std::vector<float> w = gaussian(16 * 16, 2);
  std::vector<float> weights(16);
  for (std::size_t j = 0; j < 16; ++j) weights[j] = 1.0f + static_cast<float>(j % 3);
  std::vector<float> scales(16, 0.018f);
  scales[3] = 0.009f;
  QuantTensor tensor = trellis_tensor(parse_weight_format("trellis4_sf32"), 16, 16, scales);
  TrellisEncoder encoder(tensor.format->descriptor().element, scalar_spans());
  std::vector<float> coded(16 * 16);
  encoder.encode({w.data(), 16, 16, scales.data()}, 0, weights, trellis_words(tensor, 0, 0),
                 coded.data());
  const auto cost = [&] {
    std::vector<float> values = decoded(tensor);
    trellis_rotate(values.data(), 16, 16);
    double sum = 0;
    for (std::size_t i = 0; i < w.size(); ++i) {
      sum += double{weights[i % 16]} * std::pow(double{values[i]} - double{w[i]}, 2);
    }
    return sum;
  };
  std::vector<float> values = decoded(tensor);
  trellis_rotate(values.data(), 16, 16);
  EXPECT_THAT(values, testing::Pointwise(testing::FloatNear(1e-6f), coded));
  const double least = cost();
  const std::span<std::uint32_t> words = trellis_words(tensor, 0, 0);
  for (std::size_t t = 16 / kBits; t < 256; t += 5) {
    std::uint32_t& word = words[t * kBits / 32];
    const std::uint32_t kept = word;
    for (std::uint32_t other = 1; other < 1 << kBits; ++other) {
      word = kept ^ other << t * kBits % 32;
      EXPECT_GE(cost(), least * (1 - 1e-5)) << t;
    }
    word = kept;
  }
}

TEST(Trellis, KeepsZerosAndNeverReadsOutside) {
  std::vector<float> w = gaussian(17 * 48, 3);
  std::fill_n(w.begin() + 48, 48, 0.0f);
  const FormatPtr format = parse_weight_format("trellis3");
  const QuantTensor tensor = format->encode(w.data(), 17, 48);
  const std::vector<float> all = decoded(tensor);
  for (std::size_t i = 48; i < 96; ++i) EXPECT_EQ(all[i], 0);
  for (const auto& [begin, count] : {std::pair{0, 48}, {1, 1}, {15, 18}, {47, 1}, {20, 0}}) {
    std::vector<float> part(static_cast<std::size_t>(count) + 2, 7.0f);
    format->decode(tensor, 16, begin, count, part.data() + 1);
    EXPECT_EQ(part.front(), 7);
    EXPECT_EQ(part.back(), 7);
    EXPECT_TRUE(std::equal(part.begin() + 1, part.end() - 1, all.begin() + 16 * 48 + begin));
  }
  EXPECT_ERROR(format->encode(w.data(), 17, 40), ErrorKind::kUsage, "40 columns");
  w[5] = std::nanf("");
  EXPECT_ERROR(format->encode(w.data(), 17, 48), ErrorKind::kCorrupt, "row 0");
}

TEST(LowRank, FindsTheNearestMatrixOfTheRank) {
  // Orthogonal directions of known sizes: what is left is the rest of them.
  constexpr std::int64_t kRows = 12, kCols = 16;
  const std::vector<float> sizes = {9, 5, 3, 1, 0.5f};
  std::vector<float> w(kRows * kCols, 0.0f);
  for (std::size_t k = 0; k < sizes.size(); ++k) {
    for (std::int64_t i = 0; i < kRows; ++i) {
      for (std::int64_t j = 0; j < kCols; ++j) {
        // Cosines of distinct frequencies are orthogonal; Walsh functions too.
        const double left =
            std::sqrt(2.0 / kRows) *
            std::cos(M_PI * static_cast<double>(k + 1) * (static_cast<double>(i) + 0.5) / kRows);
        const double right =
            (std::popcount(static_cast<unsigned>(j) & static_cast<unsigned>(k + 1)) % 2 != 0 ? -1
                                                                                             : 1) /
            4.0;
        w[static_cast<std::size_t>(i * kCols + j)] +=
            static_cast<float>(double{sizes[k]} * left * right);
      }
    }
  }
  std::vector<float> out(kRows * 3), in(3 * kCols);
  ThreadPool pool(2);
  approximate_by_rank(w.data(), kRows, kCols, 3, &pool, out.data(), in.data());
  std::vector<float> product(w.size(), 0.0f);
  for (std::size_t i = 0; i < product.size(); ++i) {
    for (std::size_t k = 0; k < 3; ++k) {
      product[i] += out[i / kCols * 3 + k] * in[k * kCols + i % kCols];
    }
  }
  EXPECT_NEAR(squared_distance(product, w), 1 + 0.25, 1e-3);
}

TEST(LowRank, IsTheBasePlusTheProduct) {
  const std::vector<float> w = gaussian(8 * 64, 4);
  const FormatPtr format = parse_weight_format("int3_g32_asym_sbf16_lr2");
  EXPECT_EQ(format->name(), "int3_g32_asym_sbf16_lr2");
  const QuantTensor tensor = format->encode(w.data(), 8, 64);
  validate(tensor);
  EXPECT_EQ(tensor.planes.back().dtype(), DType::kBF16);
  EXPECT_DOUBLE_EQ(bits_per_weight(*format, 8, 64),
                   bits_per_weight(*parse_weight_format("int3_g32_asym_sbf16"), 8, 64) +
                       16.0 * 2 * (8 + 64) / (8 * 64));
  const LowRankParts parts = low_rank_parts(tensor);
  std::vector<float> sum = decoded(parts.base);
  const Tensor out = to_float(parts.out), in = to_float(parts.in);
  const double base_error = squared_distance(sum, w);
  for (std::size_t i = 0; i < sum.size(); ++i) {
    for (std::size_t k = 0; k < 2; ++k) {
      sum[i] += out.data<float>()[i / 64 * 2 + k] * in.data<float>()[k * 64 + i % 64];
    }
  }
  EXPECT_THAT(decoded(tensor), testing::Pointwise(testing::FloatNear(1e-7f), sum));
  EXPECT_LT(squared_distance(sum, w), 0.8 * base_error);
  EXPECT_ERROR(parse_weight_format("bf16_lr2"), ErrorKind::kUnsupported, "low rank");
  EXPECT_NE(format->why_not(1, 64), "");
}

}  // namespace
}  // namespace nibble
