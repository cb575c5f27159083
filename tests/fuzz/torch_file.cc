// Files of torch.save: any bytes give tensors that lie inside the file, or an Error. The same bytes
// are a pickle by themselves, too.
#include "checkpoint/container/torch_file.h"

#include <cstdint>
#include <cstdlib>

#include "base/error.h"

namespace {

void expect_no_bug(const nibble::Error& error) {
  if (error.kind() != nibble::ErrorKind::kCorrupt &&
      error.kind() != nibble::ErrorKind::kUnsupported) {
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  try {
    const nibble::TorchHeader header = nibble::parse_torch_file(bytes, "fuzz");
    for (const nibble::PickledTensor& tensor : header.tensors) {
      const nibble::ZipMember& member = header.storages.at(tensor.storage);
      if (member.offset > size || member.size > size - member.offset) std::abort();
      const std::int64_t count = nibble::element_count(tensor.shape);
      if (count > tensor.storage_elements) std::abort();
      const auto width = static_cast<std::uint64_t>(nibble::dtype_size(tensor.dtype));
      if (static_cast<std::uint64_t>(tensor.storage_elements) > member.size / width) std::abort();
    }
  } catch (const nibble::Error& error) {
    expect_no_bug(error);
  }
  try {
    nibble::read_torch_pickle(bytes, "fuzz");
  } catch (const nibble::Error& error) {
    expect_no_bug(error);
  }
  return 0;
}
