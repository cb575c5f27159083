#include "backends/cuda/weight.h"

#include <algorithm>
#include <cmath>

#include "formats/affine.h"

namespace nibble::cuda {
namespace {

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

// A matrix in a format that kernels cannot decode, as floats of the same values.
QuantTensor decoded(const QuantTensor& weight) {
  std::vector<float> values(static_cast<std::size_t>(weight.rows * weight.cols));
  decode_all(weight, values.data());
  const auto fits_bf16 = [](float v) { return to_float(to_bf16(v)) == v || std::isnan(v); };
  const DType type = std::ranges::all_of(values, fits_bf16) ? DType::kBF16 : DType::kF32;
  return dense(from_float(values.data(), type, {weight.rows, weight.cols}));
}

}  // namespace

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
  const Scheme& scheme = descriptor.scheme;
  NIBBLE_CHECK(weight.format->is_affine());
  planes.type = float_type(scheme.scale_type);
  planes.bits = descriptor.element.bits;
  planes.row_words = weight.planes[0].dim(1);
  planes.scales = weight.planes[1].address();
  if (!scheme.symmetric) {
    planes.zeros = static_cast<const std::uint8_t*>(weight.planes[2].address());
  }
  planes.groups = groups_per_row(scheme, weight.cols);
  planes.group = weight.cols / planes.groups;
  planes.per_tensor = scheme.granularity == Granularity::kTensor;
  return planes;
}

bool has_decoder(const Format& format) {
  if (format.is_float()) return true;
  return format.is_affine() && format.descriptor().scheme.granularity != Granularity::kBlock;
}

QuantTensor upload_planes(QuantTensor weight, DeviceMemory& memory) {
  if (!has_decoder(*weight.format)) weight = decoded(weight);
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
