#include "checkpoint/container/torch_file.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace nibble {
namespace {

constexpr std::string_view kPickle = "/data.pkl";

// "archive/": the folder that holds everything.
std::string root_of(const std::map<std::string, ZipMember>& members, std::string_view what) {
  for (const auto& [name, member] : members) {
    if (!name.ends_with(kPickle)) continue;
    const std::string root = name.substr(0, name.size() - kPickle.size() + 1);
    if (members.contains(root + "constants.pkl")) {
      fail(ErrorKind::kUnsupported,
           "{}: a TorchScript program, not a file of tensors; save the model's state_dict", what);
    }
    return root;
  }
  fail(ErrorKind::kUnsupported, "{}: an archive without data.pkl; torch.save writes one", what);
}

std::span<const std::byte> bytes_of(std::span<const std::byte> file, const ZipMember& member) {
  return file.subspan(member.offset, member.size);
}

void check_byte_order(std::span<const std::byte> file,
                      const std::map<std::string, ZipMember>& members, const std::string& root,
                      std::string_view what) {
  const auto found = members.find(root + "byteorder");
  if (found == members.end()) return;  // files before version 2.1
  const auto bytes = bytes_of(file, found->second);
  const std::string_view order(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (order != "little") {
    fail(ErrorKind::kUnsupported, "{}: byte order '{}'; nibble reads 'little'", what, order);
  }
}

bool in_order(const PickledTensor& tensor) {
  std::int64_t stride = 1;
  for (std::size_t i = tensor.shape.size(); i-- > 0;) {
    if (tensor.shape[i] > 1 && tensor.strides[i] != stride) return false;
    stride *= tensor.shape[i];
  }
  return true;
}

// The elements in the order of the shape.
Tensor gathered(const PickledTensor& tensor, std::span<const std::byte> storage) {
  Tensor result = Tensor::allocate(tensor.dtype, tensor.shape);
  const std::size_t width = dtype_size(tensor.dtype);
  auto* to = static_cast<std::byte*>(result.address());
  std::vector<std::int64_t> index(tensor.shape.size(), 0);
  std::int64_t at = tensor.offset;
  for (std::int64_t i = 0; i < result.elements(); ++i, to += width) {
    std::memcpy(to, storage.data() + static_cast<std::size_t>(at) * width, width);
    for (std::size_t axis = index.size(); axis-- > 0;) {
      at += tensor.strides[axis];
      if (++index[axis] < tensor.shape[axis]) break;
      at -= tensor.strides[axis] * tensor.shape[axis];
      index[axis] = 0;
    }
  }
  return result;
}

}  // namespace

TorchHeader parse_torch_file(std::span<const std::byte> file, std::string_view what) {
  const auto members = read_zip_directory(file, what);
  const std::string root = root_of(members, what);
  check_byte_order(file, members, root, what);
  TorchHeader header;
  const auto pickle = members.find(root + std::string(kPickle.substr(1)));
  header.tensors = read_torch_pickle(bytes_of(file, pickle->second), what);
  for (const PickledTensor& tensor : header.tensors) {
    const auto member = members.find(root + "data/" + tensor.storage);
    if (member == members.end()) {
      fail(ErrorKind::kCorrupt, "{}: tensor '{}' is in storage '{}', which is not there", what,
           tensor.name, tensor.storage);
    }
    const auto width = static_cast<std::uint64_t>(dtype_size(tensor.dtype));
    if (member->second.size / width < static_cast<std::uint64_t>(tensor.storage_elements)) {
      fail(ErrorKind::kCorrupt, "{}: storage '{}' has {} bytes where {} elements of {} are needed",
           what, tensor.storage, member->second.size, tensor.storage_elements,
           to_string(tensor.dtype));
    }
    header.storages[tensor.storage] = member->second;
  }
  return header;
}

TorchFile::TorchFile(std::shared_ptr<const MappedFile> file)
    : file_(std::move(file)), header_(parse_torch_file(file_->bytes(), file_->path().string())) {}

const PickledTensor* TorchFile::find(std::string_view name) const {
  const auto found = std::ranges::lower_bound(header_.tensors, name, {}, &PickledTensor::name);
  return found != header_.tensors.end() && found->name == name ? &*found : nullptr;
}

std::vector<std::string> TorchFile::names() const {
  std::vector<std::string> names;
  for (const PickledTensor& tensor : header_.tensors) names.push_back(tensor.name);
  return names;
}

const Shape* TorchFile::shape(std::string_view name) const {
  const PickledTensor* tensor = find(name);
  return tensor == nullptr ? nullptr : &tensor->shape;
}

Tensor TorchFile::tensor(std::string_view name) const {
  const PickledTensor* tensor = find(name);
  if (tensor == nullptr) fail(ErrorKind::kCorrupt, "{}: no tensor '{}'", path().string(), name);
  const auto storage = bytes_of(file_->bytes(), header_.storages.at(tensor->storage));
  if (!in_order(*tensor)) return gathered(*tensor, storage);
  const std::size_t width = dtype_size(tensor->dtype);
  const auto count = static_cast<std::size_t>(element_count(tensor->shape));
  const std::size_t begin = count == 0 ? 0 : static_cast<std::size_t>(tensor->offset) * width;
  return Tensor::view(tensor->dtype, tensor->shape, storage.subspan(begin, count * width), file_);
}

}  // namespace nibble
