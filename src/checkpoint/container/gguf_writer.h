// Writing GGUF files, version 3, in this machine's byte order. Source: ggml, docs/gguf.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "checkpoint/container/gguf.h"

namespace nibble {

// Key-value pairs in the order in which they are added. Not thread-safe; no key may come twice.
class GgufMetadata {
 public:
  void add(std::string_view key, std::string_view text);
  void add(std::string_view key, const char* text) { add(key, std::string_view(text)); }
  void add(std::string_view key, bool value);
  void add_u16(std::string_view key, std::uint16_t value);
  void add_u32(std::string_view key, std::uint64_t value);  // kUnsupported from 2^32 on
  void add_i32(std::string_view key, std::int32_t value);
  void add_f32(std::string_view key, double value);
  void add(std::string_view key, std::span<const std::string> texts);
  void add(std::string_view key, std::span<const std::int32_t> values);
  void add(std::string_view key, std::span<const float> values);
  void add(std::string_view key, std::span<const std::uint8_t> values);

  std::uint64_t count() const { return count_; }
  const std::string& bytes() const { return bytes_; }

 private:
  void key(std::string_view key, GgufKind kind);
  template <class T>
  void list(std::string_view key, GgufKind kind, std::span<const T> values);

  std::uint64_t count_ = 0;
  std::string bytes_;
};

// One file whose tensors are all known beforehand: header and offsets follow from the plan, tensors
// may be written in any order and in parts.
class GgufWriter {
 public:
  // Creates the file, reserves its space and writes the header. Of the plan name, type and shape
  // count; offset and bytes are found here. kInternal when a name stands twice, kDisk when writing
  // fails.
  GgufWriter(const std::filesystem::path& path, const GgufMetadata& metadata,
             std::vector<GgufTensor> plan);

  // Bytes [offset, offset + bytes.size()) of a tensor. Thread-safe for parts that do not overlap.
  // kInternal when they are not within a planned tensor; kDisk when writing fails.
  void write(const std::string& name, std::uint64_t offset, std::span<const std::byte> bytes);
  // Everything is on disk when this returns.
  void sync() { file_->sync(); }

  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  std::uint64_t file_bytes() const { return file_bytes_; }

 private:
  std::vector<GgufTensor> tensors_;
  std::map<std::string, std::size_t> places_;  // index of a tensor
  std::uint64_t data_offset_ = 0, file_bytes_ = 0;
  std::unique_ptr<OutputFile> file_;
};

}  // namespace nibble
