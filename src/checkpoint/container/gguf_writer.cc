#include "checkpoint/container/gguf_writer.h"

#include <limits>

#include "base/error.h"

namespace nibble {
namespace {

template <class T>
void put(std::string& to, T value) {
  to.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void put_text(std::string& to, std::string_view text) {
  put(to, static_cast<std::uint64_t>(text.size()));
  to += text;
}

std::uint64_t aligned(std::uint64_t offset) {
  return (offset + kGgufAlignment - 1) / kGgufAlignment * kGgufAlignment;
}

void put_description(std::string& to, const GgufTensor& tensor) {
  put_text(to, tensor.name);
  put(to, static_cast<std::uint32_t>(tensor.shape.size()));
  for (auto dim = tensor.shape.rbegin(); dim != tensor.shape.rend(); ++dim) {
    put(to, static_cast<std::uint64_t>(*dim));
  }
  put(to, tensor.type.id);
  put(to, tensor.offset);
}

}  // namespace

void GgufMetadata::key(std::string_view key, GgufKind kind) {
  NIBBLE_CHECK(key.size() <= kMaxGgufKey);
  ++count_;
  put_text(bytes_, key);
  put(bytes_, kind);
}

template <class T>
void GgufMetadata::list(std::string_view name, GgufKind kind, std::span<const T> values) {
  key(name, GgufKind::kArray);
  put(bytes_, kind);
  put(bytes_, static_cast<std::uint64_t>(values.size()));
  bytes_.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
}

void GgufMetadata::add(std::string_view name, std::string_view text) {
  key(name, GgufKind::kString);
  put_text(bytes_, text);
}

void GgufMetadata::add(std::string_view name, bool value) {
  key(name, GgufKind::kBool);
  put(bytes_, static_cast<std::uint8_t>(value));
}

void GgufMetadata::add_u16(std::string_view name, std::uint16_t value) {
  key(name, GgufKind::kU16);
  put(bytes_, value);
}

void GgufMetadata::add_u32(std::string_view name, std::uint64_t value) {
  if (value > std::numeric_limits<std::uint32_t>::max()) {
    fail(ErrorKind::kUnsupported, "{} is {}, and GGUF holds it in 32 bits", name, value);
  }
  key(name, GgufKind::kU32);
  put(bytes_, static_cast<std::uint32_t>(value));
}

void GgufMetadata::add_i32(std::string_view name, std::int32_t value) {
  key(name, GgufKind::kI32);
  put(bytes_, value);
}

void GgufMetadata::add_f32(std::string_view name, double value) {
  key(name, GgufKind::kF32);
  put(bytes_, static_cast<float>(value));
}

void GgufMetadata::add(std::string_view name, std::span<const std::string> texts) {
  key(name, GgufKind::kArray);
  put(bytes_, GgufKind::kString);
  put(bytes_, static_cast<std::uint64_t>(texts.size()));
  for (const std::string& text : texts) put_text(bytes_, text);
}

void GgufMetadata::add(std::string_view name, std::span<const std::int32_t> values) {
  list(name, GgufKind::kI32, values);
}
void GgufMetadata::add(std::string_view name, std::span<const float> values) {
  list(name, GgufKind::kF32, values);
}
void GgufMetadata::add(std::string_view name, std::span<const std::uint8_t> values) {
  list(name, GgufKind::kU8, values);
}

GgufWriter::GgufWriter(const std::filesystem::path& path, const GgufMetadata& metadata,
                       std::vector<GgufTensor> plan)
    : tensors_(std::move(plan)) {
  std::string head = "GGUF";
  put(head, std::uint32_t{3});
  put(head, static_cast<std::uint64_t>(tensors_.size()));
  put(head, metadata.count());
  head += metadata.bytes();
  std::uint64_t end = 0;
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    GgufTensor& tensor = tensors_[i];
    tensor.offset = aligned(end);
    tensor.bytes = static_cast<std::uint64_t>(element_count(tensor.shape) / tensor.type.elements() *
                                              tensor.type.bytes());
    end = tensor.offset + tensor.bytes;
    NIBBLE_CHECK(tensor.shape.back() % tensor.type.elements() == 0);
    NIBBLE_CHECK(places_.emplace(tensor.name, i).second);
    put_description(head, tensor);
  }
  head.resize(aligned(head.size()));
  data_offset_ = head.size();
  // The last tensor is padded too, as readers that count blocks of the alignment expect.
  file_bytes_ = data_offset_ + aligned(end);
  file_ = std::make_unique<OutputFile>(path, file_bytes_);
  file_->write_at(0, std::as_bytes(std::span(head)));
}

void GgufWriter::write(const std::string& name, std::uint64_t offset,
                       std::span<const std::byte> bytes) {
  const auto place = places_.find(name);
  NIBBLE_CHECK(place != places_.end());
  const GgufTensor& tensor = tensors_[place->second];
  NIBBLE_CHECK(offset <= tensor.bytes && bytes.size() <= tensor.bytes - offset);
  file_->write_at(data_offset_ + tensor.offset + offset, bytes);
}

}  // namespace nibble
