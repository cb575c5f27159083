#include "checkpoint/container/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <set>

#include "base/error.h"

namespace nibble {
namespace {

struct PlainType {
  std::uint32_t id;
  DType dtype;
};
constexpr PlainType kPlainTypes[] = {{0, DType::kF32},  {1, DType::kF16},  {24, DType::kI8},
                                     {25, DType::kI16}, {26, DType::kI32}, {27, DType::kI64},
                                     {28, DType::kF64}, {30, DType::kBF16}};

constexpr int kMaxDims = 4;

// Reads numbers and strings one after the other, within bounds.
class Reader {
 public:
  Reader(std::span<const std::byte> file, std::string_view what) : file_(file), what_(what) {}

  template <class... Args>
  [[noreturn]] void corrupt(fmt::format_string<Args...> format, Args&&... args) const {
    fail(ErrorKind::kCorrupt, "{}: {} (at byte {})", what_,
         fmt::format(format, std::forward<Args>(args)...), position_);
  }

  std::size_t position() const { return position_; }
  std::uint64_t left() const { return file_.size() - position_; }
  void set_swapped(bool swapped) { swapped_ = swapped; }

  std::span<const std::byte> take(std::uint64_t count, const char* item) {
    if (count > left()) corrupt("{} of {} bytes, but {} are left", item, count, left());
    const auto taken = file_.subspan(position_, count);
    position_ += count;
    return taken;
  }

  template <class T>
  T number(const char* item) {
    std::array<std::byte, sizeof(T)> bytes;
    std::ranges::copy(take(sizeof(T), item), bytes.begin());
    if (swapped_) std::ranges::reverse(bytes);
    return std::bit_cast<T>(bytes);
  }

  std::string string(const char* item, std::uint64_t most) {
    const auto length = number<std::uint64_t>(item);
    if (length > most) corrupt("{} of {} bytes, {} are allowed", item, length, most);
    const auto bytes = take(length, item);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

 private:
  std::span<const std::byte> file_;
  std::string_view what_;
  std::size_t position_ = 0;
  bool swapped_ = false;
};

// Bytes that a value takes at least.
std::uint64_t least_bytes(GgufKind kind) {
  switch (kind) {
    case GgufKind::kU8:
    case GgufKind::kI8:
    case GgufKind::kBool:
      return 1;
    case GgufKind::kU16:
    case GgufKind::kI16:
      return 2;
    case GgufKind::kU32:
    case GgufKind::kI32:
    case GgufKind::kF32:
      return 4;
    default:
      return 8;
  }
}

Json read_scalar(Reader& reader, GgufKind kind, const std::string& key) {
  constexpr const char* kItem = "a value";
  switch (kind) {
    case GgufKind::kU8:
      return reader.number<std::uint8_t>(kItem);
    case GgufKind::kI8:
      return reader.number<std::int8_t>(kItem);
    case GgufKind::kU16:
      return reader.number<std::uint16_t>(kItem);
    case GgufKind::kI16:
      return reader.number<std::int16_t>(kItem);
    case GgufKind::kU32:
      return reader.number<std::uint32_t>(kItem);
    case GgufKind::kI32:
      return reader.number<std::int32_t>(kItem);
    case GgufKind::kF32:
      return reader.number<float>(kItem);
    case GgufKind::kBool:
      return reader.number<std::uint8_t>(kItem) != 0;
    case GgufKind::kString:
      return reader.string("a text", reader.left());
    case GgufKind::kU64:
      return reader.number<std::uint64_t>(kItem);
    case GgufKind::kI64:
      return reader.number<std::int64_t>(kItem);
    case GgufKind::kF64:
      return reader.number<double>(kItem);
    case GgufKind::kArray:
      break;
  }
  reader.corrupt("key '{}' holds an array of arrays", key.substr(0, 64));
}

GgufKind read_kind(Reader& reader, const std::string& key) {
  const auto kind = reader.number<std::uint32_t>("the type of a value");
  if (kind > static_cast<std::uint32_t>(GgufKind::kF64)) {
    reader.corrupt("key '{}' has a value of type {}", key.substr(0, 64), kind);
  }
  return static_cast<GgufKind>(kind);
}

Json read_value(Reader& reader, const std::string& key) {
  const GgufKind kind = read_kind(reader, key);
  if (kind != GgufKind::kArray) return read_scalar(reader, kind, key);
  const GgufKind element = read_kind(reader, key);
  const auto count = reader.number<std::uint64_t>("the length of an array");
  if (count > kMaxGgufArray || count > reader.left() / least_bytes(element)) {
    reader.corrupt("key '{}' holds {} values in {} bytes", key.substr(0, 64), count, reader.left());
  }
  Json::array_t values;
  values.reserve(count);
  for (std::uint64_t i = 0; i < count; ++i) values.push_back(read_scalar(reader, element, key));
  return values;
}

void read_metadata(Reader& reader, std::uint64_t count, GgufHeader& header) {
  constexpr std::uint64_t kLeast = 8 + 4 + 1;
  if (count > reader.left() / kLeast) {
    reader.corrupt("{} keys in {} bytes", count, reader.left());
  }
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::string key = reader.string("a key", kMaxGgufKey);
    if (header.metadata.contains(key)) reader.corrupt("key '{}' twice", key.substr(0, 64));
    header.metadata[key] = read_value(reader, key);
  }
  const auto alignment = header.metadata.find("general.alignment");
  if (alignment == header.metadata.end()) return;
  const std::uint64_t value = alignment->is_number_unsigned() ? alignment->get<std::uint64_t>() : 0;
  if (!std::has_single_bit(value) || value > (std::uint64_t{1} << 30)) {
    reader.corrupt("an alignment of {}", alignment->is_number() ? alignment->dump() : "no number");
  }
  header.alignment = value;
}

// Type, shape and size of a tensor whose name is known.
void read_extent(Reader& reader, GgufTensor& tensor) {
  const std::string shown = tensor.name.substr(0, 64);
  const auto dims = reader.number<std::uint32_t>("a number of dimensions");
  if (dims < 1 || dims > kMaxDims) reader.corrupt("tensor '{}' has {} dimensions", shown, dims);
  constexpr std::uint64_t kMost = std::uint64_t{1} << 62;
  std::uint64_t product = 1;
  for (std::uint32_t i = 0; i < dims; ++i) {
    const auto size = reader.number<std::uint64_t>("a dimension");
    if (size < 1 || size > kMost / product) {
      reader.corrupt("tensor '{}' has a dimension of {} beside {} elements", shown, size, product);
    }
    product *= size;
    tensor.shape.insert(tensor.shape.begin(), static_cast<std::int64_t>(size));
  }
  const auto id = reader.number<std::uint32_t>("a type");
  const auto type = gguf_type_of_id(id);
  if (!type) {
    fail(ErrorKind::kUnsupported,
         "tensor '{}': type {} is none of ggml's that nibble knows (forks of llama.cpp have types "
         "of their own); take a file of standard types",
         shown, id);
  }
  tensor.type = *type;
  const std::int64_t columns = tensor.shape.back(), block = type->elements();
  if (columns % block != 0) {
    reader.corrupt("tensor '{}': blocks of {} do not divide {} columns", shown, block, columns);
  }
  const std::uint64_t blocks = product / static_cast<std::uint64_t>(block);
  const auto size = static_cast<std::uint64_t>(type->bytes());
  if (blocks > kMost / size) reader.corrupt("tensor '{}' has {} blocks", shown, blocks);
  tensor.bytes = blocks * size;
}

void read_tensors(Reader& reader, std::uint64_t count, GgufHeader& header) {
  constexpr std::uint64_t kLeast = 8 + 4 + 8 + 4 + 8;
  if (count > reader.left() / kLeast) {
    reader.corrupt("{} tensors in {} bytes", count, reader.left());
  }
  std::set<std::string_view> names;
  header.tensors.reserve(count);
  for (std::uint64_t i = 0; i < count; ++i) {
    GgufTensor& tensor = header.tensors.emplace_back();
    tensor.name = reader.string("the name of a tensor", kMaxGgufKey);
    if (!names.insert(tensor.name).second) {
      reader.corrupt("tensor '{}' twice", tensor.name.substr(0, 64));
    }
    read_extent(reader, tensor);
    tensor.offset = reader.number<std::uint64_t>("an offset");
    if (tensor.offset % header.alignment != 0) {
      reader.corrupt("tensor '{}' begins at {}, which is not aligned to {}",
                     tensor.name.substr(0, 64), tensor.offset, header.alignment);
    }
  }
}

// Every tensor lies within the data, and no two of them overlap.
void check_places(const Reader& reader, std::uint64_t data_bytes, const GgufHeader& header) {
  std::vector<const GgufTensor*> sorted;
  for (const GgufTensor& tensor : header.tensors) sorted.push_back(&tensor);
  std::ranges::sort(sorted, {}, &GgufTensor::offset);
  std::uint64_t end = 0;
  for (const GgufTensor* tensor : sorted) {
    if (tensor->offset < end) {
      reader.corrupt("tensor '{}' overlaps another one", tensor->name.substr(0, 64));
    }
    if (tensor->offset > data_bytes || tensor->bytes > data_bytes - tensor->offset) {
      reader.corrupt("tensor '{}' ends at {} of {} bytes of data (truncated?)",
                     tensor->name.substr(0, 64), tensor->offset + tensor->bytes, data_bytes);
    }
    end = tensor->offset + tensor->bytes;
  }
}

void reverse_each(std::byte* bytes, std::size_t size, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i, bytes += size) std::reverse(bytes, bytes + size);
}

// `count` numbers of `size` bytes that stand in a block from byte `at` on, one every `step` bytes.
struct WideNumbers {
  int at, size = 2, count = 1, step = 2;
};

// The numbers of a block that ggml's decoders read as more than a byte: what a machine of the other
// order writes in its own. Bytes that they read one by one stay, also where the writer once put
// them together.
std::vector<WideNumbers> wide_numbers_of(BlockType type) {
  switch (type) {
    case BlockType::kQ4_1:
    case BlockType::kQ8_1:
    case BlockType::kQ4_K:
    case BlockType::kQ5_K:
    case BlockType::kIq4Xs:
      return {{0}, {2}};
    case BlockType::kQ5_0:
      return {{0}, {2, 4}};
    case BlockType::kQ5_1:
      return {{0}, {2}, {4, 4}};
    case BlockType::kQ2_K:
      return {{80}, {82}};
    case BlockType::kQ3_K:
      return {{108}};
    case BlockType::kQ6_K:
      return {{208}};
    case BlockType::kQ8_K:
      return {{0, 4}, {260, 2, 16}};
    case BlockType::kIq2Xxs:
      return {{0}, {6, 4, 8, 8}};
    case BlockType::kIq2Xs:
      return {{0, 2, 33}};
    case BlockType::kIq3Xxs:
      return {{0}, {66, 4, 8, 4}};
    case BlockType::kIq1S:
      return {{0}, {34, 2, 8}};
    case BlockType::kIq1M:
      return {{48, 2, 4}};
    case BlockType::kTq1_0:
      return {{52}};
    case BlockType::kTq2_0:
      return {{64}};
    case BlockType::kMxfp4:
    case BlockType::kNvfp4:
      return {};
    case BlockType::kQ4_0:
    case BlockType::kQ8_0:
    case BlockType::kIq4Nl:
    case BlockType::kIq2S:
    case BlockType::kIq3S:
    case BlockType::kQ1_0:
    case BlockType::kQ2_0:
      return {{0}};
  }
  return {};
}

// A copy with the numbers in this machine's order.
Tensor turned(const Tensor& stored, const GgufTensor& tensor) {
  Tensor copy = Tensor::allocate(stored.dtype(), stored.shape());
  auto* const bytes = static_cast<std::byte*>(copy.address());
  std::ranges::copy(stored.bytes(), bytes);
  if (!tensor.type.block) {
    reverse_each(bytes, dtype_size(stored.dtype()), static_cast<std::size_t>(stored.elements()));
    return copy;
  }
  const std::vector<WideNumbers> wide = wide_numbers_of(*tensor.type.block);
  const auto size = static_cast<std::size_t>(layout_of(*tensor.type.block).bytes);
  for (std::size_t at = 0; at < copy.byte_size(); at += size) {
    for (const WideNumbers& numbers : wide) {
      std::byte* number = bytes + at + numbers.at;
      for (int i = 0; i < numbers.count; ++i, number += numbers.step) {
        std::reverse(number, number + numbers.size);
      }
    }
  }
  return copy;
}

}  // namespace

std::int64_t GgufType::bytes() const {
  return block ? layout_of(*block).bytes : static_cast<std::int64_t>(dtype_size(dtype));
}

std::string GgufType::name() const {
  return std::string(block ? layout_of(*block).name : to_string(dtype));
}

std::optional<GgufType> gguf_type_of_id(std::uint32_t id) {
  if (const auto block = block_type_of_id(id)) return GgufType{id, DType::kU8, *block};
  for (const PlainType& plain : kPlainTypes) {
    if (plain.id == id) return GgufType{id, plain.dtype, std::nullopt};
  }
  return std::nullopt;
}

std::optional<GgufType> gguf_type_of(DType dtype) {
  const auto plain = std::ranges::find(kPlainTypes, dtype, &PlainType::dtype);
  if (plain == std::end(kPlainTypes)) return std::nullopt;
  return GgufType{plain->id, dtype, std::nullopt};
}

GgufType gguf_type_of(BlockType block) { return {layout_of(block).id, DType::kU8, block}; }

GgufHeader parse_gguf(std::span<const std::byte> file, std::string_view what) {
  Reader reader(file, what);
  const auto magic = reader.take(4, "the magic");
  if (std::memcmp(magic.data(), "GGUF", 4) != 0) reader.corrupt("it does not begin with GGUF");
  GgufHeader header;
  header.version = reader.number<std::uint32_t>("the version");
  header.swapped = (header.version & 0xffff) == 0 && header.version != 0;
  if (header.swapped) header.version = __builtin_bswap32(header.version);
  reader.set_swapped(header.swapped);
  if (header.version != 2 && header.version != 3) {
    fail(ErrorKind::kUnsupported, "{}: version {} of GGUF; nibble reads 2 and 3", what,
         header.version);
  }
  const auto tensors = reader.number<std::uint64_t>("the number of tensors");
  const auto keys = reader.number<std::uint64_t>("the number of keys");
  read_metadata(reader, keys, header);
  read_tensors(reader, tensors, header);
  const std::uint64_t aligned =
      (reader.position() + header.alignment - 1) / header.alignment * header.alignment;
  // A file without tensors may end before the padding.
  header.data_offset = std::min<std::uint64_t>(aligned, file.size());
  check_places(reader, file.size() - header.data_offset, header);
  return header;
}

bool is_gguf(const std::filesystem::path& path) {
  if (!std::filesystem::is_regular_file(path)) return false;
  const auto file = MappedFile::open(path);
  return file->bytes().size() >= 4 && std::memcmp(file->bytes().data(), "GGUF", 4) == 0;
}

GgufFile::GgufFile(const std::filesystem::path& path)
    : file_(MappedFile::open(path)), header_(parse_gguf(file_->bytes(), path.string())) {}

Tensor GgufFile::read(const GgufTensor& tensor) const {
  Shape shape = tensor.shape;
  if (tensor.type.block) {
    shape.back() = shape.back() / tensor.type.elements() * tensor.type.bytes();
  }
  const auto bytes = file_->bytes().subspan(header_.data_offset + tensor.offset, tensor.bytes);
  const Tensor stored = Tensor::view(tensor.type.dtype, std::move(shape), bytes, file_);
  return header_.swapped ? turned(stored, tensor) : stored;
}

}  // namespace nibble
