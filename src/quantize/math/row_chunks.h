// Encoding a matrix some rows at a time, where its rows do not depend on each other.
#pragma once

#include <cstdint>
#include <functional>

#include "base/thread_pool.h"
#include "formats/format.h"

namespace nibble {

// encode(begin, end) gives rows [begin, end) as stored. It is called for some rows at a time on the
// pool, always the same ones; or once for all rows, in formats whose rows share a scale.
QuantTensor encode_by_rows(const FormatPtr& format, std::int64_t rows, std::int64_t cols,
                           ThreadPool& pool,
                           const std::function<QuantTensor(std::int64_t, std::int64_t)>& encode);

}  // namespace nibble
