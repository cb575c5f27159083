#include "model/kv_cache.h"

#include "base/error.h"

namespace nibble {

KvCache::KvCache(const ModelSpec& spec, std::int64_t capacity, DType dtype)
    : dtype_(dtype), capacity_(capacity) {
  if (!is_float_weight(dtype)) {
    fail(ErrorKind::kUnsupported, "a cache of {}; F32, F16 and BF16 are possible",
         to_string(dtype));
  }
  if (capacity < 0) fail(ErrorKind::kUsage, "a cache for {} tokens", capacity);
  const Shape shape = {capacity, spec.attention.kv_heads, spec.attention.head_dim};
  for (std::int64_t layer = 0; layer < spec.layers; ++layer) {
    k_.push_back(Tensor::allocate(dtype, shape));
    v_.push_back(Tensor::allocate(dtype, shape));
  }
}

void KvCache::truncate(std::int64_t size) {
  NIBBLE_CHECK(size >= 0 && size <= size_);
  size_ = size;
}

void KvCache::advance(std::int64_t rows) {
  if (rows > capacity_ - size_) {
    fail(ErrorKind::kUsage, "{} tokens do not fit into a cache that holds {} of {}", rows, size_,
         capacity_);
  }
  size_ += rows;
}

}  // namespace nibble
