// Every implementation of linear on every registered format, against sums in double.
#include <functional>
#include <optional>

#include "base/half.h"
#include "contract/op_support.h"
#include "formats/affine.h"
#include "formats/block_encode.h"
#include "formats/registry.h"
#include "support/exact_sums.h"
#include "support/tolerance.h"

namespace nibble::test {
namespace {

constexpr std::int64_t kRowCounts[] = {0, 1, 2, 3, 5, 8, 17, 64};

// The registered formats and some whose groups, widths and scale types none of them has.
std::vector<FormatPtr> formats() {
  std::vector<FormatPtr> all;
  for (const FormatAlias& alias : format_aliases()) {
    const FormatPtr weights = parse_model_format(alias.definition).weights;
    if (weights != nullptr) all.push_back(weights);
  }
  for (const char* name : {"int4_g24_asym_sf32", "int8_g40_asym_sbf16", "int3_g20_sym",
                           "int5_tensor", "int7_channel_sym", "int2_g8_asym", "int4_g1_asym",
                           "int4_tensor_sym", "int8_g32_asym", "int8_g64_sym_sbf16"}) {
    all.push_back(parse_weight_format(name));
  }
  for (const BlockLayout& layout : block_layouts()) {
    if (block_encoder(layout.type) != nullptr) all.push_back(block_format(layout.type));
  }
  return all;
}

// The same tensor with every plane moved to an odd address that ends with its heap block.
QuantTensor unaligned(const QuantTensor& tensor) {
  QuantTensor moved = tensor;
  for (Tensor& plane : moved.planes) {
    const std::size_t size = plane.byte_size();
    std::shared_ptr<std::byte[]> block(new std::byte[size + 1]);
    std::memcpy(block.get() + 1, plane.bytes().data(), size);
    plane = Tensor::view(plane.dtype(), plane.shape(), {block.get() + 1, size}, block);
  }
  return moved;
}

struct Case {
  QuantTensor weight;
  std::int64_t m = 0;
  bool accumulate = false;
  bool bias = false;
  std::int64_t x_gap = 3;  // floats between two rows of x
  std::int64_t y_gap = 5;
  Arithmetic arithmetic = Arithmetic::kFloat32;  // how the implementation rounds activations
};

// What kernels with Arithmetic::kInt8 make of a block of activations: scale * q + offset, q a byte
// over the range of the block.
void round_block(float* x, std::int64_t count) {
  const auto [low, high] = std::minmax_element(x, x + count);
  const float offset = *low;
  const float range = *high - offset;
  const float inverse = 255.0f / range;
  for (std::int64_t i = 0; i < count; ++i) {
    const float q = std::clamp(std::nearbyint((x[i] - offset) * inverse), 0.0f, 255.0f);
    x[i] = range / 255.0f * q + offset;
  }
}

// What those with Arithmetic::kSignedInt8 make of it: scale * q, q from -127 to 127.
void round_block_signed(float* x, std::int64_t count) {
  float most = 0;
  for (std::int64_t i = 0; i < count; ++i) most = std::max(most, std::abs(x[i]));
  const float inverse = 127.0f / most;
  for (std::int64_t i = 0; i < count; ++i) {
    x[i] = most / 127.0f * std::clamp(std::nearbyint(x[i] * inverse), -127.0f, 127.0f);
  }
}

void round_to_bf16(std::vector<float>& values) {
  for (float& v : values) v = to_float(to_bf16(v));
}

bool is_bf16(Arithmetic arithmetic) {
  return arithmetic == Arithmetic::kBf16 || arithmetic == Arithmetic::kBf16Exact ||
         arithmetic == Arithmetic::kBf16Scaled;
}

// Weights as the kernels see them, given what the format says they are.
void round_weights(Arithmetic arithmetic, const QuantTensor& weight, std::vector<float>& w) {
  if (arithmetic == Arithmetic::kBf16Scaled && weight.format->is_affine()) {
    const std::vector<AffineParams> params = affine_params_of(weight);
    const auto cols = static_cast<std::size_t>(weight.cols);
    const std::size_t group = w.size() / params.size();
    NIBBLE_CHECK(cols % group == 0);  // a scale a group or a channel
    for (std::size_t i = 0; i < w.size(); ++i) {
      const float scale = params[i / group].scale;
      w[i] = std::nearbyint(w[i] / scale) * to_float(to_bf16(scale));
    }
  }
  if (arithmetic == Arithmetic::kBf16 || arithmetic == Arithmetic::kBf16Scaled) round_to_bf16(w);
}

// Rows of x as the kernels see them.
void round_rows(Arithmetic arithmetic, std::vector<float>& x, std::int64_t cols,
                std::int64_t stride) {
  constexpr std::int64_t kBlock = 32;
  if (arithmetic == Arithmetic::kF16) {
    for (float& v : x) v = to_float(to_f16(v));
  }
  if (is_bf16(arithmetic)) round_to_bf16(x);
  if (arithmetic != Arithmetic::kInt8 && arithmetic != Arithmetic::kSignedInt8) return;
  const auto round = arithmetic == Arithmetic::kInt8 ? round_block : round_block_signed;
  for (auto row = x.data(); row < x.data() + x.size(); row += stride) {
    for (std::int64_t k = 0; k < cols; k += kBlock) round(row + k, kBlock);
  }
}

using RunLinear = std::function<bool(const LinearArgs&)>;

ExactSums exact_sums(const QuantTensor& weight, Arithmetic arithmetic) {
  std::vector<float> w(static_cast<std::size_t>(weight.rows * weight.cols));
  decode_all(weight, w.data());
  round_weights(arithmetic, weight, w);
  return {w, weight.rows, weight.cols};
}

// Empty when every element of y is the exact sum of `start` [m, rows] (or 0 without it), the bias
// [rows] if any and the products, within the bound of a float32 dot product of that length.
std::string compare(const ExactSums& exact, const LinearArgs& args, const float* start,
                    const GuardedOutput& y) {
  const std::int64_t rows = args.w->canonical.rows;
  const std::int64_t cols = args.w->canonical.cols;
  const auto size = static_cast<std::size_t>(rows);
  for (std::int64_t row = 0; row < args.m; ++row) {
    std::vector<double> sums(size), magnitudes(size);
    for (std::size_t n = 0; n < size; ++n) {
      const double before = start == nullptr ? 0 : double{start[row * rows + std::int64_t(n)]};
      const double bias = args.bias == nullptr ? 0 : double{args.bias[n]};
      sums[n] = before + bias;
      magnitudes[n] = std::abs(before) + std::abs(bias);
    }
    exact.add(args.x + row * args.x_stride, sums, magnitudes);
    for (std::size_t n = 0; n < size; ++n) {
      const float got = y.at(row, static_cast<std::int64_t>(n));
      if (!(std::abs(double{got} - sums[n]) <= dot_error_bound(cols + 3, magnitudes[n]))) {
        return fmt::format("y[{}, {}] of m {} rows {} cols {}: {} instead of {}", row, n, args.m,
                           rows, cols, got, sums[n]);
      }
    }
  }
  return "";
}

// Runs a case and compares its result with `exact`, of the case's weight and arithmetic, which is
// made when there is none yet. Empty when all is well or the implementation does not support the
// case.
std::string check_linear(const Case& c, const RunLinear& run, std::optional<ExactSums>& exact) {
  const std::int64_t rows = c.weight.rows;
  const std::int64_t cols = c.weight.cols;
  const std::int64_t x_stride = cols + c.x_gap;
  const std::int64_t y_stride = rows + c.y_gap;
  std::vector<float> x = random_floats(c.m * x_stride, 1);
  const std::vector<float> bias = random_floats(rows, 2);
  const std::vector<float> before = random_floats(c.m * rows, 3);
  GuardedOutput y(c.m, rows, y_stride);
  for (std::int64_t i = 0; c.accumulate && i < c.m * rows; ++i) {
    y.data()[i / rows * y_stride + i % rows] = before[static_cast<std::size_t>(i)];
  }
  LinearWeight weight{c.weight, nullptr};
  LinearArgs args;
  args.x = x.data();
  args.x_stride = x_stride;
  args.m = c.m;
  args.w = &weight;
  args.bias = c.bias ? bias.data() : nullptr;
  args.y = y.data();
  args.y_stride = y_stride;
  args.accumulate = c.accumulate;
  if (!run(args)) return "";
  if (const std::string damage = y.damage(); !damage.empty()) return damage;
  round_rows(c.arithmetic, x, cols, x_stride);
  if (!exact) exact = exact_sums(c.weight, c.arithmetic);
  return compare(*exact, args, c.accumulate ? before.data() : nullptr, y);
}

std::string check_linear(const Case& c, const RunLinear& run) {
  std::optional<ExactSums> exact;
  return check_linear(c, run, exact);
}

// All shapes and row counts of one format; counts the calls that the implementation supports.
std::string check_format(const FormatPtr& format, Arithmetic arithmetic, Backend& backend,
                         int& supported) {
  unsigned variant = 0;
  for (const std::int64_t cols : {1, 7, 24, 100, 128, 120, 384, 1280}) {
    if (!format->why_not(5, cols).empty()) continue;
    for (const std::int64_t rows : {1, 37, 64, 70}) {
      // Whole blocks of rows are for kernels that take nothing else.
      if (rows == 64 && (format->is_float() || (cols != 128 && cols != 384))) continue;
      const std::vector<float> w = random_floats(rows * cols, 4, 0.1f);
      const QuantTensor weight = unaligned(format->encode(w.data(), rows, cols));
      const LinearWeight prepared = backend.prepare(weight);
      const RunLinear run = [&](LinearArgs args) {
        args.w = &prepared;
        const bool ran = try_run(backend, args);
        supported += ran ? 1 : 0;
        return ran;
      };
      std::optional<ExactSums> exact;
      for (const std::int64_t m : kRowCounts) {
        ++variant;
        const std::string failure = check_linear({.weight = weight,
                                                  .m = m,
                                                  .accumulate = variant % 2 == 0,
                                                  .bias = variant % 3 == 0,
                                                  .x_gap = variant % 4 == 0 ? 3 : 4,
                                                  .y_gap = variant % 4 == 0 ? 5 : 4,
                                                  .arithmetic = arithmetic},
                                                 run, exact);
        if (!failure.empty()) return format->name() + ": " + failure;
      }
    }
  }
  return "";
}

class LinearContract : public ::testing::TestWithParam<ImplRow> {};

TEST_P(LinearContract, EveryFormatAndShape) {
  const auto backend = forced_backend("linear", GetParam().name);
  int supported = 0;
  for (const FormatPtr& format : formats())
    EXPECT_EQ(check_format(format, GetParam().arithmetic, *backend, supported), "");
  EXPECT_GT(supported, 40);
}

// More columns than a kernel takes at once.
TEST_P(LinearContract, ManyColumns) {
  const auto backend = forced_backend("linear", GetParam().name);
  constexpr std::int64_t kRows = 37;
  constexpr std::int64_t kCols = 5664;
  const std::vector<float> w = random_floats(kRows * kCols, 4, 0.1f);
  for (const char* name : {"bf16", "int4_g32_asym"}) {
    const QuantTensor weight = parse_weight_format(name)->encode(w.data(), kRows, kCols);
    for (const std::int64_t m : {1, 50}) {
      const Case c = {.weight = weight, .m = m, .bias = true, .arithmetic = GetParam().arithmetic};
      EXPECT_EQ(check_linear(c,
                             [&](LinearArgs args) {
                               const LinearWeight prepared = backend->prepare(args.w->canonical);
                               args.w = &prepared;
                               return try_run(*backend, args);
                             }),
                "")
          << name << ", m " << m;
    }
  }
}

TEST_P(LinearContract, SameBitsForAnyNumberOfThreads) {
  const FormatPtr format = parse_weight_format("int4_g32_asym");
  const std::int64_t rows = 300;
  const std::int64_t cols = 640;
  const std::vector<float> w = random_floats(rows * cols, 5);
  const QuantTensor weight = format->encode(w.data(), rows, cols);
  for (const std::int64_t m : {1, 6, 40}) {
    const std::vector<float> x = random_floats(m * cols, 6);
    std::vector<std::vector<float>> results;
    for (const int threads : {1, 2, 5}) {
      const auto backend = forced_backend("linear", GetParam().name, threads);
      const LinearWeight prepared = backend->prepare(weight);
      std::vector<float> y(static_cast<std::size_t>(m * rows));
      LinearArgs args;
      args.x = x.data();
      args.x_stride = cols;
      args.m = m;
      args.w = &prepared;
      args.y = y.data();
      args.y_stride = rows;
      if (try_run(*backend, args)) results.push_back(y);
    }
    for (const auto& result : results) EXPECT_EQ(result, results.front()) << "m " << m;
  }
}

// Weights of several formats and sizes, some of which the implementation may not support.
TEST_P(LinearContract, TogetherIsAsOneByOne) {
  const auto backend = forced_backend("linear", GetParam().name);
  constexpr std::int64_t kCols = 256;
  std::vector<LinearWeight> weights;
  for (const char* name : {"int4_g64_asym", "int4_g128_sym", "int8_channel_sym", "bf16", "f32",
                           "q4_k", "q2_k", "q5_1", "iq4_xs"}) {
    for (const std::int64_t rows : {70, 33}) {
      const std::vector<float> w = random_floats(rows * kCols, 10);
      weights.push_back(backend->prepare(parse_weight_format(name)->encode(w.data(), rows, kCols)));
    }
  }
  for (const std::int64_t m : {1, 20, 70}) {
    const std::vector<float> x = random_floats(m * kCols, 11);
    std::vector<LinearArgs> calls;
    std::vector<std::vector<float>> expected;
    for (const LinearWeight& weight : weights) {
      LinearArgs args;
      args.x = x.data();
      args.x_stride = kCols;
      args.m = m;
      args.w = &weight;
      args.y_stride = weight.canonical.rows;
      std::vector<float> y(static_cast<std::size_t>(m * args.y_stride), NAN);
      args.y = y.data();
      if (!try_run(*backend, args)) continue;
      calls.push_back(args);
      expected.push_back(std::move(y));
    }
    std::vector<std::vector<float>> together;
    for (LinearArgs& call : calls) {
      together.emplace_back(static_cast<std::size_t>(m * call.y_stride), NAN);
      call.y = together.back().data();
    }
    backend->run_together(calls);
    EXPECT_EQ(together, expected) << "m " << m;
  }
}

// silu(gate) * up at once is what the three ops make of it, within the rounding of an exponential.
TEST_P(LinearContract, GatedIsAsOpByOp) {
  const auto backend = forced_backend("linear", GetParam().name);
  constexpr std::int64_t kCols = 256, kRows = 128;
  for (const char* name : {"int4_g64_asym_sbf16", "int4_g128_sym", "int8_channel_sym", "bf16"}) {
    const auto prepared = [&](unsigned seed) {
      const std::vector<float> w = random_floats(kRows * kCols, seed, 0.1f);
      return backend->prepare(parse_weight_format(name)->encode(w.data(), kRows, kCols));
    };
    const LinearWeight gate_weight = prepared(20);
    const LinearWeight up_weight = prepared(21);
    const std::vector<float> bias = random_floats(kRows, 22);
    for (const std::int64_t m : {1, 3, 17, 32, 40}) {
      const std::vector<float> x = random_floats(m * kCols, 23);
      const auto size = static_cast<std::size_t>(m * kRows);
      std::vector<float> gate_y(size), up_y(size), y(size, NAN);
      LinearArgs gate;
      gate.x = x.data();
      gate.x_stride = kCols;
      gate.m = m;
      gate.w = &gate_weight;
      gate.y = gate_y.data();
      gate.y_stride = kRows;
      LinearArgs up = gate;
      up.w = &up_weight;
      up.bias = bias.data();
      up.y = up_y.data();
      if (!try_run(*backend, gate)) continue;
      ActivationArgs activation;
      activation.kind = Activation::kSilu;
      activation.x = gate.y;
      activation.multiplier = up.y;
      activation.x_stride = activation.multiplier_stride = activation.y_stride = kRows;
      activation.rows = m;
      activation.cols = kRows;
      activation.y = y.data();
      const LinearArgs pair[] = {gate, up};
      const ChainLink links[] = {std::span<const LinearArgs>(pair), activation};
      backend->run_chain(links);
      backend->run(gate);
      backend->run(up);
      for (std::size_t i = 0; i < size; ++i) {
        const double g = gate_y[i];
        const double expected = g / (1 + std::exp(-g)) * up_y[i];
        ASSERT_NEAR(y[i], expected, 1e-5 * (1 + std::abs(g)) * std::abs(up_y[i]))
            << name << ", m " << m << ", at " << i;
      }
    }
  }
}

// Those that multiply x as it is; the others are the subject of ops_rounded_linear_test.cc.
std::vector<ImplRow> plain_rows() {
  std::vector<ImplRow> rows = usable_rows("linear");
  constexpr std::int64_t kSize = 64;  // whole blocks, for kernels that take nothing else
  const std::vector<float> w(kSize * kSize, 0.5f);
  std::erase_if(rows, [&](const ImplRow& row) {
    const auto backend = forced_backend("linear", row.name, 1);
    for (const char* name : {"f32", "f16", "bf16", "int4_g32_asym", "int8_g32_asym", "q4_1"}) {
      const LinearWeight weight =
          backend->prepare(parse_weight_format(name)->encode(w.data(), kSize, kSize));
      std::vector<float> y(kSize);
      LinearArgs args;
      args.x = w.data();
      args.x_stride = kSize;
      args.m = 1;
      args.w = &weight;
      args.y = y.data();
      args.y_stride = kSize;
      if (try_run(*backend, args)) return false;
    }
    return true;
  });
  return rows;
}

INSTANTIATE_TEST_SUITE_P(Impls, LinearContract, ::testing::ValuesIn(plain_rows()),
                         [](const auto& test) { return test.param.name; });

// A block that holds no number must not look like one that does.
TEST_P(LinearContract, NanAndInfinityArePassedOn) {
  const auto backend = forced_backend("linear", GetParam().name);
  const std::vector<float> w = random_floats(40 * 128, 8);
  const LinearWeight weight =
      backend->prepare(parse_weight_format("int4_g64_asym")->encode(w.data(), 40, 128));
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    std::vector<float> x = random_floats(3 * 128, 9);
    x[128 + 70] = bad;
    std::vector<float> y(3 * 40);
    LinearArgs args;
    args.x = x.data();
    args.x_stride = 128;
    args.m = 3;
    args.w = &weight;
    args.y = y.data();
    args.y_stride = 40;
    if (!try_run(*backend, args)) return;
    for (std::size_t n = 0; n < 40; ++n) {
      EXPECT_TRUE(std::isfinite(y[n])) << n;
      EXPECT_FALSE(std::isfinite(y[40 + n])) << n;
      EXPECT_TRUE(std::isfinite(y[80 + n])) << n;
    }
  }
}

// Weights are tampered with in the host's memory.
class LinearContractMutants : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::vector<std::string> usable = usable_impls("linear");
    if (std::ranges::find(usable, "reference") == usable.end()) {
      GTEST_SKIP() << "the device has no reference implementation";
    }
  }
};

// Mutants: an implementation that reads the planes wrongly must be caught.
std::string check_mutant(const char* format_name, const std::function<void(QuantTensor&)>& tamper) {
  const FormatPtr format = parse_weight_format(format_name);
  const std::vector<float> w = random_floats(24 * 128, 7, 0.1f);
  const QuantTensor weight = format->encode(w.data(), 24, 128);
  LinearWeight wrong{unaligned(weight), nullptr};
  tamper(wrong.canonical);
  const auto backend = forced_backend("linear", "reference");
  return check_linear({.weight = weight, .m = 2}, [&](LinearArgs args) {
    args.w = &wrong;
    return try_run(*backend, args);
  });
}

std::byte* plane_bytes(QuantTensor& tensor, std::size_t plane) {
  return const_cast<std::byte*>(tensor.planes[plane].bytes().data());
}

TEST_F(LinearContractMutants, TheUntouchedWeightPasses) {
  EXPECT_EQ(check_mutant("int4_g32_asym", [](QuantTensor&) {}), "");
}

TEST_F(LinearContractMutants, SwappedNibblesAreCaught) {
  EXPECT_NE(check_mutant("int4_g32_asym",
                         [](QuantTensor& t) {
                           std::byte* codes = plane_bytes(t, 0);
                           for (std::size_t i = 0; i < t.planes[0].byte_size(); ++i) {
                             codes[i] = (codes[i] << 4) | (codes[i] >> 4);
                           }
                         }),
            "");
}

TEST_F(LinearContractMutants, ScalesOffByOneGroupAreCaught) {
  EXPECT_NE(check_mutant("int4_g32_asym",
                         [](QuantTensor& t) {
                           std::byte* scales = plane_bytes(t, 1);
                           std::memmove(scales, scales + 2, t.planes[1].byte_size() - 2);
                         }),
            "");
}

TEST_F(LinearContractMutants, TransposedScalesAreCaught) {
  EXPECT_NE(check_mutant("int4_g32_asym",
                         [](QuantTensor& t) {
                           const std::int64_t groups = 4;
                           std::vector<std::byte> copy(t.planes[1].byte_size());
                           std::memcpy(copy.data(), plane_bytes(t, 1), copy.size());
                           for (std::int64_t i = 0; i < t.rows * groups; ++i) {
                             const std::int64_t from = i % t.rows * groups + i / t.rows;
                             std::memcpy(plane_bytes(t, 1) + 2 * i, copy.data() + 2 * from, 2);
                           }
                         }),
            "");
}

TEST_F(LinearContractMutants, AZeroPointOffByOneIsCaught) {
  EXPECT_NE(check_mutant(
                "int8_g32_asym",
                [](QuantTensor& t) { plane_bytes(t, 2)[0] = plane_bytes(t, 2)[0] ^ std::byte{1}; }),
            "");
}

TEST_F(LinearContractMutants, AStoreBehindTheRowIsCaught) {
  const FormatPtr format = parse_weight_format("f32");
  const std::vector<float> w = random_floats(24 * 128, 7, 0.1f);
  const auto backend = forced_backend("linear", "reference");
  EXPECT_THAT(check_linear({.weight = format->encode(w.data(), 24, 128), .m = 2},
                           [&](const LinearArgs& args) {
                             args.y[24] = 0;
                             return try_run(*backend, args);
                           }),
              ::testing::HasSubstr("wrote outside"));
}

}  // namespace
}  // namespace nibble::test
