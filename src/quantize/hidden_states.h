// Hidden states of a text, in the memory of the backend that runs the model on it.
#pragma once

#include <cstdint>
#include <string>

#include "backends/backend.h"
#include "quantize/journal.h"

namespace nibble {

// F32 [rows, width], not initialised.
class HiddenStates {
 public:
  HiddenStates(Backend& backend, std::int64_t rows, std::int64_t width)
      : memory_(&backend.memory()),
        tensor_(memory_->allocate(DType::kF32, {rows, width})),
        width_(width) {}

  std::int64_t rows() const { return tensor_.dim(0); }
  float* row(std::int64_t row) { return tensor_.mutable_data<float>() + row * width_; }
  const float* row(std::int64_t row) const { return tensor_.data<float>() + row * width_; }

  // Rows [from, from + count) of `source`, in the same memory, to those from `to` on.
  void copy(const HiddenStates& source, std::int64_t from, std::int64_t count, std::int64_t to);

  void save(Journal& journal, const std::string& name) const;
  // kCorrupt unless as many values were saved.
  void restore(const Journal& journal, const std::string& name);

 private:
  DeviceMemory* memory_;
  Tensor tensor_;
  std::int64_t width_;
};

}  // namespace nibble
