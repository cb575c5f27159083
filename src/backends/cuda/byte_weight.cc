#include "backends/cuda/byte_weight.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "formats/affine.h"

namespace nibble::cuda {
namespace {

constexpr std::int64_t kUnit = 16;  // of what the vendor's products of bytes want sizes

bool is_e4m3(const Element& element) {
  return element.kind == ElementKind::kFloatBits && element.float_bits == FloatBits{};
}

bool has_type(const Element& element, ByteType type) {
  if (type == ByteType::kFp8) return is_e4m3(element);
  return element.kind == ElementKind::kInt && element.bits == 8;
}

}  // namespace

std::optional<ByteType> byte_type(const ActivationFormat& format) {
  const ActivationDescriptor& d = format.descriptor();
  const bool by_token =
      d.scope == ActivationScope::kToken && d.symmetric && !d.is_static && !d.has_outliers();
  if (!by_token) return std::nullopt;
  for (const ByteType type : {ByteType::kInt8, ByteType::kFp8}) {
    if (has_type(d.element, type)) return type;
  }
  return std::nullopt;
}

std::string bytes_why_not(const QuantTensor& weight, ByteType type) {
  const WeightDescriptor& descriptor = weight.format->descriptor();
  const Scheme& scheme = descriptor.scheme;
  if (!has_type(descriptor.element, type)) return "elements of another type";
  if (scheme.granularity != Granularity::kChannel || !scheme.symmetric ||
      scheme.second_level != SecondLevel::kNone) {
    return "scales are not one a row";
  }
  if (weight.rows % kUnit != 0 || weight.cols % kUnit != 0) {
    return fmt::format("sizes are no multiples of {}", kUnit);
  }
  return "";
}

ByteWeight pack_bytes(const QuantTensor& weight, ByteType type, ThreadPool& pool) {
  if (const std::string reason = bytes_why_not(weight, type); !reason.empty()) {
    fail(ErrorKind::kUnsupported, "pack_bytes: {}: {}", weight.format->name(), reason);
  }
  ByteWeight result;
  result.type = type;
  result.codes = Tensor::allocate(DType::kU8, {weight.rows, weight.cols});
  result.scales = to_float(weight.planes[1]);
  // Stored integers are 128 above their values.
  const std::uint8_t flip = type == ByteType::kInt8 ? 0x80 : 0;
  const std::span<const std::byte> stored = weight.planes[0].bytes();
  auto* const codes = result.codes.mutable_data<std::uint8_t>();
  const std::int64_t row_bytes = std::ssize(stored) / weight.rows;
  pool.parallel_for(weight.rows, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::byte* const from = stored.data() + row * row_bytes;
      std::transform(from, from + weight.cols, codes + row * weight.cols, [flip](std::byte code) {
        return static_cast<std::uint8_t>(std::to_integer<std::uint8_t>(code) ^ flip);
      });
    }
  });
  return result;
}

}  // namespace nibble::cuda
