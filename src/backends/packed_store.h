// Where a backend may keep the bytes that it made of weights, from one start to the next.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "tensor/tensor.h"

namespace nibble {

// Blobs by name. Not thread-safe.
class PackedStore {
 public:
  virtual ~PackedStore() = default;
  // A U8 tensor of `bytes` elements, aligned to 64 bytes; empty when there is none of this name and
  // size. Its values may be anything.
  virtual Tensor find(const std::string& name, std::size_t bytes) = 0;
  // Keeps the tensor (of any type); it must not change any more.
  virtual void put(const std::string& name, const Tensor& tensor) = 0;
};

// The place of one weight in a store; without a store nothing is found or kept.
struct PackedSlot {
  PackedStore* store = nullptr;
  std::string weight;  // unique in the model
};

// One part of a repacked weight. Kernels must be safe for any values in it.
struct PackedPlane {
  const char* name;
  DType dtype;
  Shape shape;
  Tensor* tensor;  // set by load_planes(), read by save_planes()
};

// `layout` names the meaning of the bytes, its version included; a layout that is not the same
// under every instruction set says so in its name. True when the store had all planes, which then
// view its bytes; false leaves them alone.
bool load_planes(const PackedSlot& slot, std::string_view layout,
                 std::span<const PackedPlane> planes);
void save_planes(const PackedSlot& slot, std::string_view layout,
                 std::span<const PackedPlane> planes);

}  // namespace nibble
