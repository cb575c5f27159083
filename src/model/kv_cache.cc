#include "model/kv_cache.h"

#include <cstring>
#include <utility>
#include <vector>

#include "base/error.h"

namespace nibble {
namespace {

constexpr std::int64_t kAlign = 64;  // of the rows of a head

bool has_infinity(const std::byte* row, std::int64_t count) {
  constexpr std::uint16_t kExponent = 0x7c00;
  for (std::int64_t i = 0; i < count; ++i) {
    std::uint16_t bits;
    std::memcpy(&bits, row + 2 * i, sizeof(bits));
    if ((bits & kExponent) == kExponent) return true;
  }
  return false;
}

}  // namespace

KvCache::KvCache(const ModelSpec& spec, std::int64_t capacity, KvType type, DeviceMemory& memory)
    : memory_(&memory),
      type_(type),
      layers_(spec.layers),
      heads_(spec.attention.kv_heads),
      head_dim_(spec.attention.head_dim),
      row_bytes_(kv_row_bytes(type, spec.attention.head_dim)) {
  if (capacity < 0) fail(ErrorKind::kUsage, "a cache for {} tokens", capacity);
  allocate(capacity);
}

void KvCache::allocate(std::int64_t capacity) {
  // Checks the product, and the memory, before anything is changed.
  const std::int64_t bytes = element_count({capacity, row_bytes_});
  const std::int64_t head_bytes = bytes + (kAlign - bytes % kAlign) % kAlign;
  const Shape shape = {layers_, 2, heads_, head_bytes};
  bytes_ = memory_->allocate(DType::kU8, shape);
  head_bytes_ = head_bytes;
  capacity_ = capacity;
}

std::int64_t KvCache::bytes_per_token() const { return 2 * layers_ * heads_ * row_bytes_; }

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

void KvCache::grow(std::int64_t capacity) {
  NIBBLE_CHECK(capacity >= size_);
  const Tensor old = bytes_;
  const std::int64_t old_head_bytes = head_bytes_;
  allocate(capacity);
  auto* to = bytes_.mutable_data<std::uint8_t>();
  for (std::int64_t i = 0; i < layers_ * 2 * heads_; ++i) {
    memory_->copy(old.data<std::uint8_t>() + i * old_head_bytes,
                  static_cast<std::size_t>(size_ * row_bytes_), to + i * head_bytes_);
  }
}

HeadView<void> KvCache::view(std::int64_t plane) {
  return {bytes_.mutable_data<std::uint8_t>() + plane * heads_ * head_bytes_, row_bytes_,
          head_bytes_};
}

std::int64_t KvCache::row_offset(std::int64_t plane, std::int64_t head, std::int64_t token) const {
  return (plane * heads_ + head) * head_bytes_ + token * row_bytes_;
}

bool KvCache::overflowed(std::int64_t layer, std::int64_t begin) const {
  if (type_ != KvType::kF16) return false;
  std::vector<std::byte> rows(static_cast<std::size_t>((size_ - begin) * row_bytes_));
  for (std::int64_t plane = 2 * layer; plane < 2 * layer + 2; ++plane) {
    for (std::int64_t head = 0; head < heads_; ++head) {
      memory_->copy_out(bytes_.data<std::uint8_t>() + row_offset(plane, head, begin), rows.size(),
                        rows.data());
      if (has_infinity(rows.data(), (size_ - begin) * head_dim_)) return true;
    }
  }
  return false;
}

}  // namespace nibble
