// Every implementation that encodes and decodes weights gives the bits of the definition, for every
// format that has a name.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "contract/op_support.h"
#include "formats/registry.h"
#include "formats/table_format.h"

namespace nibble::test {
namespace {

using Impls = ::testing::TestWithParam<std::string>;

std::string name_of(const ::testing::TestParamInfo<std::string>& test) { return test.param; }

// Formats of the list, and variants that it has no name for.
std::vector<FormatPtr> formats() {
  std::vector<FormatPtr> all;
  for (const FormatAlias& alias : format_aliases()) {
    all.push_back(parse_model_format(alias.name).weights);
  }
  for (const char* name :
       {"int4_g32_sym_strict", "int8_channel_sym_full_sbf16", "int5_g64_asym_sf32",
        "int4_tensor_sym", "int7_g8_asym", "int4_channel_sym_strict_sbf16", "fp8_e4m3_g256_sf16",
        "fp8_e4m3fnuz_channel", "fp4_e2m1_g32_se8m0_best", "nf4_channel_sf16",
        "fp4_e2m1_g16_se8m0_best", "fp4_e2m1_g16_sf32", "nf4_g16_sbf16"}) {
    all.push_back(parse_weight_format(name));
  }
  return all;
}

// Up to a few last places off the middle of two neighbours among the codes of nf4 and E2M1, under
// the scale of a group that reaches to `largest`.
float near_a_middle(std::int64_t i, float largest) {
  static const FormatPtr kTables[] = {parse_weight_format("nf4_g64_sf32"),
                                      parse_weight_format("fp4_e2m1_g16_sf32")};
  if (i % 16 == 0) return largest;
  const CodeTable& table = table_of(*kTables[i % 2]);
  const TableView view = table.view();
  const float scale = largest / table.max();
  float x = view.bounds[i / 2 % (view.ranks - 1)] * scale;
  for (std::int64_t k = i / 5 % 7; k > 3; --k) x = std::nextafter(x, 1.0f);
  for (std::int64_t k = i / 5 % 7; k < 3; ++k) x = std::nextafter(x, -1.0f);
  return x;
}

// Weights that careless rounding gets wrong: groups of zeros, of one value, of steps with ties, of
// very small and of negative ones, and between two codes.
std::vector<float> weights(std::int64_t count) {
  std::vector<float> w = random_floats(count, 5, 0.02f);
  for (std::int64_t i = 0; i < count; ++i) {
    float& x = w[static_cast<std::size_t>(i)];
    switch (i / 256 % 9) {
      case 1:
        x = i % 2 == 0 ? 0.0f : -0.0f;
        break;
      case 2:
        x = -0.375f;
        break;
      case 3:
        x = static_cast<float>(i % 31 - 15) * 0.25f;
        break;
      case 4:
        x *= 1e-9f;
        break;
      case 5:
        x = -std::abs(x);
        break;
      case 7: {  // as good under a scale for 4 as under one for 6
        static constexpr float kShares[] = {1.0f, -0.5f, 0.25f, 0.0f};
        x = std::ldexp(4.1f * kShares[i % 4], -static_cast<int>(i / 16 % 8));
        break;
      }
      case 6:
        x = near_a_middle(i, 0.0123f + 0.001f * static_cast<float>(i / 64));
        break;
      default:
        break;
    }
  }
  return w;
}

QuantTensor poisoned(const FormatPtr& format, std::int64_t rows, std::int64_t cols) {
  QuantTensor out{format, rows, cols, {}};
  for (const PlaneSpec& plane : format->planes(rows, cols)) {
    out.planes.push_back(Tensor::allocate(plane.dtype, plane.shape));
    std::memset(out.planes.back().address(), 0xa5, out.planes.back().byte_size());
  }
  return out;
}

void expect_same_planes(const QuantTensor& a, const QuantTensor& b, const std::string& what) {
  const std::vector<PlaneSpec> specs = a.format->planes(a.rows, a.cols);
  for (std::size_t p = 0; p < specs.size(); ++p) {
    const auto x = a.planes[p].bytes();
    const auto y = b.planes[p].bytes();
    for (std::size_t i = 0; i < x.size(); ++i) {
      ASSERT_EQ(std::to_integer<int>(x[i]), std::to_integer<int>(y[i]))
          << what << ", " << specs[p].name << ", byte " << i;
    }
  }
}

struct Size {
  std::int64_t rows, cols;
};
// Rows of a block and more, tails of groups, and columns that no vector divides.
constexpr Size kSizes[] = {{3, 512}, {5, 1536}, {2, 20480}, {7, 264}, {3, 100}};

class EncodeContract : public Impls {};
TEST_P(EncodeContract, GivesTheBitsOfTheFormat) {
  const auto backend = forced_backend("encode", GetParam());
  int ran = 0;
  for (const FormatPtr& format : formats()) {
    for (const Size& size : kSizes) {
      if (!format->why_not(size.rows, size.cols).empty()) continue;
      const std::vector<float> w = weights(size.rows * size.cols);
      QuantTensor out = poisoned(format, size.rows, size.cols);
      EncodeArgs args;
      args.w = w.data();
      args.out = &out;
      if (!try_run(*backend, args)) continue;
      ++ran;
      expect_same_planes(format->encode(w.data(), size.rows, size.cols), out,
                         fmt::format("{} {}x{}", format->name(), size.rows, size.cols));
    }
  }
  EXPECT_GT(ran, 80);
}

// Which of two scales is better must be found to the last bit of their errors, equal ones included.
TEST_P(EncodeContract, ChoosesTheScaleThatTheFormatChooses) {
  const auto backend = forced_backend("encode", GetParam());
  constexpr std::int64_t kRows = 96, kCols = 4096;
  std::vector<float> w = random_floats(kRows * kCols, 17, 0.02f);
  for (std::size_t i = 0; i < w.size() / 3; ++i) w[i] = std::round(w[i] * 256) / 64;
  for (const char* name :
       {"fp4_e2m1_g16_se4m3_4over6", "fp4_e2m1_g32_se8m0_best", "nf4_g16_se8m0_best"}) {
    const FormatPtr format = parse_weight_format(name);
    QuantTensor out = poisoned(format, kRows, kCols);
    EncodeArgs args;
    args.w = w.data();
    args.out = &out;
    if (!try_run(*backend, args)) continue;
    expect_same_planes(format->encode(w.data(), kRows, kCols), out, name);
  }
}

// At what lies between two values of a table, and right beside it, under a scale of 1.
TEST_P(EncodeContract, RoundsAtBoundsAsTheFormatDoes) {
  const auto backend = forced_backend("encode", GetParam());
  for (const char* name :
       {"nf4_channel_sf32", "nf3_channel_sf32", "bnb4_channel_sf32", "fp4_e2m1_channel_sf32",
        "fp4_e3m0_channel_sf32", "fp8_e4m3_channel_sf32", "fp8_e4m3fnuz_channel_sf32",
        "fp6_e3m2_channel_sf32"}) {
    const FormatPtr format = parse_weight_format(name);
    const TableView table = table_of(*format).view();
    std::vector<float> w = {table_of(*format).max()};
    for (int rank = 0; rank + 1 < table.ranks; ++rank) {
      for (const float way : {-INFINITY, INFINITY}) {
        const float beside = std::nextafter(table.bounds[rank], way);
        w.insert(w.end(), {table.bounds[rank], beside, std::nextafter(beside, way)});
      }
    }
    w.resize((w.size() + 31) / 32 * 32, -0.0f);
    const auto cols = static_cast<std::int64_t>(w.size());
    QuantTensor out = poisoned(format, 1, cols);
    EncodeArgs args;
    args.w = w.data();
    args.out = &out;
    if (!try_run(*backend, args)) continue;
    expect_same_planes(format->encode(w.data(), 1, cols), out, name);
  }
}

TEST_P(EncodeContract, RefusesWhatTheFormatRefuses) {
  const auto backend = forced_backend("encode", GetParam());
  for (const char* name : {"int4_g128_asym", "nf4_g64_sf32", "fp4_e2m1_g16_se4m3"}) {
    const FormatPtr format = parse_weight_format(name);
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -INFINITY}) {
      std::vector<float> w = weights(4 * 512);
      w[777] = bad;
      QuantTensor out = poisoned(format, 4, 512);
      EncodeArgs args;
      args.w = w.data();
      args.out = &out;
      EXPECT_ERROR(backend->run(args), ErrorKind::kCorrupt, "row 1");
    }
  }
  const FormatPtr narrow = parse_weight_format("int4_g128_sym");
  const std::vector<float> large(512, 1e30f);
  QuantTensor out = poisoned(narrow, 1, 512);
  EncodeArgs args;
  args.w = large.data();
  args.out = &out;
  EXPECT_ERROR(backend->run(args), ErrorKind::kUnsupported, "scales in F32");
}
INSTANTIATE_TEST_SUITE_P(Impls, EncodeContract, ::testing::ValuesIn(usable_impls("encode")),
                         name_of);

class DecodeContract : public Impls {};
TEST_P(DecodeContract, GivesTheBitsOfTheFormat) {
  const auto backend = forced_backend("decode", GetParam());
  for (const FormatPtr& format : formats()) {
    for (const Size& size : kSizes) {
      if (!format->why_not(size.rows, size.cols).empty()) continue;
      const std::vector<float> w = weights(size.rows * size.cols);
      const QuantTensor stored = format->encode(w.data(), size.rows, size.cols);
      std::vector<float> expected(w.size());
      decode_all(stored, expected.data());
      const std::int64_t first = 1, rows = size.rows - 1;
      GuardedOutput out(rows, size.cols, size.cols);
      DecodeArgs args;
      args.weight = &stored;
      args.first_row = first;
      args.rows = rows;
      args.out = out.data();
      backend->run(args);
      ASSERT_EQ(out.damage(), "") << format->name();
      ASSERT_EQ(std::memcmp(out.data(), expected.data() + size.cols,
                            static_cast<std::size_t>(rows * size.cols) * sizeof(float)),
                0)
          << format->name() << " " << size.rows << "x" << size.cols;
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Impls, DecodeContract, ::testing::ValuesIn(usable_impls("decode")),
                         name_of);

}  // namespace
}  // namespace nibble::test
