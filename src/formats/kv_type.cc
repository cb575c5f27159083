#include "formats/kv_type.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>

#include "base/error.h"
#include "base/half.h"
#include "formats/float_bits.h"

namespace nibble {
namespace {

constexpr std::int64_t kHeader = sizeof(KvScale);

constexpr std::string_view kHadamard = "_hadamard";

#define KV_FIT_FUNCTION inline
#include "formats/kv_fit.inl.h"
#undef KV_FIT_FUNCTION

float levels(KvType type) { return type == KvType::kInt8 ? 255.0f : 15.0f; }

// Scale and offset of a row over its full range, and the factor that turns values into codes.
FitScale range_of(const float* values, std::int64_t count, float top) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  float low = kInfinity;
  float high = -kInfinity;
  bool finite = true;
  for (std::int64_t i = 0; i < count; ++i) {
    finite = finite && std::isfinite(values[i]);
    low = std::min(low, values[i]);
    high = std::max(high, values[i]);
  }
  if (count == 0) return {};
  const float scale = (high - low) / top;
  if (!finite || std::isinf(scale)) return {kNan, kNan, 0};
  const float to_code = 1.0f / scale;
  if (std::isinf(to_code)) return {0, low, 0};
  return {scale, low, to_code};
}

float clamped_code(float steps, float top) { return std::clamp(std::nearbyint(steps), 0.0f, top); }

// Sums over the codes that a range gives the positions of values.
void add_codes(std::span<const float> positions, const FitRange& range, FitSums& sums) {
  for (const float position : positions) {
    const float code = clamped_code((position - range.below) * range.to_code, kFitTop);
    sums.codes += code;
    sums.squares += code * code;
    sums.products += code * position;
  }
}

// The scale and offset of an int4 row (formats/kv_fit.inl.h).
FitScale fitted(const float* values, std::int64_t count, const FitScale& full) {
  if (full.to_code == 0 || count > kFitMost) return full;
  std::array<float, kFitMost> room;
  const std::span positions = std::span(room).first(static_cast<std::size_t>(count));
  FitSums sums = {static_cast<float>(count), 0, 0, 0, 0};
  for (std::size_t i = 0; i < positions.size(); ++i) {
    positions[i] = std::min(kFitTop * kFitUnits,
                            std::nearbyint((values[i] - full.offset) * full.to_code * kFitUnits));
    sums.positions += positions[i];
  }
  FitSums best = sums;
  float most = 0;
  for (int r = 0; r < kFitRanges; ++r) {
    FitSums tried = sums;
    add_codes(positions, fit_range(r), tried);
    const float explained = fit_explained(tried);
    if (explained <= most) continue;
    most = explained;
    best = tried;
  }
  return fit_scale(best, full);
}

void encode_e4m3(const float* values, std::int64_t head_dim, std::byte* row) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  float largest = 0;
  const bool finite = scalar_spans().magnitudes(values, 1, head_dim, &largest);
  const KvScale stored = finite ? KvScale{largest / e4m3_table().max(), 0} : KvScale{kNan, kNan};
  std::memcpy(row, &stored, kHeader);
  scalar_spans().table_codes(e4m3_table().view(), &stored.scale, values, 1, head_dim,
                             reinterpret_cast<std::uint8_t*>(row + kHeader));
}

void encode_codes(KvType type, const float* values, std::int64_t head_dim, std::byte* row) {
  const float top = levels(type);
  FitScale range = range_of(values, head_dim, top);
  if (type == KvType::kInt4) range = fitted(values, head_dim, range);
  const KvScale stored = {range.scale, range.offset};
  std::memcpy(row, &stored, kHeader);
  auto* codes = reinterpret_cast<std::uint8_t*>(row + kHeader);
  std::fill(codes, codes + kv_row_bytes(type, head_dim) - kHeader, std::uint8_t{0});
  if (range.to_code == 0) return;
  for (std::int64_t i = 0; i < head_dim; ++i) {
    const float steps = (values[i] - range.offset) * range.to_code;
    const auto code = static_cast<unsigned>(clamped_code(steps, top));
    if (type == KvType::kInt8) {
      codes[i] = static_cast<std::uint8_t>(code);
    } else {
      codes[i / 2] = static_cast<std::uint8_t>(codes[i / 2] | code << (i % 2 * 4));
    }
  }
}

void decode_codes(KvType type, const std::byte* row, std::int64_t head_dim, float* values) {
  const KvScale stored = kv_row_scale(row);
  const auto* codes = reinterpret_cast<const std::uint8_t*>(row + kHeader);
  for (std::int64_t i = 0; i < head_dim; ++i) {
    const int code = type == KvType::kInt4 ? codes[i / 2] >> (i % 2 * 4) & 15 : codes[i];
    const float steps = type == KvType::kFp8 ? e4m3_table().value(code) : static_cast<float>(code);
    values[i] = stored.offset + stored.scale * steps;
  }
}

}  // namespace

std::string_view to_string(KvType type) {
  switch (type) {
    case KvType::kF32:
      return "f32";
    case KvType::kF16:
      return "f16";
    case KvType::kBF16:
      return "bf16";
    case KvType::kInt8:
      return "int8";
    case KvType::kInt4:
      return "int4";
    case KvType::kFp8:
      return "fp8";
  }
  fail(ErrorKind::kInternal, "no type of a KV cache: {}", static_cast<int>(type));
}

std::optional<KvType> parse_kv_type(std::string_view name) {
  for (const KvType type : kKvTypes) {
    if (to_string(type) == name) return type;
  }
  return std::nullopt;
}

bool is_quantized(KvType type) {
  return type == KvType::kInt8 || type == KvType::kInt4 || type == KvType::kFp8;
}

std::string to_string(const KvFormat& format) {
  return std::string(to_string(format.type)) + std::string(format.hadamard ? kHadamard : "");
}

std::optional<KvFormat> parse_kv_format(std::string_view name) {
  const bool hadamard = name.ends_with(kHadamard);
  if (hadamard) name.remove_suffix(kHadamard.size());
  const auto type = parse_kv_type(name);
  if (!type || (hadamard && !is_quantized(*type))) return std::nullopt;
  return KvFormat(*type, hadamard);
}

std::vector<std::string> kv_format_names() {
  std::vector<std::string> names;
  for (const KvType type : kKvTypes) {
    names.push_back(to_string(KvFormat(type)));
    if (is_quantized(type)) names.push_back(to_string(KvFormat(type, true)));
  }
  return names;
}

KvType kv_type_of(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return KvType::kF32;
    case DType::kF16:
      return KvType::kF16;
    case DType::kBF16:
      return KvType::kBF16;
    default:
      fail(ErrorKind::kUnsupported, "a KV cache of {}; F32, F16 and BF16 are possible",
           to_string(dtype));
  }
}

std::int64_t kv_row_bytes(KvType type, std::int64_t head_dim) {
  switch (type) {
    case KvType::kF32:
      return 4 * head_dim;
    case KvType::kF16:
    case KvType::kBF16:
      return 2 * head_dim;
    case KvType::kInt8:
    case KvType::kFp8:
      return kHeader + head_dim;
    case KvType::kInt4:
      return kHeader + (head_dim + 1) / 2;
  }
  fail(ErrorKind::kInternal, "no type of a KV cache: {}", static_cast<int>(type));
}

KvScale kv_row_scale(const std::byte* row) {
  KvScale stored;
  std::memcpy(&stored, row, kHeader);
  return stored;
}

void encode_kv_row(KvType type, const float* values, std::int64_t head_dim, std::byte* row) {
  if (type == KvType::kFp8) return encode_e4m3(values, head_dim, row);
  if (is_quantized(type)) return encode_codes(type, values, head_dim, row);
  for (std::int64_t i = 0; i < head_dim; ++i) {
    if (type == KvType::kF32) {
      std::memcpy(row + 4 * i, &values[i], 4);
    } else {
      const std::uint16_t bits =
          type == KvType::kF16 ? to_f16(values[i]).bits : to_bf16(values[i]).bits;
      std::memcpy(row + 2 * i, &bits, 2);
    }
  }
}

void decode_kv_row(KvType type, const std::byte* row, std::int64_t head_dim, float* values) {
  if (is_quantized(type)) return decode_codes(type, row, head_dim, values);
  for (std::int64_t i = 0; i < head_dim; ++i) {
    if (type == KvType::kF32) {
      std::memcpy(&values[i], row + 4 * i, 4);
    } else {
      std::uint16_t bits;
      std::memcpy(&bits, row + 2 * i, 2);
      values[i] = type == KvType::kF16 ? to_float(f16{bits}) : to_float(bf16{bits});
    }
  }
}

}  // namespace nibble
