// A buffer of a backend's pool for as long as a scope lasts.
#pragma once

#include <cstdint>
#include <utility>

#include "backends/backend.h"

namespace nibble {

// F32 [rows, cols] in the backend's memory, not initialised.
class Rows {
 public:
  Rows(Backend& backend, std::int64_t rows, std::int64_t cols)
      : pool_(&backend.buffers()), tensor_(pool_->take(rows * cols)), rows_(rows), cols_(cols) {}
  ~Rows() {
    if (!tensor_.empty()) pool_->give(std::move(tensor_));
  }
  Rows(Rows&& other) noexcept
      : pool_(other.pool_),
        tensor_(std::exchange(other.tensor_, {})),
        rows_(other.rows_),
        cols_(other.cols_) {}
  Rows& operator=(Rows&& other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(tensor_, other.tensor_);
    std::swap(rows_, other.rows_);
    std::swap(cols_, other.cols_);
    return *this;
  }

  float* data() { return tensor_.mutable_data<float>(); }
  const float* data() const { return tensor_.data<float>(); }
  std::int64_t rows() const { return rows_; }
  std::int64_t cols() const { return cols_; }
  // Rows [begin, end) as a tensor, which may not outlive the buffer.
  Tensor matrix(std::int64_t begin, std::int64_t end) const {
    return tensor_.rows(begin * cols_, end * cols_).reshaped({end - begin, cols_});
  }

 private:
  BufferPool* pool_;
  Tensor tensor_;
  std::int64_t rows_;
  std::int64_t cols_;
};

}  // namespace nibble
