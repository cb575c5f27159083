// One .safetensors file: 8 bytes of header length (little-endian), a JSON header, and the data.
// Source: the format description and the reference reader of huggingface/safetensors.
//
// The header is hostile input: its length, depth, ranks, products and offsets are bounded, and the
// tensors must cover the data without hole or overlap, as the reference reader demands.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/mmap.h"
#include "checkpoint/container/tensor_file.h"

namespace nibble {

// The bounds of the reference reader, and two of our own against memory blow-up.
inline constexpr std::uint64_t kMaxSafetensorsHeader = 100'000'000;
inline constexpr std::size_t kMaxSafetensorsRank = 16;
inline constexpr std::size_t kMaxSafetensorsTensors = 1'000'000;

struct SafetensorsEntry {
  std::string name;
  std::string dtype;  // as spelled; possibly one that nibble does not know
  Shape shape;
  std::uint64_t begin = 0;  // bytes from the start of the data, `end` exclusive
  std::uint64_t end = 0;
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  // sorted by name
  std::map<std::string, std::string> metadata;
  std::uint64_t data_offset = 0;  // of the data within the file
};

// Parses and checks the header of a whole file; `what` names it in errors. Throws kCorrupt for
// anything that breaks the format. A dtype that nibble does not know is no error here.
SafetensorsHeader parse_safetensors(std::span<const std::byte> file, std::string_view what);

// A mapped file. Immutable and thread-safe.
class SafetensorsFile final : public TensorFile {
 public:
  explicit SafetensorsFile(std::shared_ptr<const MappedFile> file);
  explicit SafetensorsFile(const std::filesystem::path& path)
      : SafetensorsFile(MappedFile::open(path)) {}

  const std::filesystem::path& path() const override { return file_->path(); }
  std::vector<std::string> names() const override;
  const Shape* shape(std::string_view name) const override;
  const std::vector<SafetensorsEntry>& entries() const { return header_.entries; }
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  // Null when there is no tensor of this name.
  const SafetensorsEntry* find(std::string_view name) const;
  // A view of the mapped bytes, which stay alive with it.
  Tensor tensor(std::string_view name) const override;

 private:
  std::shared_ptr<const MappedFile> file_;
  SafetensorsHeader header_;
};

}  // namespace nibble
