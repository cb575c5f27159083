// Rows of a key/value cache.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/args.h"

namespace nibble::reference {

inline const std::byte* kv_row(const AttentionSequence& sequence, const HeadView<const void>& view,
                               std::int64_t row, std::int64_t head) {
  return static_cast<const std::byte*>(view.data) + row_offset(sequence, view, row) +
         head * view.head_stride;
}

inline std::byte* kv_row(const HeadView<void>& view, std::int64_t row, std::int64_t head) {
  return static_cast<std::byte*>(view.data) + row * view.row_stride + head * view.head_stride;
}

}  // namespace nibble::reference
