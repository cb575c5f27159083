// Products of many rows with packed 4-bit weights, against float64 on the same codes and scales.
#include "backends/cuda/kernels/w4_large.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "backends/cuda/kernels/fp8_rows.h"
#include "backends/cuda/kernels/round_rows.h"
#include "base/half.h"
#include "cuda/device_array.h"
#include "cuda/repeats.h"
#include "formats/activation_format.h"

namespace nibble::test {
namespace {

using cuda::RoundRows;
using cuda::W4Large;
using cuda::W4LargeTile;

constexpr double kMostError = 3e-3;  // relative, in the Frobenius norm
constexpr float kPoison = std::numeric_limits<float>::quiet_NaN();

struct Case {
  std::int64_t m, n, k, group;
  bool zeros = true;
  bool bf16_scales = false;
  bool positive = false;  // x
  bool bias = false;
  bool accumulate = false;
  int parts = 1;  // n rows, then 64 more each
  bool pair = false;
  bool fp8 = false;
  bool rounded = false;  // y of a pair
};

// A weight of random codes in the packed order, and its values.
struct Weight {
  std::vector<std::uint32_t> codes;
  std::vector<std::uint16_t> scales;
  std::vector<std::uint8_t> zeros;
  std::vector<double> values;  // [n, k]
};

// Where the order of backends/cuda/fragment_weight.h puts the code of (row, col): word and nibble.
struct CodePlace {
  std::size_t word;
  int nibble;
};

CodePlace code_place(std::int64_t row, std::int64_t col, std::int64_t k) {
  const std::int64_t block = row / 64 * (k / 64) + col / 64;
  const std::int64_t lane = row % 8 * 4 + col % 8 / 2;
  const std::int64_t word = ((block * 4 + row % 64 / 16) * 32 + lane) * 4 + col % 64 / 16;
  const auto reg = static_cast<int>(row % 16 / 8 + 2 * (col % 16 / 8));
  return {static_cast<std::size_t>(word), reg + 4 * static_cast<int>(col % 2)};
}

Weight random_weight(const Case& c, std::int64_t n, std::mt19937* random) {
  const std::int64_t groups = c.k / c.group;
  Weight w;
  w.codes.resize(static_cast<std::size_t>(n * c.k / 8));
  for (std::uint32_t& word : w.codes) word = static_cast<std::uint32_t>((*random)());
  std::uniform_real_distribution<float> scale(0.01f, 0.03f);
  for (std::int64_t i = 0; i < n * groups; ++i) {
    const float s = scale(*random);
    w.scales.push_back(c.bf16_scales ? to_bf16(s).bits : to_f16(s).bits);
    w.zeros.push_back(static_cast<std::uint8_t>(c.zeros ? (*random)() % 16 : 8));
  }
  w.values.resize(static_cast<std::size_t>(n * c.k));
  for (std::int64_t row = 0; row < n; ++row) {
    for (std::int64_t col = 0; col < c.k; ++col) {
      const auto at = static_cast<std::size_t>((row / 64 * groups + col / c.group) * 64 + row % 64);
      const CodePlace place = code_place(row, col, c.k);
      const auto code = static_cast<int>(w.codes[place.word] >> (4 * place.nibble) & 15);
      const float s = c.bf16_scales ? to_float(bf16{w.scales[at]}) : to_float(f16{w.scales[at]});
      w.values[static_cast<std::size_t>(row * c.k + col)] = (code - w.zeros[at]) * double{s};
    }
  }
  return w;
}

// One weight of a launch on the device, with what is to come of it.
struct Part {
  Part(const Case& c, std::int64_t rows, std::mt19937* random)
      : n(rows),
        weight(random_weight(c, rows, random)),
        codes(weight.codes),
        scales(weight.scales),
        zeros(weight.zeros),
        bias(static_cast<std::size_t>(rows)),
        before(static_cast<std::size_t>(c.m * stride()), c.accumulate ? 0.5f : kPoison),
        y(before) {
    std::normal_distribution<float> normal;
    for (float& v : bias) v = normal(*random);
    device_bias = std::make_unique<DeviceArray<float>>(bias);
  }

  std::int64_t stride() const { return n + 8; }

  cuda::FragmentPart args(const Case& c) {
    return {{codes.data(), scales.data(), c.zeros ? zeros.data() : nullptr, n, c.k, c.k / c.group,
             c.bf16_scales},
            c.bias ? device_bias->data() : nullptr,
            y.data(),
            stride()};
  }

  void poison() {
    EXPECT_EQ(cudaSuccess, cudaMemcpy(y.data(), before.data(), before.size() * sizeof(float),
                                      cudaMemcpyHostToDevice));
  }

  std::int64_t n;
  Weight weight;
  DeviceArray<std::uint32_t> codes;
  DeviceArray<std::uint16_t> scales;
  DeviceArray<std::uint8_t> zeros;
  std::vector<float> bias;
  std::vector<float> before;
  DeviceArray<float> y;
  std::unique_ptr<DeviceArray<float>> device_bias;
};

// x on the device as the kernels want it, and the values that it has there for fp8.
class Input {
 public:
  Input(const Case& c, std::mt19937* random)
      : stride_(c.k + 4),
        values_(static_cast<std::size_t>(c.m * stride_)),
        rounded_(static_cast<std::size_t>(c.m * c.k)),
        scales_(static_cast<std::size_t>(c.m)),
        sums_(static_cast<std::size_t>(c.m * cuda::fp8_sum_columns(c.k))) {
    std::normal_distribution<float> normal;
    for (float& v : values_) v = c.positive ? std::abs(normal(*random)) : normal(*random);
    DeviceArray<float> x(values_);
    if (!c.fp8) {
      const RoundRows round{x.data(), rounded_.data(), c.m, c.k, stride_};
      EXPECT_EQ(cudaSuccess, round_rows(round, nullptr));
    } else {
      sums_.fill(0xff);  // NaN, should any not be written
      const cuda::Fp8Rows round{
          x.data(), rounded_.data(), scales_.data(), sums_.data(), stride_, c.m, c.k};
      EXPECT_EQ(cudaSuccess, fp8_rows(round, nullptr));
      parse_activation_format("fp8_e4m3_token")
          ->round(values_.data(), stride_, c.m, c.k, values_.data(), stride_);
    }
    EXPECT_EQ(cudaSuccess, cudaDeviceSynchronize());
  }

  void put(cuda::W4Large* args) {
    args->x = rounded_.data();
    args->x_scales = scales_.data();
    args->x_sums = sums_.data();
  }

  double at(std::int64_t row, std::int64_t k) const {
    return values_[static_cast<std::size_t>(row * stride_ + k)];
  }

 private:
  std::int64_t stride_;
  std::vector<float> values_;
  DeviceArray<std::uint16_t> rounded_;
  DeviceArray<float> scales_;
  DeviceArray<std::uint16_t> sums_;
};

std::vector<double> expected(const Case& c, const Input& x, const Part& part) {
  std::vector<double> sums(static_cast<std::size_t>(c.m * part.n));
  for (std::int64_t row = 0; row < c.m; ++row) {
    for (std::int64_t col = 0; col < part.n; ++col) {
      double sum = (c.bias ? double{part.bias[static_cast<std::size_t>(col)]} : 0) +
                   (c.accumulate ? 0.5 : 0);
      for (std::int64_t k = 0; k < c.k; ++k) {
        sum += part.weight.values[static_cast<std::size_t>(col * c.k + k)] * x.at(row, k);
      }
      sums[static_cast<std::size_t>(row * part.n + col)] = sum;
    }
  }
  return sums;
}

void expect_near(const Case& c, const std::vector<double>& wanted, const Part& part,
                 const std::vector<float>& y) {
  double error = 0;
  double norm = 0;
  for (std::int64_t row = 0; row < c.m; ++row) {
    for (std::int64_t col = 0; col < part.stride(); ++col) {
      const float v = y[static_cast<std::size_t>(row * part.stride() + col)];
      if (col >= part.n) {  // nothing beyond n
        EXPECT_TRUE(c.accumulate ? v == 0.5f : std::isnan(v)) << row << ' ' << col;
        continue;
      }
      const double sum = wanted[static_cast<std::size_t>(row * part.n + col)];
      error += (v - sum) * (v - sum);
      norm += sum * sum;
    }
  }
  // Errors of both of a pair come together.
  EXPECT_LT(std::sqrt(error / norm), (c.pair ? 2 : 1) * kMostError);
}

// What blocks leave for each other is written before it is read, in every launch, and the counters
// are clear again after each.
void poison_sums(DeviceArray<char>* workspace) {
  std::vector<char> counters(cuda::kW4LargeCounterBytes);
  ASSERT_EQ(cudaSuccess, cudaMemcpy(counters.data(), workspace->data(), counters.size(),
                                    cudaMemcpyDeviceToHost));
  for (const char c : counters) ASSERT_EQ(0, c);
  ASSERT_EQ(cudaSuccess, cudaMemset(workspace->data() + cuda::kW4LargeCounterBytes, 0xff,
                                    cuda::w4_large_workspace(132) - cuda::kW4LargeCounterBytes));
}

// y in bfloat16 is y in float32, rounded, and nothing else was written.
void expect_rounded(const Case& c, const std::vector<float>& untouched,
                    const std::vector<std::uint16_t>& rounded,
                    const std::function<std::vector<float>()>& run_in_float32) {
  for (const float v : untouched) ASSERT_TRUE(std::isnan(v));
  const std::vector<float> y = run_in_float32();
  const std::int64_t stride = c.n + 8;
  for (std::int64_t row = 0; row < c.m; ++row) {
    for (std::int64_t col = 0; col < c.n; ++col) {
      ASSERT_EQ(to_bf16(y[static_cast<std::size_t>(row * stride + col)]).bits,
                rounded[static_cast<std::size_t>(row * c.n + col)])
          << row << ' ' << col;
    }
  }
}

// Runs the case `repeats` times, each on a poisoned output, which must come out the same bit by
// bit; compares with float64.
void expect_right(const Case& c, const W4LargeTile& tile, int repeats = 1) {
  std::mt19937 random(static_cast<unsigned>(c.m * 7 + c.n + c.k));
  std::vector<std::unique_ptr<Part>> parts;
  for (int i = 0; i < c.parts; ++i) {
    parts.push_back(std::make_unique<Part>(c, c.n + (c.pair ? 0 : 64 * i), &random));
  }
  Input x(c, &random);
  DeviceArray<char> workspace(cuda::w4_large_workspace(132));
  EXPECT_EQ(cudaSuccess, cudaMemset(workspace.data(), 0, cuda::kW4LargeCounterBytes));
  W4Large args;
  x.put(&args);
  args.m = c.m;
  args.part_count = c.parts;
  args.accumulate = c.accumulate;
  args.silu_pair = c.pair;
  args.workspace = workspace.data();
  for (int i = 0; i < c.parts; ++i) args.parts[i] = parts[static_cast<std::size_t>(i)]->args(c);
  std::vector<std::vector<float>> y(parts.size());
  DeviceArray<std::uint16_t> rounded(static_cast<std::size_t>(c.m * c.n));
  rounded.fill(0xff);
  args.rounded_y = c.rounded ? rounded.data() : nullptr;
  for (int i = 0; i < repeats; ++i) {
    for (auto& part : parts) part->poison();
    poison_sums(&workspace);
    ASSERT_EQ(cudaSuccess, c.fp8 ? w4_fp8(args, tile, nullptr) : w4_large(args, tile, nullptr));
    for (std::size_t part = 0; part < parts.size(); ++part) {
      const std::vector<float> now = parts[part]->y.host();
      if (i > 0) {
        ASSERT_EQ(0, std::memcmp(y[part].data(), now.data(), now.size() * sizeof(float))) << i;
      }
      y[part] = now;
    }
  }
  if (c.rounded) {
    expect_rounded(c, y[0], rounded.host(), [&] {
      args.rounded_y = nullptr;
      EXPECT_EQ(cudaSuccess, c.fp8 ? w4_fp8(args, tile, nullptr) : w4_large(args, tile, nullptr));
      return parts[0]->y.host();
    });
    return;
  }
  std::vector<double> wanted = expected(c, x, *parts[0]);
  if (c.pair) {
    const std::vector<double> up = expected(c, x, *parts[1]);
    for (std::size_t i = 0; i < up.size(); ++i) wanted[i] *= up[i] / (1 + std::exp(-wanted[i]));
  }
  expect_near(c, wanted, *parts[0], y[0]);
  for (std::size_t i = 1; i < parts.size() && !c.pair; ++i) {
    expect_near(c, expected(c, x, *parts[i]), *parts[i], y[i]);
  }
}

bool has_hopper() {
  cudaDeviceProp properties{};
  return cudaGetDeviceProperties(&properties, 0) == cudaSuccess && properties.major == 9;
}

#define NIBBLE_NEEDS_HOPPER() \
  NIBBLE_NEEDS_CUDA();        \
  if (!has_hopper()) GTEST_SKIP() << "no device of compute capability 9.0"

constexpr W4LargeTile kTiles[] = {
    {128, 256, 1, 1},       {128, 256, 2, 1},       {256, 128, 1, 1},       {256, 128, 2, 1},
    {256, 128, 1, 3},       {256, 64, 1, 1},        {256, 64, 2, 2},        {256, 64, 1, 8},
    {256, 32, 1, 1},        {256, 32, 1, 5},        {128, 64, 1, 1},        {128, 64, 1, 4},
    {128, 256, 1, 1, true}, {128, 256, 2, 1, true}, {256, 128, 1, 1, true}, {256, 64, 2, 1, true},
    {256, 32, 1, 1, true},  {128, 64, 1, 1, true}};
constexpr W4LargeTile kFp8Tiles[] = {
    {128, 128, 1, 1},       {128, 128, 2, 1},      {128, 128, 1, 5},       {128, 192, 1, 1},
    {256, 64, 1, 4},        {256, 64, 2, 2},       {256, 32, 1, 1},        {256, 32, 1, 3},
    {128, 192, 2, 1},       {256, 64, 1, 1},       {128, 128, 1, 1, true}, {128, 192, 1, 1, true},
    {128, 192, 2, 1, true}, {256, 64, 1, 1, true}, {256, 32, 1, 1, true}};

testing::Message name_of(const W4LargeTile& tile) {
  return testing::Message() << tile.rows << 'x' << tile.tokens << " share " << tile.share
                            << " split " << tile.split << (tile.spreads ? " spreads" : "");
}

TEST(W4Large, MatchesFloat64InEveryTileAndGroup) {
  NIBBLE_NEEDS_HOPPER();
  for (const W4LargeTile& tile : kTiles) {
    SCOPED_TRACE(name_of(tile));
    expect_right({67, 192, 704, 64, true, true}, tile);         // odd m, odd number of stages
    expect_right({64, 320, 640, 32, true, false, true}, tile);  // two groups a stage
    expect_right({130, 64, 512, 128, false, false, false, true}, tile);
    expect_right({1, 128, 512, 512, true, true, false, false, true}, tile);  // one group
  }
}

TEST(W4Large, Fp8MatchesFloat64InEveryTile) {
  NIBBLE_NEEDS_HOPPER();
  for (const W4LargeTile& tile : kFp8Tiles) {
    SCOPED_TRACE(name_of(tile));
    Case c{67, 192, 640, 128, true, true};
    c.fp8 = true;
    expect_right(c, tile);
    c = {130, 64, 768, 128, false, false, false, true};
    c.fp8 = true;
    expect_right(c, tile);
    c = {1, 320, 896, 896, true, true, true, false, true};
    c.fp8 = true;
    expect_right(c, tile);
  }
}

TEST(W4Large, SeveralPartsAndPairs) {
  NIBBLE_NEEDS_HOPPER();
  const auto run = [](const W4LargeTile& tile, bool fp8) {
    SCOPED_TRACE(name_of(tile));
    Case c{35, 192, 640, 128, true, true};
    c.fp8 = fp8;
    c.bias = true;
    c.parts = 3;
    expect_right(c, tile);
    c.accumulate = true;
    expect_right(c, tile);
    if (tile.rows != 256) return;
    c.accumulate = false;
    c.parts = 2;
    c.pair = true;
    expect_right(c, tile);
    c.rounded = true;
    expect_right(c, tile);
    c.m = 301;  // more tiles than one, the last not whole
    c.n = 64;
    c.rounded = false;
    expect_right(c, tile);
    c.rounded = true;
    expect_right(c, tile);
  };
  for (const W4LargeTile& tile : kTiles) run(tile, false);
  for (const W4LargeTile& tile : kFp8Tiles) run(tile, true);
}

TEST(W4Large, SharesOutWhatIsLeftOfWholeRounds) {
  NIBBLE_NEEDS_HOPPER();
  Case c{2000, 2624, 256, 128};
  for (const W4LargeTile& tile : {W4LargeTile{128, 256, 2, 1, true}, W4LargeTile{256, 128, 1, 2}}) {
    SCOPED_TRACE(name_of(tile));
    expect_right(c, tile, repeats(10));
  }
  c.fp8 = true;
  expect_right(c, {128, 192, 1, 1, true}, repeats(10));
}

TEST(W4Large, KeepsItsAccuracyOverLongSumsOfPositiveInputs) {
  NIBBLE_NEEDS_HOPPER();
  for (const bool positive : {false, true}) {
    for (const W4LargeTile& tile : {kTiles[0], kTiles[7]}) {
      expect_right({16, 64, 22016, 128, true, false, positive}, tile);
    }
    for (const bool zeros : {false, true}) {
      Case c{16, 64, 22016, 128, zeros, false, positive};
      c.fp8 = true;
      expect_right(c, kFp8Tiles[0]);
      expect_right(c, kFp8Tiles[4]);
    }
  }
}

TEST(W4Large, GivesTheSameBitsEveryTime) {
  NIBBLE_NEEDS_HOPPER();
  Case c{300, 448, 1024, 128};
  for (const W4LargeTile& tile : kTiles) expect_right(c, tile, repeats(100));
  c.fp8 = true;
  for (const W4LargeTile& tile : kFp8Tiles) expect_right(c, tile, repeats(100));
}

TEST(W4Large, ChoosesTilesThatItAccepts) {
  NIBBLE_NEEDS_HOPPER();
  for (const std::int64_t m : {1, 17, 64, 129, 700}) {
    for (const std::int64_t n : {64, 1024, 4096}) {
      for (const int parts : {1, 2, 3}) {
        Case c{m, n, 256, 128, true, true};
        c.parts = parts;
        c.pair = parts == 2;
        W4Large args;
        args.m = m;
        args.part_count = parts;
        args.silu_pair = c.pair;
        for (int i = 0; i < parts; ++i) {
          args.parts[i].w.rows = n + (c.pair ? 0 : 64 * i);
          args.parts[i].w.cols = c.k;
        }
        SCOPED_TRACE(testing::Message() << m << ' ' << n << ' ' << parts);
        expect_right(c, cuda::choose_w4_large_tile(args, 132));
        c.fp8 = true;
        expect_right(c, cuda::choose_w4_fp8_tile(args, 132));
      }
    }
  }
}

TEST(W4Large, RefusesSizesThatItCannotDo) {
  NIBBLE_NEEDS_HOPPER();
  DeviceArray<float> y(64 * 64);
  const W4LargeTile tile{128, 64, 1, 1};
  const auto run = [&](std::int64_t m, std::int64_t n, std::int64_t k, std::int64_t groups) {
    W4Large args;
    args.x = y.data();
    args.m = m;
    args.parts[0] = {{y.data(), y.data(), nullptr, n, k, groups}, nullptr, y.data(), n};
    return w4_large(args, tile, nullptr);
  };
  EXPECT_EQ(cudaErrorInvalidValue, run(0, 64, 64, 1));
  EXPECT_EQ(cudaErrorInvalidValue, run(4, 96, 64, 1));
  EXPECT_EQ(cudaErrorInvalidValue, run(4, 64, 96, 1));
  EXPECT_EQ(cudaErrorInvalidValue, run(4, 64, 256, 16));
}

}  // namespace
}  // namespace nibble::test
