// Keys and values of one sequence, for every layer, growing by append.
#pragma once

#include <cstdint>

#include "backends/memory.h"
#include "formats/kv_type.h"
#include "model/spec.h"
#include "ops/args.h"
#include "tensor/tensor.h"

namespace nibble {

// Layout: [layers, K and V, kv_heads, capacity] rows of kv_row_bytes(type, head_dim) bytes. The
// rows of one head lie one after the other, so that attention reads memory in order.
class KvCache {
 public:
  // Room for `capacity` tokens, all layers, in the memory of the backend that runs the model (which
  // must outlive the cache). kMemory or kDevice when it cannot be had.
  KvCache(const ModelSpec& spec, std::int64_t capacity, KvType type,
          DeviceMemory& memory = host_memory());

  KvType type() const { return type_; }
  std::int64_t size() const { return size_; }
  std::int64_t capacity() const { return capacity_; }
  // What one token takes, all layers together.
  std::int64_t bytes_per_token() const;

  // Tokens [0, size) stay; a later append overwrites the rest. size <= this->size().
  void truncate(std::int64_t size);
  // Called by the forward pass once a call's tokens are in every layer. kUsage beyond the capacity.
  void advance(std::int64_t rows);
  // Makes room for more tokens; those held are copied. Errors as the constructor's.
  void grow(std::int64_t capacity);

  // Keys and values of a layer: rows in the sense of KvWriteArgs and AttentionArgs, from token 0.
  HeadView<void> k(std::int64_t layer) { return view(2 * layer); }
  HeadView<void> v(std::int64_t layer) { return view(2 * layer + 1); }

  // Whether tokens [begin, size()) hold what F16 cannot say (an infinity or NaN) in a layer; false
  // for other types.
  bool overflowed(std::int64_t layer, std::int64_t begin) const;

 private:
  HeadView<void> view(std::int64_t plane);
  std::int64_t row_offset(std::int64_t plane, std::int64_t head, std::int64_t token) const;
  void allocate(std::int64_t capacity);

  DeviceMemory* memory_;
  KvType type_;
  std::int64_t layers_;
  std::int64_t heads_;
  std::int64_t head_dim_;
  std::int64_t capacity_ = 0;
  std::int64_t size_ = 0;
  std::int64_t row_bytes_;
  std::int64_t head_bytes_ = 0;
  Tensor bytes_;
};

}  // namespace nibble
