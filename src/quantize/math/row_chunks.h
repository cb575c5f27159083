// Encoding a matrix some rows at a time, where its rows do not depend on each other.
#pragma once

#include <cstdint>
#include <functional>

#include "base/thread_pool.h"
#include "formats/format.h"

namespace nibble {

// How many rows are encoded at a time: some, or all in formats whose rows share a scale.
std::int64_t rows_at_once(const Format& format, std::int64_t rows);

// encode(begin, end) gives rows [begin, end) as stored. It is called for some rows at a time on the
// pool, rows_at_once() of them (but for the last).
QuantTensor encode_by_rows(const FormatPtr& format, std::int64_t rows, std::int64_t cols,
                           ThreadPool& pool,
                           const std::function<QuantTensor(std::int64_t, std::int64_t)>& encode);

}  // namespace nibble
