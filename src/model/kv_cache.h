// Keys and values of one sequence, for every layer, growing by append.
#pragma once

#include <cstdint>
#include <vector>

#include "model/spec.h"
#include "tensor/tensor.h"

namespace nibble {

// Layout per layer: [capacity, kv_heads, head_dim] of `dtype` (F32, F16, BF16) for K and for V.
class KvCache {
 public:
  // Room for `capacity` tokens, all layers. kMemory when it cannot be had.
  KvCache(const ModelSpec& spec, std::int64_t capacity, DType dtype);

  DType dtype() const { return dtype_; }
  std::int64_t size() const { return size_; }
  std::int64_t capacity() const { return capacity_; }

  // Tokens [0, size) stay; a later append overwrites the rest. size <= this->size().
  void truncate(std::int64_t size);
  // Called by the forward pass once a call's tokens are in every layer. kUsage beyond the capacity.
  void advance(std::int64_t rows);

  Tensor& k(std::int64_t layer) { return k_[static_cast<std::size_t>(layer)]; }
  Tensor& v(std::int64_t layer) { return v_[static_cast<std::size_t>(layer)]; }

 private:
  DType dtype_;
  std::int64_t capacity_ = 0;
  std::int64_t size_ = 0;
  std::vector<Tensor> k_, v_;
};

}  // namespace nibble
