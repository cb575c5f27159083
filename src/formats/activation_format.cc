#include "formats/activation_format.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <utility>

#include "base/error.h"
#include "base/half.h"
#include "base/suggest.h"
#include "formats/families.h"

namespace nibble {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr std::string_view kGgml = "ggml";
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::string why_not(const ActivationDescriptor& d) {
  const bool integer = d.element.kind == ElementKind::kInt;
  if (d.element.kind == ElementKind::kFloat) return "plain floats are not rounded to";
  const bool table =
      d.element.kind == ElementKind::kFloatBits || d.element.kind == ElementKind::kCodebook;
  if (!integer && !table) {
    return "their elements are stored with weights";
  }
  if (integer && (d.element.bits < 2 || d.element.bits > 8)) return "integers have 2 to 8 bits";
  if (d.element.kind == ElementKind::kFloatBits) {
    if (const std::string reason = why_not(d.element.float_bits); !reason.empty()) return reason;
    if (!d.element.float_bits.has_sign) return "activations need a sign";
  }
  if (!integer && !d.symmetric) return "only integers can be asymmetric";
  if (d.scope == ActivationScope::kGroup && (d.group < 1 || d.group > std::int64_t{1} << 20)) {
    return "groups have 1 to 2^20 columns";
  }
  const bool by_channel = d.scope == ActivationScope::kChannel;
  if (d.is_static && d.scope != ActivationScope::kTensor && !by_channel) {
    return "static scales are for all tokens of a layer: write tensor_static or channel_static";
  }
  if (by_channel && !d.is_static) {
    return "scales by channel come from calibration: write channel_static";
  }
  if (!std::isfinite(d.outlier_threshold) || d.outlier_threshold < 0) {
    return "the threshold of outliers is a positive number";
  }
  if (d.has_outliers() && (d.scope != ActivationScope::kToken || !d.symmetric)) {
    return "outliers go with symmetric scales by token";
  }
  if (d.half_scales && (!integer || !d.symmetric || d.scope != ActivationScope::kGroup)) {
    return "scales of 16 bits go with symmetric integers by group";
  }
  return "";
}

template <class T>
std::optional<T> parse_number(std::string_view text) {
  T value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// One word of a scheme; `kind` says which of them may occur once: symmetry, scope, time, rest.
bool take_word(std::string_view word, ActivationDescriptor& d, bool (&seen)[4]) {
  const auto once = [&seen](int kind) { return !std::exchange(seen[kind], true); };
  if (word == "sym" || word == "asym") {
    d.symmetric = word == "sym";
    return once(0);
  }
  constexpr std::pair<std::string_view, ActivationScope> kScopes[] = {
      {"token", ActivationScope::kToken},
      {"tensor", ActivationScope::kTensor},
      {"channel", ActivationScope::kChannel}};
  for (const auto& [name, scope] : kScopes) {
    if (word != name) continue;
    d.scope = scope;
    return once(1);
  }
  if (word == "static" || word == "dynamic") {
    d.is_static = word == "static";
    return once(2);
  }
  if (word.size() < 2) return false;
  if (word[0] == 'g') {
    const auto group = parse_number<std::int64_t>(word.substr(1));
    if (!group) return false;
    d.scope = ActivationScope::kGroup;
    d.group = *group;
    return once(1);
  }
  if (word == "ow" || word == "sf16") {
    (word == "ow" ? d.weight_outliers : d.half_scales) = true;
    return once(3);
  }
  const auto threshold = parse_number<float>(word.substr(1));
  if (word[0] != 'o' || !threshold || !(*threshold > 0)) return false;
  d.outlier_threshold = *threshold;
  return once(3);
}

ActivationScale given(const AffineParams& params) {
  return {params.scale, 1 / params.scale, params.zero};
}

std::optional<ActivationDescriptor> parse_descriptor(std::string_view text) {
  if (text == kGgml) return ActivationDescriptor{.by_ggml = true};
  std::vector<std::string_view> words;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find('_', begin), text.size());
    words.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  ActivationDescriptor descriptor;
  const std::size_t taken = take_element(words, descriptor.element);
  if (taken == 0) return std::nullopt;
  bool seen[4] = {};
  for (std::size_t i = taken; i < words.size(); ++i) {
    if (!take_word(words[i], descriptor, seen)) return std::nullopt;
  }
  return descriptor;
}

}  // namespace

ActivationFormat::ActivationFormat(const ActivationDescriptor& descriptor)
    : descriptor_(descriptor) {
  if (const std::string reason = why_not(descriptor); !reason.empty()) {
    fail(ErrorKind::kUnsupported, "activation format: {}", reason);
  }
  if (descriptor.element.kind == ElementKind::kFloatBits) {
    table_ = table_of(descriptor.element.float_bits);
  } else if (descriptor.element.kind == ElementKind::kCodebook) {
    table_ = table_of(descriptor.element.codebook);
  }
}

std::string ActivationFormat::name() const {
  const ActivationDescriptor& d = descriptor_;
  if (d.by_ggml) return std::string(kGgml);
  std::string text = element_name(d.element);
  if (!d.symmetric) text += "_asym";
  switch (d.scope) {
    case ActivationScope::kToken:
      text += "_token";
      break;
    case ActivationScope::kTensor:
      text += "_tensor";
      break;
    case ActivationScope::kChannel:
      text += "_channel";
      break;
    case ActivationScope::kGroup:
      text += fmt::format("_g{}", d.group);
      break;
  }
  if (d.is_static) text += "_static";
  if (d.outlier_threshold > 0) text += fmt::format("_o{}", d.outlier_threshold);
  if (d.weight_outliers) text += "_ow";
  if (d.half_scales) text += "_sf16";
  return text;
}

ActivationFormatPtr ActivationFormat::with_scales(std::vector<AffineParams> params) const {
  NIBBLE_CHECK(descriptor_.is_static && !params.empty());
  NIBBLE_CHECK(descriptor_.scope == ActivationScope::kChannel || params.size() == 1);
  const int codes = descriptor_.symmetric ? 1 : 1 << descriptor_.element.bits;
  for (const auto& [scale, zero] : params) {
    if (scale > 0 && scale < kInfinity && zero >= 0 && zero < codes) continue;
    fail(ErrorKind::kCorrupt, "activation scale {} with zero point {} of a {} input", scale, zero,
         name());
  }
  auto result = std::make_shared<ActivationFormat>(*this);
  result->fixed_ = std::move(params);
  return result;
}

ActivationFormatPtr ActivationFormat::with_columns(std::vector<std::int32_t> columns) const {
  NIBBLE_CHECK(descriptor_.weight_outliers && std::ranges::is_sorted(columns));
  auto result = std::make_shared<ActivationFormat>(*this);
  result->columns_ = std::move(columns);
  return result;
}

float ActivationFormat::largest() const {
  return table_ ? table_->max() : static_cast<float>((1 << (descriptor_.element.bits - 1)) - 1);
}

ActivationScale ActivationFormat::scale_over(float lo, float hi) const {
  const int bits = descriptor_.element.bits;
  if (!std::isfinite(lo) || !std::isfinite(hi)) return {kNan, kNan, 0};
  ActivationScale by;
  if (descriptor_.symmetric) {
    const float most = largest();
    const float magnitude = std::max(-lo, hi);
    by.scale = magnitude / most;
    by.inverse = most / magnitude;
    if (descriptor_.half_scales) by.scale = to_float(to_f16(by.scale));
  } else {
    const float most = static_cast<float>((1 << bits) - 1);
    by.scale = hi / most - lo / most;  // hi - lo may be no float32
    by.inverse = 1 / by.scale;
    const float zero = std::nearbyint(-lo / by.scale);
    by.zero = zero > 0 ? static_cast<int>(std::min(zero, most)) : 0;
  }
  return std::isfinite(by.inverse) ? by : ActivationScale();
}

ActivationScale ActivationFormat::scale_of(const float* x, std::int64_t count) const {
  const float threshold = descriptor_.outlier_threshold;
  float lo = 0;
  float hi = 0;
  bool bad = false;
  for (std::int64_t i = 0; i < count; ++i) {
    const float magnitude = std::abs(x[i]);
    bad |= !(magnitude < kInfinity);
    const float value = threshold > 0 && magnitude >= threshold ? 0.0f : x[i];
    lo = value < lo ? value : lo;
    hi = value > hi ? value : hi;
  }
  return bad ? scale_over(-kInfinity, kInfinity) : scale_over(lo, hi);
}

void ActivationFormat::round_span(const ActivationScale& by, const float* x, std::int64_t count,
                                  float* y) const {
  if (by.scale == 0 || std::isnan(by.scale)) {
    std::fill(y, y + count, by.scale);
    return;
  }
  if (table_) {
    for (std::int64_t i = 0; i < count; ++i) {
      // A static scale may leave values that are no numbers.
      y[i] =
          std::isfinite(x[i]) ? by.scale * table_->value(table_->nearest(x[i] / by.scale)) : kNan;
    }
    return;
  }
  const int bits = descriptor_.element.bits;
  const float zero = static_cast<float>(by.zero);
  const float high =
      static_cast<float>(descriptor_.symmetric ? (1 << (bits - 1)) - 1 : (1 << bits) - 1) - zero;
  // A dynamic scale never leads to -high - 1; under a static one engines let values go there.
  const float below = descriptor_.is_static ? 1.0f : 0.0f;
  const float low = descriptor_.symmetric ? -high - below : -zero;
  for (std::int64_t i = 0; i < count; ++i) {
    const float q = std::nearbyint(x[i] * by.inverse);
    const float clamped = q < low ? low : q > high ? high : q;
    y[i] = std::abs(x[i]) < kInfinity ? by.scale * clamped : kNan;
  }
}

ActivationCall ActivationFormat::observe(const float* x, std::int64_t stride, std::int64_t rows,
                                         std::int64_t cols) const {
  ActivationCall call;
  NIBBLE_CHECK(is_complete());
  if (descriptor_.scope == ActivationScope::kChannel) {
    NIBBLE_CHECK(static_cast<std::int64_t>(fixed_.size()) == cols);
    return call;
  }
  if (!fixed_.empty()) {
    call.tensor = given(fixed_.front());
    return call;
  }
  if (columns_) call.outliers = *columns_;
  if (descriptor_.outlier_threshold > 0) {
    std::vector<std::uint8_t> marks(static_cast<std::size_t>(cols));
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t col = 0; col < cols; ++col) {
        const bool reaches = std::abs(x[row * stride + col]) >= descriptor_.outlier_threshold;
        if (reaches) marks[static_cast<std::size_t>(col)] = 1;
      }
    }
    for (std::int64_t col = 0; col < cols; ++col) {
      if (marks[static_cast<std::size_t>(col)] != 0) {
        call.outliers.push_back(static_cast<std::int32_t>(col));
      }
    }
  }
  if (descriptor_.scope == ActivationScope::kTensor) {
    float lo = 0;
    float hi = 0;
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t col = 0; col < cols; ++col) {
        const float value = x[row * stride + col];
        if (!std::isfinite(value)) lo = -kInfinity;
        lo = std::min(lo, value);
        hi = std::max(hi, value);
      }
    }
    call.tensor = scale_over(lo, hi);
  }
  return call;
}

void ActivationFormat::round_row(const ActivationCall& call, const float* x, std::int64_t cols,
                                 float* y) const {
  if (descriptor_.scope == ActivationScope::kTensor) return round_span(call.tensor, x, cols, y);
  if (descriptor_.scope == ActivationScope::kChannel) {
    for (std::int64_t col = 0; col < cols; ++col) {
      round_span(given(fixed_[static_cast<std::size_t>(col)]), x + col, 1, y + col);
    }
    return;
  }
  if (descriptor_.scope == ActivationScope::kGroup) {
    for (std::int64_t begin = 0; begin < cols; begin += descriptor_.group) {
      const std::int64_t count = std::min(descriptor_.group, cols - begin);
      round_span(scale_of(x + begin, count), x + begin, count, y + begin);
    }
    return;
  }
  std::vector<float> kept;
  for (const std::int32_t col : call.outliers) kept.push_back(x[col]);
  if (columns_ && !kept.empty()) {  // of a threshold, scale_of() leaves them out by their size
    if (y != x) std::copy_n(x, cols, y);
    for (const std::int32_t col : call.outliers) y[col] = 0;
    x = y;
  }
  round_span(scale_of(x, cols), x, cols, y);
  for (std::size_t i = 0; i < kept.size(); ++i) y[call.outliers[i]] = kept[i];
}

void ActivationFormat::round(const float* x, std::int64_t x_stride, std::int64_t rows,
                             std::int64_t cols, float* y, std::int64_t y_stride) const {
  const ActivationCall call = observe(x, x_stride, rows, cols);
  for (std::int64_t row = 0; row < rows; ++row) {
    round_row(call, x + row * x_stride, cols, y + row * y_stride);
  }
}

ActivationFormatPtr parse_activation_format(std::string_view text) {
  if (plain_float_named(text)) return nullptr;
  constexpr std::size_t kMaxText = 256;
  std::string words(text.substr(0, kMaxText));
  std::ranges::replace(words, ':', '_');
  const auto descriptor = text.size() <= kMaxText ? parse_descriptor(words) : std::nullopt;
  if (!descriptor) {
    const std::vector<std::string> names = {"int8_token",
                                            "int8_tensor",
                                            "int8_g128",
                                            "int8_tensor_static",
                                            "int8_asym_tensor_static",
                                            "int8_channel_static",
                                            "int8_token_o6",
                                            "int8_asym_token",
                                            "int4_token",
                                            "fp8_e4m3_token",
                                            "fp8_e4m3_tensor",
                                            "fp8_e4m3_g128",
                                            "fp8_e5m2_token",
                                            "fp4_e2m1_token",
                                            "fp4_e2m1_g32",
                                            "nf4_g64",
                                            "int8_g32_sf16",
                                            std::string(kGgml)};
    fail(ErrorKind::kUsage, "activation format '{}' is unknown{} (see docs/formats.md)", words,
         did_you_mean(words, names));
  }
  return std::make_shared<ActivationFormat>(*descriptor);
}

}  // namespace nibble
