#include "checkpoint/container/tensor_file.h"

#include <cstring>

#include "base/error.h"
#include "base/mmap.h"
#include "checkpoint/container/safetensors.h"
#include "checkpoint/container/torch_file.h"

namespace nibble {
namespace {

// A pickle at the very beginning (torch.save before 1.6), or a tar archive (before 0.2).
bool is_old_torch_file(std::span<const std::byte> file) {
  constexpr std::size_t kTarMagic = 257;
  const auto has = [&](std::size_t at, std::string_view text) {
    return file.size() >= at + text.size() &&
           std::memcmp(file.data() + at, text.data(), text.size()) == 0;
  };
  return has(0, "\x80\x02\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.") ||
         has(kTarMagic, "ustar");
}

}  // namespace

std::unique_ptr<const TensorFile> open_tensor_file(const std::filesystem::path& path) {
  const std::shared_ptr<const MappedFile> file = MappedFile::open(path);
  if (looks_like_zip(file->bytes())) return std::make_unique<const TorchFile>(file);
  if (is_old_torch_file(file->bytes())) {
    fail(
        ErrorKind::kUnsupported,
        "{}: a file of PyTorch before 1.6; load it there with weights_only=True and save it again, "
        "as safetensors best",
        path.string());
  }
  return std::make_unique<const SafetensorsFile>(file);
}

}  // namespace nibble
