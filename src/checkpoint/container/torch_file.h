// A file of torch.save (pytorch_model.bin): a ZIP archive of one pickle and the bytes of storages.
// Source: PyTorch, torch/serialization.py; the form since version 1.6.
#pragma once

#include <memory>
#include <vector>

#include "base/mmap.h"
#include "checkpoint/container/tensor_file.h"
#include "checkpoint/container/torch_pickle.h"
#include "checkpoint/container/zip_directory.h"

namespace nibble {

// The tensors of such a file, and where the storages of all lie in it, as the pickle says and the
// archive bears out; `what` names it in errors.
struct TorchHeader {
  std::vector<PickledTensor> tensors;         // sorted by name
  std::map<std::string, ZipMember> storages;  // by key
};
TorchHeader parse_torch_file(std::span<const std::byte> file, std::string_view what);

class TorchFile final : public TensorFile {
 public:
  explicit TorchFile(std::shared_ptr<const MappedFile> file);

  const std::filesystem::path& path() const override { return file_->path(); }
  std::vector<std::string> names() const override;
  const Shape* shape(std::string_view name) const override;
  Tensor tensor(std::string_view name) const override;

 private:
  const PickledTensor* find(std::string_view name) const;

  std::shared_ptr<const MappedFile> file_;
  TorchHeader header_;
};

}  // namespace nibble
