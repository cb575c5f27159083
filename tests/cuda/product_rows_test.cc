// Norms and activations that write the form that products read, against float32 rows rounded to it
// afterwards.
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "backends/cuda/kernels/round_rows.h"
#include "backends/cuda/kernels/row_ops.h"
#include "backends/cuda/kernels/token_codes.h"
#include "cuda/device_array.h"
#include "ops/activation.h"

namespace nibble::test {
namespace {

using cuda::ProductRows;
using cuda::RowForm;

constexpr std::int64_t kRows = 9;
constexpr RowForm kForms[] = {RowForm::kBf16, RowForm::kF16, RowForm::kFp8, RowForm::kInt8Codes,
                              RowForm::kFp8Codes};

// Rows of the usual size, tiny, huge and zero; one holds an infinity and one a NaN.
std::vector<float> awkward_rows(std::int64_t cols) {
  std::mt19937 random(static_cast<unsigned>(cols));
  std::normal_distribution<float> normal;
  constexpr float kSizes[kRows] = {1, 0x1p-60f, 0x1p50f, 0, 3, 1, 1, 0x1p-20f, 100};
  std::vector<float> x;
  for (std::int64_t i = 0; i < kRows * cols; ++i) x.push_back(kSizes[i / cols] * normal(random));
  x[static_cast<std::size_t>(5 * cols + cols / 2)] = INFINITY;
  x[static_cast<std::size_t>(6 * cols + cols - 1)] = NAN;
  return x;
}

// Bytes of the form as poison; what is not written shows.
class Formed {
 public:
  Formed(RowForm form, std::int64_t cols)
      : bytes_(cuda::product_bytes(form, kRows, cols)),
        rows_(cuda::product_rows_at(bytes_.data(), form, kRows, cols,
                                    form == RowForm::kInt8Codes ? 127 : 448)) {
    bytes_.fill(0x5a);
  }
  const ProductRows& rows() const { return rows_; }
  std::vector<std::uint8_t> host() const { return bytes_.host(); }

 private:
  DeviceArray<std::uint8_t> bytes_;
  ProductRows rows_;
};

// Of [kRows, cols] of float32.
std::vector<std::uint8_t> rounded(const float* x, RowForm form, std::int64_t cols) {
  const Formed to(form, cols);
  if (form == RowForm::kFp8) {
    const cuda::Fp8Rows args{x,   to.rows().values, to.rows().scales, to.rows().sums, cols, kRows,
                             cols};
    EXPECT_EQ(cudaSuccess, fp8_rows(args, nullptr));
  } else if (has_scales(form)) {
    cuda::TokenCodes args;
    args.x = x;
    args.codes = to.rows().values;
    args.scales = to.rows().scales;
    args.x_stride = args.cols = cols;
    args.rows = kRows;
    args.type = form == RowForm::kInt8Codes ? cuda::ByteType::kInt8 : cuda::ByteType::kFp8;
    args.most = to.rows().most;
    EXPECT_EQ(cudaSuccess, token_codes(args, nullptr));
  } else {
    const cuda::RoundRows args{x, to.rows().values, kRows, cols, cols, form == RowForm::kF16};
    EXPECT_EQ(cudaSuccess, round_rows(args, nullptr));
  }
  return to.host();
}

TEST(ProductRows, NormsRoundWhatTheyWouldWrite) {
  NIBBLE_NEEDS_CUDA();
  for (const std::int64_t cols : {640, 2048, 2176, 4096, 8192}) {
    DeviceArray<float> x(awkward_rows(cols)), weight(awkward_rows(cols)), y(x.size());
    for (const bool centred : {false, true}) {
      cuda::NormRows args;
      args.x = x.data();
      args.weight = weight.data();
      args.bias = centred ? weight.data() + cols : nullptr;
      args.y = y.data();
      args.x_stride = args.y_stride = args.cols = cols;
      args.rows = kRows;
      args.eps = 1e-6f;
      args.centred = centred ? 1 : 0;
      ASSERT_TRUE(norm_holds_rows(args));
      ASSERT_EQ(cudaSuccess, norm_rows(args, nullptr));
      for (const RowForm form : kForms) {
        const Formed to(form, cols);
        args.out = to.rows();
        ASSERT_EQ(cudaSuccess, norm_rows(args, nullptr));
        EXPECT_EQ(rounded(y.data(), form, cols), to.host())
            << cols << ' ' << centred << ' ' << static_cast<int>(form);
      }
      args.out = {};
    }
  }
}

TEST(ProductRows, ActivationsRoundWhatTheyWouldWrite) {
  NIBBLE_NEEDS_CUDA();
  for (const std::int64_t cols : {4, 1152, 14336}) {
    DeviceArray<float> x(awkward_rows(cols)), up(awkward_rows(cols)), y(x.size());
    for (const Activation kind : {Activation::kSilu, Activation::kGelu}) {
      cuda::ActivateRows args;
      args.x = x.data();
      args.multiplier = kind == Activation::kSilu ? up.data() : nullptr;
      args.y = y.data();
      args.x_stride = args.multiplier_stride = args.y_stride = args.cols = cols;
      args.rows = kRows;
      args.kind = static_cast<std::int32_t>(kind);
      args.limit = INFINITY;
      ASSERT_EQ(cudaSuccess, activate_rows(args, nullptr));
      for (const RowForm form : kForms) {
        if (form == RowForm::kFp8 && cols % 128 != 0) continue;
        const Formed to(form, cols);
        args.out = to.rows();
        ASSERT_TRUE(activates_into(form, args));
        ASSERT_EQ(cudaSuccess, activate_rows(args, nullptr));
        EXPECT_EQ(rounded(y.data(), form, cols), to.host())
            << cols << ' ' << static_cast<int>(form);
      }
      args.out = {};
    }
  }
}

TEST(ProductRows, RefuseFormsOfRowsThatDoNotFit) {
  NIBBLE_NEEDS_CUDA();
  DeviceArray<float> x(1024), y(1024);
  cuda::NormRows norm;
  norm.x = x.data();
  norm.y = y.data();
  norm.x_stride = norm.y_stride = norm.cols = 516;
  norm.rows = 1;
  norm.out = cuda::product_rows_at(y.data(), RowForm::kFp8, 1, 516, 448);
  EXPECT_EQ(cudaErrorInvalidValue, norm_rows(norm, nullptr));  // no whole sums
  norm.cols = 256;
  norm.out.form = RowForm::kBf16;
  EXPECT_EQ(cudaErrorInvalidValue, norm_rows(norm, nullptr));  // not in registers
  cuda::ActivateRows activation;
  activation.x = x.data();
  activation.y = y.data();
  activation.x_stride = activation.y_stride = activation.cols = 6;
  activation.rows = 1;
  activation.out = norm.out;
  EXPECT_EQ(cudaErrorInvalidValue, activate_rows(activation, nullptr));
}

}  // namespace
}  // namespace nibble::test
