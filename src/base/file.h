// Whole-file reads and durable writes.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace nibble {

// kCorrupt when the file is missing or unreadable.
std::string read_text_file(const std::filesystem::path& path);

// Writes beside, fsyncs and renames, so that readers see the old file or the whole new one.
// kDisk on any failure; the temporary file is removed.
void write_file_atomic(const std::filesystem::path& path, std::string_view content);

// fsync of a file or directory that exists; kDisk on failure.
void sync_path(const std::filesystem::path& path);

// A file open for positioned writes. kDisk on any failure (full disk, read-only target).
class OutputFile {
 public:
  // Creates the file or opens it as it is, and makes it `size` bytes long (space is reserved at
  // once, so that a full disk is met here and not in the middle).
  OutputFile(const std::filesystem::path& path, std::size_t size);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write_at(std::size_t offset, std::span<const std::byte> bytes);
  void sync();

 private:
  std::filesystem::path path_;
  int fd_;
};

// True when `text` is well-formed UTF-8 (no overlong forms, no surrogates).
bool is_valid_utf8(std::string_view text);

}  // namespace nibble
