#include "backends/cuda/weight.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "formats/affine.h"
#include "formats/code_table.h"
#include "formats/table_format.h"

namespace nibble::cuda {
namespace {

// A matrix in a format that kernels cannot decode, as floats of the same values.
QuantTensor decoded(const QuantTensor& weight) {
  std::vector<float> values(static_cast<std::size_t>(weight.rows * weight.cols));
  decode_all(weight, values.data());
  const auto fits_bf16 = [](float v) { return to_float(to_bf16(v)) == v || std::isnan(v); };
  const DType type = std::ranges::all_of(values, fits_bf16) ? DType::kBF16 : DType::kF32;
  return dense(from_float(values.data(), type, {weight.rows, weight.cols}));
}

// Elements that are a table of values of the format.
bool is_table(const Format& format) {
  const ElementKind kind = format.descriptor().element.kind;
  return kind == ElementKind::kFloatBits || kind == ElementKind::kCodebook;
}

// The tables stand behind the planes of the format (with_tables()).
void add_tables(const QuantTensor& weight, WeightPlanes& planes) {
  const Scheme& scheme = weight.format->descriptor().scheme;
  const auto floats = [&](std::size_t plane) {
    NIBBLE_CHECK(plane < weight.planes.size());
    return static_cast<const float*>(weight.planes[plane].address());
  };
  const std::size_t first = weight.format->planes(weight.rows, weight.cols).size();
  planes.values = floats(first);
  if (dtype_size(scheme.scale_type) > 1) return;
  planes.scale_values = floats(first + 1);
  if (scheme.second_level == SecondLevel::kNone) return;
  planes.scale_factors = floats(2);
  planes.factor_shift = 63;  // one for all
  if (scheme.second_level == SecondLevel::kDynamic) {
    planes.factor_shift = std::countr_zero(static_cast<std::uint64_t>(kScaleBlock));
    planes.scale_mean = floats(3);
  }
}

}  // namespace

FloatType float_type(DType type) {
  switch (type) {
    case DType::kF16:
      return FloatType::kF16;
    case DType::kBF16:
      return FloatType::kBF16;
    case DType::kF32:
      return FloatType::kF32;
    default:
      fail(ErrorKind::kInternal, "a weight of {} on the card", to_string(type));
  }
}

const FragmentWeight* fragments_of(const LinearWeight& weight) {
  const auto* packed = dynamic_cast<const DeviceWeight*>(weight.packed.get());
  return packed != nullptr && packed->fragments ? &*packed->fragments : nullptr;
}

const ByteWeight* bytes_of(const LinearWeight& weight) {
  const auto* packed = dynamic_cast<const DeviceWeight*>(weight.packed.get());
  return packed != nullptr && packed->bytes ? &*packed->bytes : nullptr;
}

FragmentMatrix matrix_of(const FragmentWeight& weight) {
  FragmentMatrix matrix;
  matrix.codes = weight.codes.address();
  matrix.scales = weight.scales.address();
  matrix.zeros = static_cast<const std::uint8_t*>(weight.zeros.address());
  matrix.rows = weight.rows;
  matrix.cols = weight.cols;
  matrix.groups = weight.groups;
  matrix.bits = weight.bits;
  matrix.bf16_scales = weight.scales.dtype() == DType::kBF16;
  return matrix;
}

WeightPlanes planes_of(const QuantTensor& weight) {
  const WeightDescriptor& descriptor = weight.format->descriptor();
  WeightPlanes planes;
  planes.data = weight.planes[0].address();
  planes.rows = weight.rows;
  planes.cols = weight.cols;
  if (descriptor.element.kind == ElementKind::kFloat) {
    planes.type = float_type(descriptor.element.float_type);
    return planes;
  }
  NIBBLE_CHECK(has_decoder(*weight.format));
  const Scheme& scheme = descriptor.scheme;
  const bool by_group =
      scheme.granularity == Granularity::kGroup || scheme.granularity == Granularity::kBlock;
  planes.bits = descriptor.element.bits;
  planes.row_words = weight.planes[0].dim(1);
  planes.scales = weight.planes[1].address();
  planes.group = by_group ? scheme.group : weight.cols;
  planes.groups = (weight.cols + planes.group - 1) / planes.group;
  planes.scale_rows = scheme.granularity == Granularity::kTensor  ? weight.rows
                      : scheme.granularity == Granularity::kBlock ? scheme.block_rows
                                                                  : 1;
  if (dtype_size(scheme.scale_type) > 1) planes.type = float_type(scheme.scale_type);
  if (weight.format->is_affine()) {
    if (!scheme.symmetric) {
      planes.zeros = static_cast<const std::uint8_t*>(weight.planes[2].address());
    }
  } else {
    add_tables(weight, planes);
  }
  return planes;
}

bool has_decoder(const Format& format) {
  return format.is_float() || format.is_affine() || is_table(format);
}

QuantTensor with_tables(QuantTensor weight) {
  if (!is_table(*weight.format)) return weight;
  const auto add = [&](std::span<const float> values) {
    const auto count = static_cast<std::int64_t>(values.size());
    if (count > 0) weight.planes.push_back(from_float(values.data(), DType::kF32, {count}));
  };
  const std::vector<float> scales = scale_bytes(weight.format->descriptor().scheme);
  add(table_of(*weight.format).values());
  add(scales);
  return weight;
}

QuantTensor upload_planes(QuantTensor weight, DeviceMemory& memory) {
  if (weight.planes[0].place() == Place::kDevice) return weight;
  weight = has_decoder(*weight.format) ? with_tables(std::move(weight)) : decoded(weight);
  for (Tensor& plane : weight.planes) plane = memory.upload(plane);
  return weight;
}

std::optional<FragmentWeight> upload_fragments(const QuantTensor& weight, ThreadPool& pool,
                                               DeviceMemory& memory) {
  if (!why_no_fragments(weight).empty()) return std::nullopt;
  FragmentWeight packed = pack_fragments(weight, pool);
  for (Tensor* plane : {&packed.codes, &packed.scales, &packed.zeros}) {
    *plane = memory.upload(*plane);
  }
  return packed;
}

std::optional<ByteWeight> upload_bytes(const QuantTensor& weight, const ActivationFormat& format,
                                       ThreadPool& pool, DeviceMemory& memory) {
  const std::optional<ByteType> type = byte_type(format);
  if (!type || !bytes_why_not(weight, *type).empty()) return std::nullopt;
  ByteWeight packed = pack_bytes(weight, *type, pool);
  for (Tensor* plane : {&packed.codes, &packed.scales}) *plane = memory.upload(*plane);
  return packed;
}

}  // namespace nibble::cuda
