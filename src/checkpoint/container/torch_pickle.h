// The tensors that a pickle of torch.save describes, found without running anything.
//
// A pickle is a program for a stack machine; Python's runs whatever functions it names. This one
// has the instructions that dictionaries of tensors need, builds plain values, and knows the few
// names that PyTorch rebuilds tensors with: any other name is an error that says it.
// Source: Python, Lib/pickletools.py (protocols 2 to 5); PyTorch, torch/_utils.py and
// torch/serialization.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/tensor.h"

namespace nibble {

inline constexpr std::size_t kMaxPickleBytes = 100'000'000;
inline constexpr std::size_t kMaxPickledRank = 16;

// A strided view of a storage, in elements.
struct PickledTensor {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  std::vector<std::int64_t> strides;  // as many as dimensions; none negative
  std::int64_t offset = 0;
  std::string storage;                // its key: the member data/<key> of the archive
  std::int64_t storage_elements = 0;  // what the pickle says
};

// Tensors of the outermost dictionary, or of the one that stands in it under the name that training
// programs give to a model's state; other values are passed over. Sorted by name. Views lie inside
// storage_elements and have no more elements than that. kCorrupt, naming `what`, for what is no
// such pickle; kUnsupported for names and instructions that are not known here.
std::vector<PickledTensor> read_torch_pickle(std::span<const std::byte> pickle,
                                             std::string_view what);

}  // namespace nibble
