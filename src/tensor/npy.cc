#include "tensor/npy.h"

#include <charconv>
#include <cstring>
#include <string_view>
#include <utility>

#include "base/file.h"
#include "base/mmap.h"

namespace nibble {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";

constexpr std::pair<std::string_view, DType> kTypes[] = {
    {"|u1", DType::kU8},  {"|i1", DType::kI8},  {"<i4", DType::kI32}, {"<i8", DType::kI64},
    {"<f2", DType::kF16}, {"<f4", DType::kF32}, {"<f8", DType::kF64}, {"|b1", DType::kBool},
};

// The text after 'key': in the header's Python dictionary literal.
std::string_view value_of(std::string_view header, std::string_view key, const std::string& what) {
  const std::string quoted = "'" + std::string(key) + "':";
  const std::size_t at = header.find(quoted);
  if (at == std::string_view::npos) {
    fail(ErrorKind::kCorrupt, "{}: npy header lacks '{}'", what, key);
  }
  std::string_view value = header.substr(at + quoted.size());
  value.remove_prefix(std::min(value.size(), value.find_first_not_of(' ')));
  return value;
}

Shape parse_shape(std::string_view text, const std::string& what) {
  if (!text.starts_with('(')) fail(ErrorKind::kCorrupt, "{}: npy shape is no tuple", what);
  text.remove_prefix(1);
  Shape shape;
  while (!text.starts_with(')')) {
    std::int64_t dim = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), dim);
    if (error != std::errc() || dim < 0) fail(ErrorKind::kCorrupt, "{}: bad npy shape", what);
    shape.push_back(dim);
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    while (text.starts_with(',') || text.starts_with(' ')) text.remove_prefix(1);
  }
  return shape;
}

DType parse_type(std::string_view value, const std::string& what) {
  for (const auto& [name, dtype] : kTypes) {
    if (value.starts_with("'" + std::string(name) + "'")) return dtype;
  }
  fail(ErrorKind::kUnsupported, "{}: npy element type {} is not supported", what,
       value.substr(0, std::min<std::size_t>(value.size(), 8)));
}

}  // namespace

Tensor parse_npy(std::span<const std::byte> bytes, const std::string& what) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.size() < 10 || !text.starts_with(kMagic)) {
    fail(ErrorKind::kCorrupt, "{}: not an npy file", what);
  }
  const bool long_header = static_cast<unsigned char>(text[6]) >= 2;
  const std::size_t start = long_header ? 12 : 10;
  std::uint32_t length = 0;
  if (text.size() < start) fail(ErrorKind::kCorrupt, "{}: npy header is cut short", what);
  std::memcpy(&length, text.data() + 8, start - 8);
  if (text.size() - start < length) fail(ErrorKind::kCorrupt, "{}: npy header is cut short", what);
  const std::string_view header = text.substr(start, length);

  const DType dtype = parse_type(value_of(header, "descr", what), what);
  if (!value_of(header, "fortran_order", what).starts_with("False")) {
    fail(ErrorKind::kUnsupported, "{}: npy array is in Fortran order; save it in C order", what);
  }
  const Shape shape = parse_shape(value_of(header, "shape", what), what);
  const std::size_t available = bytes.size() - start - length;
  if (static_cast<std::size_t>(element_count(shape)) > available / dtype_size(dtype)) {
    fail(ErrorKind::kCorrupt, "{}: npy data is cut short for shape {}", what, to_string(shape));
  }
  Tensor tensor = Tensor::allocate(dtype, shape);
  std::memcpy(const_cast<std::byte*>(tensor.bytes().data()), bytes.data() + start + length,
              tensor.byte_size());
  return tensor;
}

Tensor read_npy(const std::filesystem::path& path) {
  return parse_npy(MappedFile::open(path)->bytes(), path.string());
}

std::string npy_header(DType dtype, const Shape& shape) {
  std::string_view type;
  for (const auto& [name, candidate] : kTypes) {
    if (candidate == dtype) type = name;
  }
  if (type.empty()) fail(ErrorKind::kUnsupported, "npy cannot hold {}", to_string(dtype));
  std::string dims;
  for (const std::int64_t dim : shape) dims += std::to_string(dim) + ", ";
  std::string dictionary =
      fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", type, dims);
  constexpr std::size_t kAlign = 64;
  dictionary.append(kAlign - (10 + dictionary.size() + 1) % kAlign, ' ');
  dictionary += '\n';
  std::string header(kMagic);
  header += '\x01';
  header += '\x00';
  header += static_cast<char>(dictionary.size() & 0xff);
  header += static_cast<char>(dictionary.size() >> 8);
  return header + dictionary;
}

void write_npy(const std::filesystem::path& path, const Tensor& tensor) {
  std::string content = npy_header(tensor.dtype(), tensor.shape());
  content.append(reinterpret_cast<const char*>(tensor.bytes().data()), tensor.byte_size());
  write_file_atomic(path, content);
}

}  // namespace nibble
