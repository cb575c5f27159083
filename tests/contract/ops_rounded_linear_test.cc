// Every implementation of linear that rounds its input to a format of activations, against sums in
// double over what the format's own definition makes of it.
#include <cmath>
#include <optional>

#include "contract/op_support.h"
#include "formats/registry.h"
#include "support/exact_sums.h"
#include "support/tolerance.h"

namespace nibble::test {
namespace {

constexpr const char* kActivations[] = {"int8_token",
                                        "int4_token",
                                        "int8_token_o6",
                                        "int8_tensor",
                                        "int8_asym_g48",
                                        "fp8_e4m3_token",
                                        "fp4_e2m1_g32",
                                        "int8_tensor_static",
                                        "int8_asym_tensor_static",
                                        "int8_channel_static",
                                        "fp8_e4m3_channel_static"};
constexpr const char* kWeights[] = {
    "int8_channel_sym", "int8_g64_asym",    "int4_g32_asym", "int4_channel_sym",
    "int6_g32_asym",    "fp8_e4m3_channel", "bf16"};
constexpr std::int64_t kRows = 70;       // fill no vector
constexpr std::int64_t kWholeRows = 80;  // tensor cores' products of bytes take multiples of 16

// A static format with scales (and zero points) as calibration would give it, other formats as they
// are.
ActivationFormatPtr completed(const char* name, std::int64_t cols) {
  ActivationFormatPtr format = parse_activation_format(name);
  const ActivationDescriptor& d = format->descriptor();
  if (!d.is_static) return format;
  std::vector<AffineParams> params;
  for (std::int64_t i = 0; i < (d.scope == ActivationScope::kChannel ? cols : 1); ++i) {
    params.push_back(
        {(5.0f + static_cast<float>(i % 3)) / format->largest(), d.symmetric ? 0 : 99});
  }
  return format->with_scales(std::move(params));
}

// A weight and a call of it; x holds values beyond 6.
struct Call {
  Call(Backend& backend, const char* weight_name, const char* format_name, std::int64_t rows_of_x,
       std::int64_t columns, std::int64_t rows_of_w = kRows, bool on_16_bytes = false)
      : format(completed(format_name, columns)),
        m(rows_of_x),
        cols(columns),
        rows(rows_of_w),
        aligned(on_16_bytes) {
    const std::vector<float> w = random_floats(rows * cols, 4, 0.1f);
    weight = parse_weight_format(weight_name)->encode(w.data(), rows, cols);
    prepared = backend.prepare(weight, "", format.get());
    use_rows(m);
    bias = random_floats(rows, 2);
  }

  void use_rows(std::int64_t rows_of_x) {
    m = rows_of_x;
    x = random_floats(m * stride(), 1, 2.5f);
  }

  const ExactSums& exact() {
    if (!exact_) {
      std::vector<float> w(static_cast<std::size_t>(rows * cols));
      decode_all(weight, w.data());
      exact_.emplace(w, rows, cols);
    }
    return *exact_;
  }

  std::int64_t stride() const { return cols + (aligned ? 4 : 3); }
  std::int64_t y_stride() const { return rows + (aligned ? 8 : 5); }

  LinearArgs args(float* y, std::int64_t y_stride) const {
    LinearArgs args;
    args.x = x.data();
    args.x_stride = stride();
    args.m = m;
    args.w = &prepared;
    args.y = y;
    args.y_stride = y_stride;
    args.activations = format.get();
    return args;
  }

  ActivationFormatPtr format;
  std::int64_t m;
  std::int64_t cols;
  std::int64_t rows;
  bool aligned;  // rows of x and y
  QuantTensor weight;
  LinearWeight prepared;
  std::vector<float> x;
  std::vector<float> bias;

 private:
  std::optional<ExactSums> exact_;
};

// What an arithmetic adds to the error of a float32 sum, as a share of the sum of magnitudes: both
// operands rounded to bf16; or tensor cores that keep 13 bits of sums of fp8, four at a time.
double error_of(Arithmetic arithmetic) {
  if (arithmetic == Arithmetic::kBf16) return 2 * unit_roundoff(DType::kBF16);
  return arithmetic == Arithmetic::kFp8 ? 0x1p-11 : 0;
}

// Empty when every element is within the bound of a float32 dot product and what the arithmetic
// adds; sets `ran`.
std::string check(Backend& backend, Call& call, bool accumulate, bool& ran,
                  Arithmetic arithmetic = Arithmetic::kFloat32) {
  GuardedOutput y(call.m, call.rows, call.y_stride());
  constexpr float kBefore = 3;
  for (std::int64_t i = 0; accumulate && i < call.m * call.rows; ++i) {
    y.data()[i / call.rows * call.y_stride() + i % call.rows] = kBefore;
  }
  LinearArgs args = call.args(y.data(), call.y_stride());
  args.accumulate = accumulate;
  args.bias = accumulate ? nullptr : call.bias.data();
  ran = try_run(backend, args);
  if (!ran) return "";
  if (const std::string damage = y.damage(); !damage.empty()) return damage;
  std::vector<float> x(static_cast<std::size_t>(call.m * call.cols));
  call.format->round(call.x.data(), call.stride(), call.m, call.cols, x.data(), call.cols);
  const double share = error_of(arithmetic);
  const auto rows = static_cast<std::size_t>(call.rows);
  for (std::int64_t row = 0; row < call.m; ++row) {
    std::vector<double> sums(rows, kBefore), magnitudes(rows);
    if (!accumulate) sums.assign(call.bias.begin(), call.bias.end());
    for (std::size_t n = 0; n < rows; ++n) magnitudes[n] = std::abs(sums[n]);
    call.exact().add(x.data() + row * call.cols, sums, magnitudes);
    for (std::size_t n = 0; n < rows; ++n) {
      const float got = y.at(row, static_cast<std::int64_t>(n));
      const double bound = dot_error_bound(call.cols + 3, magnitudes[n]) + share * magnitudes[n];
      if (!(std::abs(double{got} - sums[n]) <= bound)) {
        return fmt::format("y[{}, {}] of m {} cols {}: {} instead of {}", row, n, call.m, call.cols,
                           got, sums[n]);
      }
    }
  }
  return "";
}

std::string test_name(const ::testing::TestParamInfo<ImplRow>& test) { return test.param.name; }

class RoundedLinear : public ::testing::TestWithParam<ImplRow> {
 protected:
  std::unique_ptr<Backend> backend_ = forced_backend("linear", GetParam().name);
};

TEST_P(RoundedLinear, EveryFormatAndShape) {
  bool accumulate = false;
  for (const char* activations : kActivations) {
    for (const char* weights : kWeights) {
      for (const std::int64_t cols : {128, 1280}) {
        Call call(*backend_, weights, activations, 0, cols, cols == 128 ? kRows : kWholeRows);
        for (const std::int64_t m : {0, 1, 5, 7, 20, 64}) {
          bool ran = false;
          call.use_rows(m);
          EXPECT_EQ(check(*backend_, call, accumulate, ran, GetParam().arithmetic), "")
              << activations << ", " << weights;
          if (!ran) break;
          accumulate = !accumulate;
        }
      }
    }
  }
}

// Kernels for many rows ask for whole blocks of weights and aligned rows.
TEST_P(RoundedLinear, ManyRowsOfPackedWeights) {
  for (const char* weights :
       {"int4_g128_asym", "int4_g128_sym", "int4_channel_sym", "int4_channel_asym"}) {
    bool accumulate = false;
    Call call(*backend_, weights, "fp8_e4m3_token", 0, 640, 192, true);
    for (const std::int64_t m : {9, 129, 300}) {
      bool ran = false;
      call.use_rows(m);
      EXPECT_EQ(check(*backend_, call, accumulate, ran, GetParam().arithmetic), "") << weights;
      accumulate = !accumulate;
    }
  }
}

// The format is the user's choice and so is the result, whatever else is in a call.
TEST_P(RoundedLinear, ARowHasTheSameBitsAlone) {
  const Arithmetic arithmetic = GetParam().arithmetic;
  if (arithmetic != Arithmetic::kFloat32 && arithmetic != Arithmetic::kInt8) {
    GTEST_SKIP() << "sums of " << to_string(arithmetic) << " depend on the tile";
  }
  constexpr std::int64_t kM = 600;  // more than any kernel takes at once
  for (const char* activations : {"int8_token", "fp8_e4m3_token", "int4_g32"}) {
    for (const char* weights : {"int8_channel_sym", "int8_g64_asym", "int4_g32_asym", "bf16"}) {
      const Call call(*backend_, weights, activations, kM, 640);
      std::vector<float> all(kM * kRows);
      if (!try_run(*backend_, call.args(all.data(), kRows))) continue;
      for (const std::int64_t row : {0, 1, 5, 30, 599}) {
        std::vector<float> alone(kRows);
        LinearArgs args = call.args(alone.data(), kRows);
        args.x += row * args.x_stride;
        args.m = 1;
        backend_->run(args);
        const std::vector<float> of_all(all.begin() + row * kRows, all.begin() + (row + 1) * kRows);
        EXPECT_EQ(alone, of_all) << activations << ", " << weights << ", row " << row;
      }
    }
  }
}

TEST_P(RoundedLinear, TogetherIsAsOneByOne) {
  std::vector<std::unique_ptr<Call>> made;
  for (const char* activations : {"int8_token", "int8_token", "int4_token", "fp8_e4m3_token"}) {
    for (const char* weights : {"int8_channel_sym", "int4_g32_asym"}) {
      made.push_back(std::make_unique<Call>(*backend_, weights, activations, 9, 256));
    }
  }
  std::vector<std::vector<float>> expected;
  std::vector<std::vector<float>> together;
  std::vector<LinearArgs> calls;
  for (const auto& call : made) {
    std::vector<float> y(9 * kRows);
    LinearArgs args = call->args(y.data(), kRows);
    args.x = made.front()->x.data();
    if (!try_run(*backend_, args)) continue;
    expected.push_back(y);
    together.push_back(std::vector<float>(y.size(), NAN));
    args.y = together.back().data();
    calls.push_back(args);
  }
  backend_->run_together(calls);
  EXPECT_EQ(together, expected);
}

TEST_P(RoundedLinear, NanStaysInItsRow) {
  for (const float bad : {NAN, INFINITY}) {
    Call call(*backend_, "int8_channel_sym", "int8_token", 3, 128);
    call.x[static_cast<std::size_t>(call.stride() + 70)] = bad;
    std::vector<float> y(3 * kRows);
    if (!try_run(*backend_, call.args(y.data(), kRows))) return;
    for (std::int64_t i = 0; i < 3 * kRows; ++i) {
      EXPECT_EQ(std::isfinite(y[static_cast<std::size_t>(i)]), i / kRows != 1) << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Impls, RoundedLinear, ::testing::ValuesIn(usable_rows("linear")),
                         test_name);

TEST(RoundedLinearDispatch, AnyFormatRunsAndIntegersByTokenMultiplyCodes) {
  BackendOptions options = BackendOptions::from_environment();
  options.threads = 2;
  const auto backend = make_cpu_backend(options);
  bool ran = false;
  for (const char* activations : kActivations) {
    Call call(*backend, "nf4_g64", activations, 3, 128);
    EXPECT_EQ(check(*backend, call, false, ran), "") << activations;
    EXPECT_TRUE(ran) << activations;
    EXPECT_EQ(backend->arithmetic_of(call.args(nullptr, kRows)), Arithmetic::kFloat32);
  }
  if (!backend->caps().avx512_vnni) GTEST_SKIP() << "needs avx512_vnni";
  for (const char* weights : {"int8_channel_sym", "int4_g32_asym"}) {
    const Call call(*backend, weights, "int8_token", 1, 128);
    EXPECT_EQ(backend->arithmetic_of(call.args(nullptr, kRows)), Arithmetic::kInt8);
  }
}

}  // namespace
}  // namespace nibble::test
