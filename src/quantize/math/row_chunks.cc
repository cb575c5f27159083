#include "quantize/math/row_chunks.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "quantize/math/grids.h"

namespace nibble {
namespace {

// Every plane of a format whose rows are independent has a row for each row of the matrix.
QuantTensor stack(const FormatPtr& format, std::int64_t rows, std::int64_t cols,
                  const std::vector<QuantTensor>& parts) {
  QuantTensor result{format, rows, cols, {}};
  std::size_t index = 0;
  for (const PlaneSpec& spec : format->planes(rows, cols)) {
    Tensor plane = Tensor::allocate(spec.dtype, spec.shape);
    auto* at = static_cast<std::byte*>(plane.address());
    for (const QuantTensor& part : parts) {
      const auto bytes = part.planes[index].bytes();
      std::memcpy(at, bytes.data(), bytes.size());
      at += bytes.size();
    }
    result.planes.push_back(std::move(plane));
    ++index;
  }
  return result;
}

}  // namespace

std::int64_t rows_at_once(const Format& format, std::int64_t rows) {
  constexpr std::int64_t kRows = 32;
  return groups_are_independent(format.descriptor().scheme) ? kRows : rows;
}

QuantTensor encode_by_rows(const FormatPtr& format, std::int64_t rows, std::int64_t cols,
                           ThreadPool& pool,
                           const std::function<QuantTensor(std::int64_t, std::int64_t)>& encode) {
  const std::int64_t count = rows_at_once(*format, rows);
  if (count >= rows) return encode(0, rows);
  std::vector<QuantTensor> parts(static_cast<std::size_t>((rows + count - 1) / count));
  pool.parallel_for(static_cast<std::int64_t>(parts.size()), 1,
                    [&](std::int64_t first, std::int64_t last) {
                      for (std::int64_t part = first; part < last; ++part) {
                        parts[static_cast<std::size_t>(part)] =
                            encode(part * count, std::min(rows, (part + 1) * count));
                      }
                    });
  return stack(format, rows, cols, parts);
}

}  // namespace nibble
