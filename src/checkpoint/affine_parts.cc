#include "checkpoint/affine_parts.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "checkpoint/pack_quantized.h"
#include "formats/affine.h"
#include "formats/registry.h"

namespace nibble {
namespace {

std::int64_t group_count(const AffineParts& parts) {
  return parts.group == 0 ? 1 : (parts.cols + parts.group - 1) / parts.group;
}

void check(const AffineParts& parts, const std::string& what) {
  if (parts.rows < 1 || parts.cols < 1 || parts.group < 0) {
    fail(ErrorKind::kCorrupt, "{}: a matrix of [{}, {}] in groups of {}", what, parts.rows,
         parts.cols, parts.group);
  }
  const Shape codes = {parts.rows, packed_words(parts.cols, parts.bits, Packing::kDense)};
  const Shape groups = {parts.rows, group_count(parts)};
  if (parts.codes.shape() != codes || parts.scales.shape() != groups ||
      parts.zeros.shape() != groups) {
    fail(ErrorKind::kCorrupt,
         "{}: codes {}, scales {} and zero points {} (rows first) where {} and {} are needed", what,
         to_string(parts.codes.shape()), to_string(parts.scales.shape()),
         to_string(parts.zeros.shape()), to_string(codes), to_string(groups));
  }
  if (!is_float_weight(parts.scales.dtype())) {
    fail(ErrorKind::kUnsupported, "{}: scales of {}", what, to_string(parts.scales.dtype()));
  }
  if (parts.group_of_column.empty()) return;
  const auto outside = [&](std::int32_t g) { return g < 0 || g >= group_count(parts); };
  if (static_cast<std::int64_t>(parts.group_of_column.size()) != parts.cols ||
      std::ranges::any_of(parts.group_of_column, outside)) {
    fail(ErrorKind::kCorrupt, "{}: g_idx does not give one of {} groups for each of {} columns",
         what, group_count(parts), parts.cols);
  }
}

// scale * (code - zero), column by column.
QuantTensor decoded(const AffineParts& parts) {
  const std::int64_t cols = parts.cols, groups = group_count(parts);
  Tensor values = Tensor::allocate(parts.scales.dtype(), {parts.rows, cols});
  auto* out = reinterpret_cast<std::byte*>(values.address());
  const std::size_t row_bytes = values.byte_size() / static_cast<std::size_t>(parts.rows);
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(cols));
  std::vector<float> scales(static_cast<std::size_t>(groups)), row(codes.size());
  const auto* zeros = reinterpret_cast<const std::uint8_t*>(parts.zeros.bytes().data());
  for (std::int64_t r = 0; r < parts.rows; ++r) {
    unpack_codes(parts.codes.rows(r, r + 1).bytes().data(), parts.bits, 0, cols, codes.data());
    to_float(parts.scales, r * groups, groups, scales.data());
    for (std::size_t c = 0; c < codes.size(); ++c) {
      const std::int64_t g = parts.group_of_column.empty()
                                 ? static_cast<std::int64_t>(c) / parts.group
                                 : parts.group_of_column[c];
      row[c] = scales[static_cast<std::size_t>(g)] *
               static_cast<float>(codes[c] - zeros[r * groups + g]);
    }
    const Tensor rounded = from_float(row.data(), values.dtype(), {cols});
    std::memcpy(out + static_cast<std::size_t>(r) * row_bytes, rounded.bytes().data(), row_bytes);
  }
  return dense(std::move(values));
}

}  // namespace

Tensor as_parameters(const Tensor& stored, const Shape& rows_and_groups, const std::string& what) {
  const std::int64_t rows = rows_and_groups[0], groups = rows_and_groups[1];
  const Shape& shape = stored.shape();
  const bool fits = shape == rows_and_groups || (groups == 1 && shape == Shape{rows}) ||
                    (rows == 1 && groups == 1 && shape.empty());
  if (!fits) {
    fail(ErrorKind::kCorrupt, "{}: shape {} where [{}, {}] is needed", what, to_string(shape), rows,
         groups);
  }
  return stored.reshaped(rows_and_groups);
}

bool in_order(const AffineParts& parts) {
  if (parts.group > 0 && parts.cols % parts.group != 0) return false;
  for (std::size_t c = 0; c < parts.group_of_column.size(); ++c) {
    const std::int64_t expected = parts.group == 0 ? 0 : static_cast<std::int64_t>(c) / parts.group;
    if (parts.group_of_column[c] != expected) return false;
  }
  return true;
}

QuantTensor assemble(AffineParts parts, const std::string& what) {
  check(parts, what);
  if (!in_order(parts)) return decoded(parts);
  const auto middle = static_cast<std::byte>(1 << (parts.bits - 1));
  const bool symmetric =
      parts.symmetric &&
      std::ranges::all_of(parts.zeros.bytes(), [&](std::byte z) { return z == middle; });
  const Granularity granularity = parts.group == 0 ? Granularity::kChannel : Granularity::kGroup;
  QuantTensor weight;
  weight.format = make_format({{.kind = ElementKind::kInt, .bits = parts.bits},
                               {granularity, parts.group, symmetric, parts.scales.dtype()}});
  weight.rows = parts.rows;
  weight.cols = parts.cols;
  weight.planes = {std::move(parts.codes), std::move(parts.scales)};
  if (!symmetric) weight.planes.push_back(std::move(parts.zeros));
  validate(weight);
  return weight;
}

std::vector<std::string> unordered_note(const std::string& path, std::int64_t count) {
  if (count == 0) return {};
  return {fmt::format(
      "{}: {} modules group their columns in another order (act-order) or have a short last group; "
      "they are decoded when they are loaded, and take the memory of 16-bit weights",
      path, count)};
}

}  // namespace nibble
