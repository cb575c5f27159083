// A file of named tensors, whatever its form.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/tensor.h"

namespace nibble {

// Immutable and thread-safe.
class TensorFile {
 public:
  virtual ~TensorFile() = default;

  virtual const std::filesystem::path& path() const = 0;
  virtual std::vector<std::string> names() const = 0;           // sorted
  virtual const Shape* shape(std::string_view name) const = 0;  // null when it is not there
  // Mapped where the file has the elements in order. kCorrupt when the name is not there,
  // kUnsupported when its dtype is not one of tensor/dtype.h.
  virtual Tensor tensor(std::string_view name) const = 0;
};

// Opens a file by what it begins with: safetensors, or an archive of torch.save.
std::unique_ptr<const TensorFile> open_tensor_file(const std::filesystem::path& path);

}  // namespace nibble
