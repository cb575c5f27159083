// Which elements share a scale, and loops over them. Internal to formats/.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "formats/affine.h"
#include "formats/families.h"

namespace nibble {

// Which scale an element has: scales are [scale_rows, per_row], and those of row r stand in row
// r / rows_per of them; group g of a row begins at column g * length, and the last one may be
// shorter.
struct GroupLayout {
  std::int64_t per_row = 1;
  std::int64_t length = 1;
  std::int64_t rows_per = 1;
  std::int64_t cols = 1;

  std::int64_t first(std::int64_t row) const { return row / rows_per * per_row; }
  // body(group, groups, length, begin) for the groups of one length of a row: the whole ones, and
  // the shorter one.
  template <class Body>
  void for_lengths(const Body& body) const {
    const std::int64_t whole = cols / length;
    if (whole > 0) body(std::int64_t{0}, whole, length, std::int64_t{0});
    if (whole < per_row) body(whole, std::int64_t{1}, cols - whole * length, whole * length);
  }
  // The last column of a piece of at most `most` columns from `begin` on that holds whole groups,
  // or a piece of one. At multiples of 8, where bytes of codes begin, unless groups end elsewhere.
  std::int64_t chunk_end(std::int64_t begin, std::int64_t most) const {
    const std::int64_t groups = (begin % length + most) / length;
    return groups == 0 ? begin + most : begin - begin % length + groups * length;
  }
  // The same for columns [begin, end) of a row, groups cut at the edges.
  template <class Body>
  void for_columns(std::int64_t begin, std::int64_t end, const Body& body) const {
    while (begin < end) {
      const std::int64_t group = begin / length;
      const bool at_start = begin == group * length;
      const std::int64_t groups = at_start ? (end - begin) / length : 0;
      const std::int64_t count = groups > 0 ? length : std::min(end, (group + 1) * length) - begin;
      body(group, std::max<std::int64_t>(groups, 1), count, begin);
      begin += std::max<std::int64_t>(groups, 1) * count;
    }
  }
};
GroupLayout layout_of(const Scheme& scheme, std::int64_t rows, std::int64_t cols);

// One number for each group of each row, [rows, per_row], to one for each scale: `join` of them.
template <class Join>
void merge_rows(const GroupLayout& layout, std::int64_t rows, std::vector<float>& numbers,
                const Join& join) {
  if (layout.rows_per == 1) return;
  const std::int64_t n = layout.per_row;
  for (std::int64_t row = 0; row < rows; ++row) {
    float* const to = numbers.data() + layout.first(row);
    const float* const from = numbers.data() + row * n;
    const bool first = row % layout.rows_per == 0;
    for (std::int64_t g = 0; g < n; ++g) to[g] = first ? from[g] : join(to[g], from[g]);
  }
  numbers.resize(static_cast<std::size_t>((rows - 1) / layout.rows_per * n + n));
}

// The codes plane of a matrix: body(row, group, groups, length, col, codes) writes those of
// `groups` groups of a row that begin at a column.
template <class Body>
void encode_rows(const GroupLayout& layout, std::int64_t rows, int bits, std::uint32_t* packed,
                 const Codec& codec, const Body& body) {
  const std::int64_t words = words_per_row(bits, layout.cols);
  codec.for_rows(rows, layout.cols, [&](std::int64_t begin, std::int64_t end) {
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(layout.cols));
    for (std::int64_t row = begin; row < end; ++row) {
      layout.for_lengths(
          [&](std::int64_t group, std::int64_t groups, std::int64_t length, std::int64_t col) {
            body(row, group, groups, length, col, codes.data() + col);
          });
      pack_codes(codes, bits, packed + row * words, *codec.spans);
    }
  });
}

// Columns [begin, begin + count) of a row of a codes plane: body(group, groups, length, codes) for
// the groups of one length in it, cut at the edges; at most kDecodedAtOnce codes and groups a call.
inline constexpr std::int64_t kDecodedAtOnce = 1024;
template <class Body>
void decode_row(const GroupLayout& layout, const Tensor& plane, int bits, std::int64_t row,
                std::int64_t begin, std::int64_t count, const SpanKernels& spans,
                const Body& body) {
  const std::byte* stored = plane.bytes().data() + row * plane.dim(1) * 4;
  std::uint8_t codes[kDecodedAtOnce];
  const std::int64_t end = begin + count;
  for (std::int64_t next = begin; begin < end; begin = next) {
    next = std::min(end, layout.chunk_end(begin, kDecodedAtOnce));
    unpack_codes(stored, bits, begin, next - begin, codes, spans);
    layout.for_columns(
        begin, next,
        [&](std::int64_t group, std::int64_t groups, std::int64_t length, std::int64_t col) {
          body(group, groups, length, codes + (col - begin));
        });
  }
}

}  // namespace nibble
