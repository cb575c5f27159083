// One GGUF file: key-value pairs, tensor descriptions, and the data. Versions 2 and 3, in either
// byte order. Source: ggml, docs/gguf.md.
//
// All of it is hostile input: counts, lengths, dimensions and offsets are bounded by what the file
// holds before anything is allocated, and no two tensors share bytes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/mmap.h"
#include "formats/block_type.h"
#include "tensor/tensor.h"

namespace nibble {

// Types of values of key-value pairs.
enum class GgufKind : std::uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64
};

// Types of tensors: a plain type of numbers, or blocks.
struct GgufType {
  std::uint32_t id = 0;
  DType dtype = DType::kU8;  // kU8 for blocks
  std::optional<BlockType> block;

  std::int64_t elements() const { return block ? layout_of(*block).elements : 1; }
  std::int64_t bytes() const;  // of so many elements
  std::string name() const;    // "F16", "q4_k"
};
// Nothing for ids that ggml has given up or never gave.
std::optional<GgufType> gguf_type_of_id(std::uint32_t id);
// The type in which plain numbers are stored; nothing for those that GGUF has not.
std::optional<GgufType> gguf_type_of(DType dtype);
GgufType gguf_type_of(BlockType block);

struct GgufTensor {
  std::string name;
  GgufType type;
  Shape shape;               // row-major, the reverse of the file's: [rows, cols]
  std::uint64_t offset = 0;  // from the start of the data
  std::uint64_t bytes = 0;
};

inline constexpr std::size_t kMaxGgufKey = 65535;
inline constexpr std::uint64_t kMaxGgufArray = std::uint64_t{1} << 24;
inline constexpr std::uint64_t kGgufAlignment = 32;  // where no key says another one

struct GgufHeader {
  std::uint32_t version = 3;
  bool swapped = false;  // numbers are in the other byte order than this machine's
  Json metadata = Json::object();
  std::vector<GgufTensor> tensors;  // in the order of the file
  std::uint64_t alignment = kGgufAlignment;
  std::uint64_t data_offset = 0;
};

// Parses and checks the header of a whole file; `what` names it in errors. kCorrupt for anything
// that breaks the format, kUnsupported for versions and types of tensors that nibble does not know.
GgufHeader parse_gguf(std::span<const std::byte> file, std::string_view what);

// Whether a file begins as one.
bool is_gguf(const std::filesystem::path& path);

// A mapped file. Immutable and thread-safe.
class GgufFile {
 public:
  explicit GgufFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_->path(); }
  const GgufHeader& header() const { return header_; }
  // The bytes of a tensor of this file: U8 [all dimensions but the last, bytes of a row] of blocks,
  // and otherwise of its type and shape. A view of the mapped bytes, or a copy where numbers are in
  // the other byte order; kUnsupported for types that nibble cannot turn.
  Tensor read(const GgufTensor& tensor) const;

 private:
  std::shared_ptr<const MappedFile> file_;
  GgufHeader header_;
};

}  // namespace nibble
