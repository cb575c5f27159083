#include "model/kv_cache.h"

#include <algorithm>
#include <cstring>
#include <iterator>
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

// Bytes of the rows of one head in a block.
std::int64_t head_bytes(std::int64_t rows, std::int64_t row_bytes) {
  const std::int64_t bytes = element_count({rows, row_bytes});  // checks the product
  return bytes + (kAlign - bytes % kAlign) % kAlign;
}

}  // namespace

KvCache::KvCache(const ModelSpec& spec, std::int64_t capacity, KvFormat format,
                 DeviceMemory& memory)
    : memory_(&memory),
      format_(format),
      layers_(spec.layers),
      heads_(spec.attention.kv_heads),
      head_dim_(spec.attention.head_dim),
      row_bytes_(kv_row_bytes(format.type, spec.attention.head_dim)) {
  if (capacity < 0) fail(ErrorKind::kUsage, "a cache for {} tokens", capacity);
  allocate(capacity);
}

KvCache::KvCache(const KvPool& pool)
    : memory_(pool.memory_),
      format_(pool.format_),
      layers_(pool.spec_.layers),
      heads_(pool.spec_.attention.kv_heads),
      head_dim_(pool.spec_.attention.head_dim),
      row_bytes_(kv_row_bytes(format_.type, head_dim_)),
      head_bytes_(head_bytes(pool.block_rows_, row_bytes_)),
      block_rows_(pool.block_rows_),
      block_bytes_(KvPool::block_bytes(pool.spec_, pool.block_rows_, format_)),
      bytes_(pool.bytes_) {}

void KvCache::allocate(std::int64_t capacity) {
  // Fails before anything is changed.
  const std::int64_t bytes = head_bytes(capacity, row_bytes_);
  bytes_ = memory_->allocate(DType::kU8, {layers_, 2, heads_, bytes});
  head_bytes_ = bytes;
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

void KvCache::set_blocks(std::span<const std::int32_t> blocks, std::int64_t size) {
  NIBBLE_CHECK(block_rows_ > 0);
  blocks_.clear();
  first_ = blocks.empty() ? 0 : blocks.front() * block_bytes_;
  if (blocks.size() > 1) {
    for (const std::int32_t block : blocks) blocks_.push_back(block * block_bytes_ - first_);
  }
  capacity_ = std::ssize(blocks) * block_rows_;
  NIBBLE_CHECK(size >= 0 && size <= capacity_);
  size_ = size;
}

HeadView<void> KvCache::view(std::int64_t plane) {
  return {bytes_.mutable_data<std::uint8_t>() + first_ + plane * heads_ * head_bytes_, row_bytes_,
          head_bytes_};
}

void KvCache::append_runs(std::int64_t layer, std::int64_t begin, std::int64_t count,
                          std::vector<KvRun>& runs) {
  NIBBLE_CHECK(begin >= 0 && count >= 0 && begin + count <= capacity_);
  if (blocks_.empty()) {
    runs.push_back({count, from_row(k(layer), begin), from_row(v(layer), begin)});
    return;
  }
  for (std::int64_t at = begin; at < begin + count; at += runs.back().rows) {
    const std::int64_t row = at % block_rows_;
    const std::int64_t offset = blocks_[static_cast<std::size_t>(at / block_rows_)];
    KvRun& run = runs.emplace_back();
    run = {std::min(block_rows_ - row, begin + count - at), from_row(k(layer), row),
           from_row(v(layer), row)};
    run.k.data = static_cast<std::uint8_t*>(run.k.data) + offset;
    run.v.data = static_cast<std::uint8_t*>(run.v.data) + offset;
  }
}

bool KvCache::overflowed(std::int64_t layer, std::int64_t begin) {
  if (format_.type != KvType::kF16) return false;
  std::vector<KvRun> runs;
  append_runs(layer, begin, size_ - begin, runs);
  std::vector<std::byte> rows;
  for (const KvRun& run : runs) {
    rows.resize(static_cast<std::size_t>(run.rows * row_bytes_));
    for (const HeadView<void>& view : {run.k, run.v}) {
      for (std::int64_t head = 0; head < heads_; ++head) {
        memory_->copy_out(static_cast<const std::byte*>(view.data) + head * head_bytes_,
                          rows.size(), rows.data());
        if (has_infinity(rows.data(), run.rows * head_dim_)) return true;
      }
    }
  }
  return false;
}

KvPool::KvPool(const ModelSpec& spec, std::int64_t blocks, std::int64_t block_rows, KvFormat format,
               DeviceMemory& memory)
    : spec_(spec),
      block_rows_(block_rows),
      format_(format),
      memory_(&memory),
      bytes_(memory.allocate(DType::kU8, {blocks, block_bytes(spec, block_rows, format)})) {}

void KvPool::copy_block(const KvPool& from, std::int64_t block, KvPool& to, std::int64_t into) {
  const std::int64_t bytes = from.bytes_.shape()[1];
  NIBBLE_CHECK(to.bytes_.shape()[1] == bytes);
  const auto* source = from.bytes_.data<std::uint8_t>() + block * bytes;
  auto* target = to.bytes_.mutable_data<std::uint8_t>() + into * bytes;
  const auto count = static_cast<std::size_t>(bytes);
  if (to.memory_->is_host()) {
    from.memory_->copy_out(source, count, target);
  } else {
    to.memory_->copy_in(source, count, target);
  }
}

std::int64_t KvPool::block_bytes(const ModelSpec& spec, std::int64_t block_rows,
                                 const KvFormat& format) {
  const AttentionSpec& attention = spec.attention;
  const std::int64_t row = kv_row_bytes(format.type, attention.head_dim);
  return element_count({spec.layers, 2, attention.kv_heads, head_bytes(block_rows, row)});
}

}  // namespace nibble
