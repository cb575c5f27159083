// Read-only memory map of a whole file.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>

namespace nibble {

// The bytes stay valid as long as the object lives; share it with shared_ptr. Thread-safe
// (immutable). Mapped pages are file-backed: they do not count as anonymous memory and can be
// dropped by the kernel.
class MappedFile {
 public:
  // Throws kCorrupt when the path is missing or no regular file, kDisk when it cannot be mapped.
  // An empty file maps to an empty span.
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path& path);

  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }

 private:
  MappedFile(std::filesystem::path path, const std::byte* data, std::size_t size);

  std::filesystem::path path_;
  const std::byte* data_;
  std::size_t size_;
};

}  // namespace nibble
