#include "formats/mixed_encode.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "base/half.h"
#include "formats/affine.h"
#include "formats/families.h"

namespace nibble {
namespace {

constexpr int kScaleSteps = 16;

float rounded_to_half(float x) { return to_float(to_f16(x)); }

// A group of a matrix while it is encoded: its columns side by side, and what their errors weigh.
class GroupEncoder {
 public:
  GroupEncoder(int bits, std::int64_t rows, std::int64_t count, std::vector<float> w,
               std::vector<float> weights)
      : bits_(bits), rows_(rows), count_(count), w_(std::move(w)), weights_(std::move(weights)) {}

  // Chooses `scale_max` and the codes of all rows' scales.
  float choose(std::span<std::uint8_t> scale_codes) {
    needs_.resize(static_cast<std::size_t>(rows_));
    float most = 0;
    for (std::int64_t row = 0; row < rows_; ++row) {
      float absmax = 0;
      for (std::int64_t i = 0; i < count_; ++i) absmax = std::max(absmax, std::abs(at(row)[i]));
      needs_[static_cast<std::size_t>(row)] = absmax * 2 / static_cast<float>((1 << bits_) - 1);
      most = std::max(most, needs_[static_cast<std::size_t>(row)]);
    }
    const float scale_max = best_max(most, scale_codes);
    for (std::int64_t row = 0; row < rows_; ++row) {
      std::uint8_t& code = scale_codes[static_cast<std::size_t>(row)];
      code = best_code(row, code, scale_max);
    }
    return scale_max;
  }

  const float* at(std::int64_t row) const { return w_.data() + row * count_; }

 private:
  float best_max(float most, std::span<std::uint8_t> scale_codes) const {
    for (std::size_t row = 0; row < needs_.size(); ++row) {
      const float part = most > 0 ? std::sqrt(needs_[row] / most) : 0;
      const float step = std::clamp(std::nearbyint(part * kScaleSteps), 1.0f, float{kScaleSteps});
      scale_codes[row] = static_cast<std::uint8_t>(step - 1);
    }
    constexpr int kTried = 26;
    float best = 0;
    double least = std::numeric_limits<double>::infinity();
    for (int i = 0; i < kTried; ++i) {
      const float tried = rounded_to_half(most * (0.7f + 0.02f * static_cast<float>(i)));
      double sum = 0;
      for (std::int64_t row = 0; row < rows_ && sum < least; ++row) {
        sum += error(row, mixed_scale(scale_codes[static_cast<std::size_t>(row)], tried));
      }
      if (sum < least) {
        least = sum;
        best = tried;
      }
    }
    return best;
  }

  std::uint8_t best_code(std::int64_t row, int first, float scale_max) const {
    constexpr int kReach = 2;
    int best = first;
    double least = error(row, mixed_scale(first, scale_max));
    for (int code = std::max(0, first - kReach); code <= std::min(kScaleSteps - 1, first + kReach);
         ++code) {
      const double tried = error(row, mixed_scale(code, scale_max));
      if (tried < least) {
        least = tried;
        best = code;
      }
    }
    return static_cast<std::uint8_t>(best);
  }

  double error(std::int64_t row, float scale) const {
    const float* x = at(row);
    const float inverse = scale > 0 ? 1 / scale : 0;
    const auto zero = static_cast<float>(1 << (bits_ - 1));
    double sum = 0;
    for (std::int64_t i = 0; i < count_; ++i) {
      const float code = std::clamp(std::nearbyint(x[i] * inverse), -zero, zero - 1);
      const float miss = x[i] - code * scale;
      sum += double{weights_[static_cast<std::size_t>(i)]} * double{miss * miss};
    }
    return sum;
  }

  int bits_;
  std::int64_t rows_, count_;
  std::vector<float> w_;        // [rows, count]
  std::vector<float> weights_;  // [count]
  std::vector<float> needs_;    // [rows], the step that the largest weight of a row needs
};

class MatrixEncoder {
 public:
  MatrixEncoder(const FormatPtr& format, const float* w, std::int64_t rows, std::int64_t cols,
                const Codec& codec)
      : w_(w), codec_(codec), runs_(mixed_runs(*format, cols)), result_{format, rows, cols, {}} {
    for (const PlaneSpec& plane : format->planes(rows, cols)) {
      result_.planes.push_back(Tensor::allocate(plane.dtype, plane.shape));
    }
    order_ = columns_by_weight(w, rows, cols, codec.importance);
  }

  QuantTensor run() {
    auto* places = result_.planes[3].mutable_data<std::int32_t>();
    for (std::size_t place = 0; place < order_.size(); ++place) {
      places[order_[place]] = static_cast<std::int32_t>(place);
    }
    const std::int64_t groups = mixed_groups(runs_);
    std::vector<std::uint8_t> scale_codes(static_cast<std::size_t>(groups * result_.rows));
    std::vector<float> maxima(static_cast<std::size_t>(groups));
    for (const MixedRun& run : runs_) {
      codec_.for_rows(run.groups, result_.rows * run.group, [&](std::int64_t a, std::int64_t b) {
        for (std::int64_t g = a; g < b; ++g) {
          const std::int64_t index = run.first_group + g;
          const std::span codes(scale_codes.data() + index * result_.rows,
                                static_cast<std::size_t>(result_.rows));
          maxima[static_cast<std::size_t>(index)] = encode_group(run, g, codes);
        }
      });
    }
    store_scales(scale_codes, maxima);
    return std::move(result_);
  }

 private:
  // Returns scale_max.
  float encode_group(const MixedRun& run, std::int64_t g, std::span<std::uint8_t> scale_codes) {
    const std::int64_t begin = run.begin + g * run.group;
    const std::int64_t count = std::min(run.group, run.end - begin);
    std::vector<float> part, weights;
    part.reserve(static_cast<std::size_t>(result_.rows * count));
    for (std::int64_t row = 0; row < result_.rows; ++row) {
      for (std::int64_t i = 0; i < count; ++i) {
        part.push_back(w_[row * result_.cols + order_[static_cast<std::size_t>(begin + i)]]);
      }
    }
    for (std::int64_t i = 0; i < count; ++i) {
      const auto col = static_cast<std::size_t>(order_[static_cast<std::size_t>(begin + i)]);
      weights.push_back(codec_.importance.empty() ? 1.0f : codec_.importance[col]);
    }
    GroupEncoder encoder(run.bits, result_.rows, count, std::move(part), std::move(weights));
    const float scale_max = encoder.choose(scale_codes);
    const std::int64_t words = result_.planes[0].dim(1);
    std::uint32_t* out = result_.planes[0].mutable_data<std::uint32_t>() + run.word +
                         words_per_row(run.bits, g * run.group);
    const int zero = 1 << (run.bits - 1);
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(count));
    for (std::int64_t row = 0; row < result_.rows; ++row, out += words) {
      const float scale = mixed_scale(scale_codes[static_cast<std::size_t>(row)], scale_max);
      if (scale > 0) {
        codec_.spans->affine_codes(run.bits, &scale, &zero, encoder.at(row), 1, count,
                                   codes.data());
      } else {
        std::ranges::fill(codes, static_cast<std::uint8_t>(zero));
      }
      pack_codes(codes, run.bits, out, *codec_.spans);
    }
    return scale_max;
  }

  void store_scales(const std::vector<std::uint8_t>& codes, const std::vector<float>& maxima) {
    Tensor& packed = result_.planes[1];
    std::memset(packed.address(), 0, packed.byte_size());
    auto* pairs = packed.mutable_data<std::uint8_t>();
    for (std::size_t group = 0; group < maxima.size(); ++group) {
      if (!std::isfinite(maxima[group])) {
        fail(ErrorKind::kUnsupported, "{}: weights beyond what scales in F16 reach",
             result_.format->name());
      }
      for (std::int64_t row = 0; row < result_.rows; ++row) {
        const int code =
            codes[group * static_cast<std::size_t>(result_.rows) + static_cast<std::size_t>(row)];
        std::uint8_t& pair = pairs[row * packed.dim(1) + static_cast<std::int64_t>(group / 2)];
        pair = static_cast<std::uint8_t>(pair | (group % 2 == 0 ? code : code << 4));
      }
    }
    result_.planes[2] = from_float(maxima.data(), DType::kF16, result_.planes[2].shape());
  }

  const float* w_;
  const Codec& codec_;
  std::vector<MixedRun> runs_;
  QuantTensor result_;
  std::vector<std::int32_t> order_;  // the column at each place
};

}  // namespace

float mixed_scale(int code, float scale_max) {
  const auto square = static_cast<float>((code + 1) * (code + 1));
  return rounded_to_half(square * rounded_to_half(scale_max / 256));
}

QuantTensor mixed_encode(const FormatPtr& format, const float* w, std::int64_t rows,
                         std::int64_t cols, const Codec& codec) {
  return MatrixEncoder(format, w, rows, cols, codec).run();
}

}  // namespace nibble
