#include "formats/table_scales.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "base/memory.h"
#include "formats/float_planes.h"
#include "formats/group_layout.h"
#include "formats/table_format.h"

namespace nibble {
namespace {

constexpr int kE8M0Bias = 127;
constexpr int kE8M0Largest = 127;  // 2^127; the code above it is NaN

// A matrix whose scales are chosen.
struct Source {
  const CodeTable& table;
  const Scheme& scheme;
  GroupLayout layout;
  const float* w;
  std::int64_t rows;
  const Codec& codec;
};

// to[i] = of(i), sixteen at a time, which compilers make vectors of.
template <class T, class Of>
void fill(T* to, std::int64_t count, const Of& of) {
  constexpr std::int64_t kAtOnce = 16;
  std::int64_t i = 0;
  for (; i + kAtOnce <= count; i += kAtOnce) {
    T part[kAtOnce];
    for (std::int64_t k = 0; k < kAtOnce; ++k) part[k] = of(i + k);
    std::memcpy(to + i, part, sizeof(part));
  }
  for (; i < count; ++i) to[i] = of(i);
}

// The largest magnitude of each group; kCorrupt when some w is not finite.
std::vector<float> magnitudes_of(const std::string& name, const Source& source) {
  const GroupLayout& layout = source.layout;
  const auto groups_in_all = static_cast<std::size_t>(source.rows * layout.per_row);
  auto absmax = with_room<float>(groups_in_all);
  absmax.resize(groups_in_all);
  std::atomic<bool> finite = true;
  source.codec.for_rows(source.rows, layout.cols, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      layout.for_lengths(
          [&](std::int64_t group, std::int64_t groups, std::int64_t length, std::int64_t col) {
            if (!source.codec.spans->magnitudes(source.w + row * layout.cols + col, groups, length,
                                                absmax.data() + row * layout.per_row + group)) {
              finite = false;
            }
          });
    }
  });
  if (!finite) require_finite(name, source.w, source.rows, layout.cols);
  merge_rows(layout, source.rows, absmax, [](float a, float b) { return std::max(a, b); });
  return absmax;
}

// The mean magnitude of each group; 0 for groups of zeros, which no code but that of 0 has.
std::vector<float> means_of(const Source& source) {
  const GroupLayout& layout = source.layout;
  std::vector<double> parts(static_cast<std::size_t>(source.rows * layout.per_row));
  source.codec.for_rows(source.rows, layout.cols, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      layout.for_lengths(
          [&](std::int64_t group, std::int64_t groups, std::int64_t length, std::int64_t col) {
            source.codec.spans->magnitude_sums(source.w + row * layout.cols + col, groups, length,
                                               parts.data() + row * layout.per_row + group);
          });
    }
  });
  const std::int64_t last = layout.first(source.rows - 1) + layout.per_row;
  std::vector<double> sums(static_cast<std::size_t>(last));
  std::vector<std::int64_t> counts(sums.size());
  for (std::int64_t row = 0; row < source.rows; ++row) {
    for (std::int64_t g = 0; g < layout.per_row; ++g) {
      const auto at = static_cast<std::size_t>(layout.first(row) + g);
      sums[at] += parts[static_cast<std::size_t>(row * layout.per_row + g)];
      counts[at] += std::min(layout.length, layout.cols - g * layout.length);
    }
  }
  std::vector<float> means(sums.size());
  for (std::size_t i = 0; i < means.size(); ++i) {
    means[i] = static_cast<float>(sums[i] / static_cast<double>(counts[i]));
  }
  return means;
}

// Squared errors of each group under one of two sets of scales, [scale rows, per_row] each.
struct Errors {
  std::vector<double> first;
  std::vector<double> second;
};

// What errors of rows are worked out in.
class ErrorRows {
 public:
  explicit ErrorRows(const Source& source)
      : source_(source),
        codes_(static_cast<std::size_t>(source.layout.cols)),
        values_(static_cast<std::size_t>(source.layout.cols)),
        part_(static_cast<std::size_t>(source.layout.per_row)) {}

  // Adds the errors of a row to those of its groups.
  void add(std::int64_t row, const std::vector<float>& scales, std::vector<double>& errors) {
    const GroupLayout& layout = source_.layout;
    const SpanKernels& spans = *source_.codec.spans;
    const TableView table = source_.table.view();
    layout.for_lengths(
        [&](std::int64_t group, std::int64_t groups, std::int64_t length, std::int64_t col) {
          const float* from = source_.w + row * layout.cols + col;
          const float* scale = scales.data() + layout.first(row) + group;
          spans.table_codes(table, scale, from, groups, length, codes_.data());
          spans.table_values(table, scale, codes_.data(), groups, length, values_.data());
          spans.squared_errors(values_.data(), from, groups, length, part_.data());
          double* const sums = errors.data() + layout.first(row) + group;
          for (std::int64_t g = 0; g < groups; ++g) sums[g] += part_[static_cast<std::size_t>(g)];
        });
  }

 private:
  const Source& source_;
  std::vector<std::uint8_t> codes_;
  std::vector<float> values_;
  std::vector<double> part_;
};

Errors errors_of(const Source& source, const std::vector<float>& first,
                 const std::vector<float>& second) {
  Errors errors{std::vector<double>(first.size()), std::vector<double>(first.size())};
  const std::int64_t per = source.layout.rows_per;
  const std::int64_t scale_rows = (source.rows + per - 1) / per;
  source.codec.for_rows(
      scale_rows, per * source.layout.cols, [&](std::int64_t begin, std::int64_t end) {
        ErrorRows rows(source);
        for (std::int64_t r = begin * per; r < std::min(source.rows, end * per); ++r) {
          rows.add(r, first, errors.first);
          rows.add(r, second, errors.second);
        }
      });
  return errors;
}

// floor(log2 x) for normal x > 0.
int floor_log2(double x) { return static_cast<int>(std::bit_cast<std::uint64_t>(x) >> 52) - 1023; }

int ceil_log2(double x) {
  const int below = floor_log2(x);
  return below + ((std::bit_cast<std::uint64_t>(x) << 12) != 0 ? 1 : 0);
}

std::uint8_t e8m0_code(int exponent) {
  return static_cast<std::uint8_t>(std::clamp(exponent, -kE8M0Bias, kE8M0Largest) + kE8M0Bias);
}

float e8m0_value(std::uint8_t code) {
  if (code == 255) return std::numeric_limits<float>::quiet_NaN();
  // 2^-127 is no normal float32.
  return std::bit_cast<float>(code == 0 ? 0x00400000u : static_cast<std::uint32_t>(code) << 23);
}

// Which groups have less error under the second of two sets of scales.
struct Better {
  std::vector<std::uint8_t> second;
  Tensor codes;  // the plane under the better ones; empty where rows share scales
};

// both(at, count, first, second) are the scales of `count` groups from `at` on, counted over the
// whole matrix, at most kScalesAtOnce.
constexpr std::int64_t kScalesAtOnce = 256;
template <class Both>
Better better_of(const Source& source, std::int64_t scales, const Both& both) {
  const GroupLayout& layout = source.layout;
  Better better{std::vector<std::uint8_t>(static_cast<std::size_t>(scales)), {}};
  if (layout.rows_per > 1) {
    std::vector<float> first(better.second.size()), second(better.second.size());
    for (std::int64_t at = 0; at < scales; at += kScalesAtOnce) {
      both(at, std::min(kScalesAtOnce, scales - at), first.data() + at, second.data() + at);
    }
    const Errors errors = errors_of(source, first, second);
    for (std::size_t i = 0; i < first.size(); ++i) {
      better.second[i] = errors.second[i] < errors.first[i] ? 1 : 0;
    }
    return better;
  }
  const int bits = source.table.bits();
  better.codes = Tensor::allocate(DType::kI32, {source.rows, words_per_row(bits, layout.cols)});
  encode_rows(layout, source.rows, bits, better.codes.mutable_data<std::uint32_t>(), source.codec,
              [&](std::int64_t row, std::int64_t group, std::int64_t groups, std::int64_t length,
                  std::int64_t col, std::uint8_t* codes) {
                const float* w = source.w + row * layout.cols + col;
                float first[kScalesAtOnce], second[kScalesAtOnce];
                for (std::int64_t g = 0; g < groups; g += kScalesAtOnce) {
                  const std::int64_t at = layout.first(row) + group + g;
                  const std::int64_t count = std::min(kScalesAtOnce, groups - g);
                  both(at, count, first, second);
                  source.codec.spans->better_codes(source.table.view(), first, second,
                                                   w + g * length, count, length,
                                                   codes + g * length, better.second.data() + at);
                }
              });
  return better;
}

// Codes of the second set where they are better; neither is the likelier one to branch to.
void take_second(const std::vector<std::uint8_t>& better, const std::vector<std::uint8_t>& second,
                 std::vector<std::uint8_t>& codes) {
  std::uint8_t* const to = codes.data();
  fill(to, static_cast<std::int64_t>(codes.size()), [&, to](std::int64_t i) {
    const int mask = -better.data()[i];
    return static_cast<std::uint8_t>((second.data()[i] & mask) | (to[i] & ~mask));
  });
}

Tensor bytes_of(const std::vector<std::uint8_t>& codes, DType type, const Shape& shape) {
  Tensor plane = Tensor::allocate(type, shape);
  std::ranges::copy(codes, plane.mutable_data<std::uint8_t>());
  return plane;
}

ChosenScales shared_exponents(const Source& source, const std::vector<float>& absmax,
                              const Shape& shape) {
  const ScaleRule rule = source.scheme.rule;
  const double top = double{source.table.max()};
  const int below = floor_log2(top);
  const auto count = static_cast<std::int64_t>(absmax.size());
  // of(magnitude) is an exponent; groups of zeros have a scale of 1.
  const auto codes_of = [&](const auto& of) {
    std::vector<std::uint8_t> codes(absmax.size());
    fill(codes.data(), count, [&, from = absmax.data()](std::int64_t i) {
      const std::uint8_t code = e8m0_code(of(double{from[i]}));
      return from[i] == 0 ? e8m0_code(0) : code;
    });
    return codes;
  };
  std::vector<std::uint8_t> low, high;
  if (rule != ScaleRule::kCeil) {
    low = codes_of([&](double largest) { return floor_log2(largest) - below; });
  }
  if (rule != ScaleRule::kFloor) {
    high = codes_of([&](double largest) { return ceil_log2(largest / top); });
  }
  if (rule == ScaleRule::kFloor) return {{bytes_of(low, DType::kF8E8M0, shape)}, {}};
  if (rule == ScaleRule::kCeil) return {{bytes_of(high, DType::kF8E8M0, shape)}, {}};
  const auto values_of = [](const std::uint8_t* codes, std::int64_t n, float* values) {
    std::transform(codes, codes + n, values, e8m0_value);
  };
  const Better better =
      better_of(source, count, [&](std::int64_t at, std::int64_t n, float* first, float* second) {
        values_of(low.data() + at, n, first);
        values_of(high.data() + at, n, second);
      });
  take_second(better.second, high, low);
  return {{bytes_of(low, DType::kF8E8M0, shape)}, better.codes};
}

float smallest_positive(DType type) {
  if (type == DType::kF16) return to_float(f16{1});
  if (type == DType::kBF16) return to_float(bf16{1});
  return std::numeric_limits<float>::denorm_min();
}

// Numbers as a type holds them, and back.
void through_type(std::vector<float>& numbers, Tensor& plane, const SpanKernels& spans) {
  const auto count = static_cast<std::int64_t>(numbers.size());
  write_floats(numbers.data(), 0, count, plane, spans);
  read_floats(plane, 0, count, numbers.data(), spans);
}

Tensor float_scales(std::vector<float> scales, const std::vector<float>& absmax, DType type,
                    const Shape& shape, const SpanKernels& spans) {
  Tensor plane = Tensor::allocate(type, shape);
  through_type(scales, plane, spans);
  bool changed = false;
  for (std::size_t i = 0; i < scales.size(); ++i) {
    if (!std::isfinite(scales[i])) {
      fail(ErrorKind::kUnsupported, "weights up to {} need a scale beyond {}; use scales in F32",
           absmax[i], to_string(type));
    }
    // A range too small for the type still needs a scale that is not zero.
    if (scales[i] == 0 && absmax[i] > 0) {
      scales[i] = smallest_positive(type);
      changed = true;
    }
  }
  if (changed) through_type(scales, plane, spans);
  return plane;
}

Tensor scalar(float value) { return from_float(&value, DType::kF32, {1, 1}); }

// Scales in E4M3 that times `whole` bring magnitudes to `top`: codes of at least 1, for no scale is
// zero.
struct TensorScales {
  float whole;
  const SpanKernels& spans;

  void codes(const float* absmax, std::int64_t count, float top, std::uint8_t* to) const {
    float wanted[kScalesAtOnce];
    for (std::int64_t at = 0; at < count; at += kScalesAtOnce) {
      const std::int64_t part = std::min(kScalesAtOnce, count - at);
      fill(wanted, part, [&](std::int64_t i) { return absmax[at + i] / top; });
      spans.table_codes(e4m3_table().view(), &whole, wanted, 1, part, to + at);
    }
    const std::uint8_t one = e4m3_table().nearest(1.0f);
    const auto next_zero = [end = to + count](std::uint8_t* from) {
      const auto left = static_cast<std::size_t>(end - from);
      return static_cast<std::uint8_t*>(std::memchr(from, 0, left));
    };
    for (std::uint8_t* at = next_zero(to); at != nullptr; at = next_zero(at + 1)) {
      *at = absmax[at - to] == 0 ? one : 1;
    }
  }
  void values(const std::uint8_t* codes, std::int64_t count, float* to) const {
    spans.table_values(e4m3_table().view(), &whole, codes, 1, count, to);
  }
};

// Second level kTensor: E4M3 multiples of one F32. With a choice of two scales a group, the larger
// is half as large again, so the F32 leaves room for it.
ChosenScales scales_of_tensor(const Source& source, const std::vector<float>& absmax,
                              const Shape& shape) {
  const bool choice = source.scheme.rule == ScaleRule::kFourOverSix;
  const float top = source.table.max();
  const float largest = choice ? 256.0f : e4m3_table().max();
  float all = 0;
  source.codec.spans->magnitudes(absmax.data(), 1, static_cast<std::int64_t>(absmax.size()), &all);
  float whole = all / (largest * top);
  if (whole == 0) whole = all == 0 ? 1.0f : std::numeric_limits<float>::denorm_min();

  const TensorScales scales{whole, *source.codec.spans};
  const auto count = static_cast<std::int64_t>(absmax.size());
  std::vector<std::uint8_t> codes(absmax.size());
  if (!choice) {
    scales.codes(absmax.data(), count, top, codes.data());
    return {{bytes_of(codes, DType::kF8E4M3, shape), scalar(whole)}, {}};
  }
  std::vector<std::uint8_t> others(codes.size());
  const Better better =
      better_of(source, count, [&](std::int64_t at, std::int64_t n, float* first, float* second) {
        scales.codes(absmax.data() + at, n, top, codes.data() + at);
        scales.codes(absmax.data() + at, n, 4.0f, others.data() + at);
        scales.values(codes.data() + at, n, first);
        scales.values(others.data() + at, n, second);
      });
  take_second(better.second, others, codes);
  return {{bytes_of(codes, DType::kF8E4M3, shape), scalar(whole)}, better.codes};
}

// Second level kDynamic. The mean is taken off, so that the signed map is used on both sides.
std::vector<Tensor> dynamic_scales(const std::vector<float>& scales, const Shape& shape,
                                   const SpanKernels& spans) {
  double sum = 0;
  for (const float scale : scales) sum += double{scale};
  const auto count = static_cast<std::int64_t>(scales.size());
  const auto mean = static_cast<float>(sum / static_cast<double>(count));
  const std::int64_t blocks = (count + kScaleBlock - 1) / kScaleBlock;
  Tensor codes = Tensor::allocate(DType::kU8, shape);
  std::vector<float> offsets(scales.size());
  std::vector<float> block_scales(static_cast<std::size_t>(blocks));
  for (std::size_t i = 0; i < scales.size(); ++i) {
    offsets[i] = scales[i] - mean;
    float& largest = block_scales[i / kScaleBlock];
    largest = std::max(largest, std::abs(offsets[i]));
  }
  for (std::int64_t b = 0; b < blocks; ++b) {
    const std::int64_t begin = b * kScaleBlock;
    spans.table_codes(dynamic_map().view(), &block_scales[static_cast<std::size_t>(b)],
                      offsets.data() + begin, 1, std::min(kScaleBlock, count - begin),
                      codes.mutable_data<std::uint8_t>() + begin);
  }
  return {std::move(codes), from_float(block_scales.data(), DType::kF32, {1, blocks}),
          scalar(mean)};
}

}  // namespace

std::string why_no_scales(const CodeTable& table, const Scheme& scheme) {
  const bool shared = scheme.rule == ScaleRule::kFloor || scheme.rule == ScaleRule::kCeil ||
                      scheme.rule == ScaleRule::kLeastError;
  if (shared != (scheme.scale_type == DType::kF8E8M0)) {
    return "floor, ceil and best are rules for scales in e8m0, which need one";
  }
  const bool eight_bits = scheme.scale_type == DType::kF8E4M3;
  if (eight_bits != (scheme.second_level == SecondLevel::kTensor) ||
      (scheme.scale_type == DType::kU8) != (scheme.second_level == SecondLevel::kDynamic)) {
    return "scales of 8 bits need a second level";
  }
  if (scheme.rule == ScaleRule::kStrict || scheme.rule == ScaleRule::kFull) {
    return "strict and full are rules for integers";
  }
  if (scheme.rule == ScaleRule::kMean && table.bits() > 2) {
    return "mean is a rule for binary and ternary elements";
  }
  if (scheme.rule == ScaleRule::kFourOverSix && (!eight_bits || table.max() != 6)) {
    return "4over6 is a choice between scales in e4m3 of elements up to 6";
  }
  if (scheme.scale_type != DType::kF8E8M0 && scheme.second_level == SecondLevel::kNone &&
      !is_float_weight(scheme.scale_type)) {
    return fmt::format("scales cannot be stored as {}", to_string(scheme.scale_type));
  }
  return "";
}

std::vector<PlaneSpec> scale_planes(const Scheme& scheme, std::int64_t rows, std::int64_t cols) {
  const Shape shape = group_shape(scheme, rows, cols);
  std::vector<PlaneSpec> planes = {{"scales", scheme.scale_type, shape}};
  if (scheme.second_level == SecondLevel::kTensor) {
    planes.push_back({"tensor_scale", DType::kF32, {1, 1}});
  }
  if (scheme.second_level == SecondLevel::kDynamic) {
    const std::int64_t blocks = (element_count(shape) + kScaleBlock - 1) / kScaleBlock;
    planes.push_back({"block_scales", DType::kF32, {1, blocks}});
    planes.push_back({"mean", DType::kF32, {1, 1}});
  }
  return planes;
}

ChosenScales choose_scales(const Format& format, const CodeTable& table, const float* w,
                           std::int64_t rows, std::int64_t cols, const Codec& codec) {
  const Scheme& scheme = format.descriptor().scheme;
  const Shape shape = group_shape(scheme, rows, cols);
  const Source source{table, scheme, layout_of(scheme, rows, cols), w, rows, codec};
  const std::vector<float> absmax = magnitudes_of(format.name(), source);
  if (scheme.second_level == SecondLevel::kTensor) return scales_of_tensor(source, absmax, shape);
  if (scheme.scale_type == DType::kF8E8M0) return shared_exponents(source, absmax, shape);
  if (scheme.rule == ScaleRule::kMean) {
    return {{float_scales(means_of(source), absmax, scheme.scale_type, shape, *codec.spans)}, {}};
  }
  std::vector<float> scales(absmax.size());
  const bool dynamic = scheme.second_level == SecondLevel::kDynamic;
  for (std::size_t i = 0; i < scales.size(); ++i) {
    // Scales of 1 would draw the mean away from those that matter.
    scales[i] = absmax[i] == 0 && !dynamic ? 1.0f : absmax[i] / table.max();
  }
  if (dynamic) return {dynamic_scales(scales, shape, *codec.spans), {}};
  return {{float_scales(std::move(scales), absmax, scheme.scale_type, shape, *codec.spans)}, {}};
}

std::vector<float> scale_bytes(const Scheme& scheme) {
  std::vector<float> values;
  if (dtype_size(scheme.scale_type) > 1) return values;
  for (int code = 0; code < 256; ++code) {
    switch (scheme.second_level) {
      case SecondLevel::kNone:
        values.push_back(e8m0_value(static_cast<std::uint8_t>(code)));
        break;
      case SecondLevel::kTensor:
        values.push_back(e4m3_table().value(code));
        break;
      case SecondLevel::kDynamic:
        values.push_back(dynamic_map().value(code));
        break;
    }
  }
  return values;
}

void scales_at(const QuantTensor& tensor, std::int64_t first, std::int64_t count, float* scales,
               const SpanKernels& spans) {
  const Scheme& scheme = tensor.format->descriptor().scheme;
  const Tensor& stored = tensor.planes[1];
  if (dtype_size(stored.dtype()) > 1) return read_floats(stored, first, count, scales, spans);
  const auto* codes = reinterpret_cast<const std::uint8_t*>(stored.bytes().data()) + first;
  if (scheme.second_level == SecondLevel::kNone) {
    std::transform(codes, codes + count, scales, e8m0_value);
    return;
  }
  if (scheme.second_level == SecondLevel::kTensor) {
    float whole = 0;
    to_float(tensor.planes[2], 0, 1, &whole);
    return spans.table_values(e4m3_table().view(), &whole, codes, 1, count, scales);
  }
  float mean = 0;
  to_float(tensor.planes[3], 0, 1, &mean);
  for (std::int64_t i = 0; i < count; ++i) {
    float block = 0;
    to_float(tensor.planes[2], (first + i) / kScaleBlock, 1, &block);
    const float offset = dynamic_map().value(codes[i]) * block;
    scales[i] = offset + mean;
  }
}

}  // namespace nibble
