#include "quantize/math/grids.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "formats/table_format.h"

namespace nibble {
namespace {

std::vector<AffineParams> full_ranges(const Format& format, const float* w, std::int64_t rows,
                                      std::int64_t cols, std::int64_t length) {
  const bool whole = format.descriptor().scheme.granularity == Granularity::kTensor;
  const std::int64_t count = whole ? rows * cols : length;
  std::vector<AffineParams> params;
  for (const float* group = w; group < w + rows * cols; group += count) {
    const auto [lo, hi] = std::minmax_element(group, group + count);
    params.push_back(affine_params(format.descriptor(), *lo, *hi));
  }
  return params;
}

}  // namespace

WeightGrids::WeightGrids(const FormatPtr& format, const float* w, std::int64_t rows,
                         std::int64_t cols)
    : format_(format),
      rows_(rows),
      cols_(cols),
      length_(cols / nibble::groups_per_row(format->descriptor().scheme, cols)) {
  const ElementKind kind = format->descriptor().element.kind;
  if (!format->is_affine() && kind != ElementKind::kFloatBits && kind != ElementKind::kCodebook) {
    fail(ErrorKind::kUnsupported,
         "{}: weights have no grids of their own to search or to smooth by; take 'rtn', or "
         "'gptq' for a trellis",
         format->name());
  }
  if (format->is_affine()) {
    params_ = full_ranges(*format, w, rows, cols, length_);
    return;
  }
  like_ = format->encode(w, rows, cols);
  scales_ = table_scales_of(like_);
}

std::size_t WeightGrids::index(std::int64_t row, std::int64_t begin) const {
  if (format_->descriptor().scheme.granularity == Granularity::kTensor) return 0;
  return static_cast<std::size_t>(row * groups_per_row() + begin / length_);
}

void WeightGrids::round(std::int64_t row, std::int64_t begin, std::int64_t count, const float* w,
                        float* out) const {
  if (format_->is_affine()) {
    affine_round_trip(format_->descriptor(), params_[index(row, begin)], w, count, out);
    return;
  }
  const CodeTable& table = table_of(*format_);
  const float scale = scales_[index(row, begin)];
  for (std::int64_t i = 0; i < count; ++i) {
    out[i] = scale > 0 ? table.value(table.nearest(w[i] / scale)) * scale : 0;
  }
}

bool WeightGrids::has_scales() const {
  return format_->is_affine() && groups_are_independent(format_->descriptor().scheme);
}

void WeightGrids::set_scale(std::int64_t row, std::int64_t group, float scale) {
  NIBBLE_CHECK(has_scales() && scale > 0);
  const DType type = format_->descriptor().scheme.scale_type;
  to_float(from_float(&scale, type, {1}), 0, 1, &scale);
  if (scale > 0) params_[index(row, group * length_)].scale = scale;
}

void WeightGrids::take_group(std::int64_t row, std::int64_t group, const WeightGrids& from,
                             std::int64_t from_row) {
  NIBBLE_CHECK(groups_are_independent(format_->descriptor().scheme) && from.groups_per_row() == 1);
  const std::size_t to = index(row, group * length_);
  const std::size_t source = from.index(from_row, 0);
  if (format_->is_affine()) {
    params_[to] = from.params_[source];
    return;
  }
  scales_[to] = from.scales_[source];
  Tensor& plane = like_.planes[1];
  const std::size_t width = plane.byte_size() / scales_.size();
  std::memcpy(static_cast<std::byte*>(plane.address()) + to * width,
              from.like_.planes[1].bytes().data() + source * width, width);
}

QuantTensor WeightGrids::encode(const float* w) const {
  return format_->is_affine() ? affine_encode(format_, w, rows_, cols_, params_)
                              : encode_under_scales(like_, w);
}

bool groups_are_independent(const Scheme& scheme) {
  return scheme.granularity != Granularity::kTensor && scheme.granularity != Granularity::kBlock &&
         scheme.second_level == SecondLevel::kNone;
}

}  // namespace nibble
