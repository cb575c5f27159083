#include "checkpoint/container/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "base/json.h"

namespace nibble {
namespace {

static_assert(std::endian::native == std::endian::little, "tensor bytes are mapped as they are");

// Receives the events of nlohmann's iterative parser, so that a header of 100 MB costs no document
// tree. Only the one structure that the format allows is accepted:
//   { "name": {"dtype": str, "shape": [uint...], "data_offsets": [uint, uint]}, ...,
//     "__metadata__": {str: str} }
class HeaderHandler final : public nlohmann::json_sax<Json> {
 public:
  HeaderHandler(std::string_view what, SafetensorsHeader& header) : what_(what), header_(header) {}

  bool null() override { return unexpected("null"); }
  bool boolean(bool /*value*/) override { return unexpected("a boolean"); }
  bool number_integer(number_integer_t /*value*/) override {
    return unexpected("a negative number");
  }
  bool number_float(number_float_t /*value*/, const string_t& text) override {
    return unexpected(text);
  }
  bool binary(binary_t& /*value*/) override { return unexpected("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (state_ == State::kShape) {
      if (entry().shape.size() == kMaxSafetensorsRank) {
        corrupt("has more than {} dimensions", kMaxSafetensorsRank);
      }
      if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
        corrupt("has a dimension of {}", value);
      }
      entry().shape.push_back(static_cast<std::int64_t>(value));
      return true;
    }
    if (state_ == State::kOffsets && offsets_ < 2) {
      (offsets_ == 0 ? entry().begin : entry().end) = value;
      ++offsets_;
      return true;
    }
    return unexpected("a number");
  }

  bool string(string_t& value) override {
    if (state_ == State::kDType) {
      entry().dtype = value;
      state_ = State::kTensor;
      return true;
    }
    if (state_ == State::kMetadataValue) {
      if (!header_.metadata.emplace(key_, value).second) {
        fail(ErrorKind::kCorrupt, "{}: duplicate key '{}' in __metadata__", what_, key_);
      }
      state_ = State::kMetadata;
      return true;
    }
    return unexpected("a string");
  }

  bool start_object(std::size_t /*elements*/) override {
    if (state_ == State::kStart) {
      state_ = State::kRoot;
    } else if (state_ == State::kRootValue && key_ == "__metadata__") {
      if (metadata_seen_) fail(ErrorKind::kCorrupt, "{}: duplicate key '__metadata__'", what_);
      metadata_seen_ = true;
      state_ = State::kMetadata;
    } else if (state_ == State::kRootValue) {
      if (header_.entries.size() == kMaxSafetensorsTensors) {
        fail(ErrorKind::kCorrupt, "{}: more than {} tensors", what_, kMaxSafetensorsTensors);
      }
      header_.entries.emplace_back().name = key_;
      seen_ = 0;
      state_ = State::kTensor;
    } else {
      return unexpected("an object");
    }
    return true;
  }

  bool key(string_t& value) override {
    if (state_ == State::kRoot) {
      key_ = value;
      state_ = State::kRootValue;
    } else if (state_ == State::kMetadata) {
      key_ = value;
      state_ = State::kMetadataValue;
    } else if (value == "dtype") {
      enter_field(1, State::kDType, value);
    } else if (value == "shape") {
      enter_field(2, State::kShapeStart, value);
    } else if (value == "data_offsets") {
      enter_field(4, State::kOffsetsStart, value);
    } else {
      corrupt("has the unknown key '{}'", value);
    }
    return true;
  }

  bool end_object() override {
    if (state_ == State::kTensor) {
      if (seen_ != 7) corrupt("lacks one of dtype, shape and data_offsets");
      state_ = State::kRoot;
    } else if (state_ == State::kMetadata) {
      state_ = State::kRoot;
    }
    return true;
  }

  bool start_array(std::size_t /*elements*/) override {
    if (state_ == State::kShapeStart) {
      state_ = State::kShape;
    } else if (state_ == State::kOffsetsStart) {
      offsets_ = 0;
      state_ = State::kOffsets;
    } else {
      return unexpected("an array");
    }
    return true;
  }

  bool end_array() override {
    if (state_ == State::kOffsets && offsets_ != 2) corrupt("needs two data_offsets");
    state_ = State::kTensor;
    return true;
  }

  bool parse_error(std::size_t /*position*/, const std::string& /*token*/,
                   const nlohmann::detail::exception& error) override {
    fail(ErrorKind::kCorrupt, "{}: header is not valid JSON: {}", what_, error.what());
  }

 private:
  enum class State {
    kStart,
    kRoot,
    kRootValue,
    kTensor,
    kDType,
    kShapeStart,
    kShape,
    kOffsetsStart,
    kOffsets,
    kMetadata,
    kMetadataValue,
  };

  SafetensorsEntry& entry() { return header_.entries.back(); }

  void enter_field(unsigned bit, State state, const std::string& name) {
    if ((seen_ & bit) != 0) corrupt("has the duplicate key '{}'", name);
    seen_ |= bit;
    state_ = state;
  }

  bool unexpected(std::string_view thing) const {
    fail(ErrorKind::kCorrupt, "{}: unexpected {} in the header{}", what_, thing,
         key_.empty() ? "" : ", under '" + key_ + "'");
  }

  template <class... Args>
  [[noreturn]] void corrupt(fmt::format_string<Args...> format, Args&&... args) const {
    fail(ErrorKind::kCorrupt, "{}: tensor '{}' {}", what_, key_,
         fmt::format(format, std::forward<Args>(args)...));
  }

  std::string_view what_;
  SafetensorsHeader& header_;
  State state_ = State::kStart;
  std::string key_;       // the last key of the root or of the metadata
  unsigned seen_ = 0;     // fields of the open tensor: 1 dtype, 2 shape, 4 data_offsets
  unsigned offsets_ = 0;  // offsets read so far
  bool metadata_seen_ = false;
};

// Sorts by name and refuses equal names.
void sort_by_name(SafetensorsHeader& header, std::string_view what) {
  std::ranges::sort(header.entries, {}, &SafetensorsEntry::name);
  const auto twin =
      std::ranges::adjacent_find(header.entries, std::ranges::equal_to{}, &SafetensorsEntry::name);
  if (twin != header.entries.end()) {
    fail(ErrorKind::kCorrupt, "{}: duplicate tensor '{}'", what, twin->name);
  }
}

// The size that dtype and shape give must be the size that the offsets give.
void check_size(const SafetensorsEntry& entry, std::uint64_t data_size, std::string_view what) {
  if (entry.begin > entry.end || entry.end > data_size) {
    fail(ErrorKind::kCorrupt, "{}: tensor '{}' lies at bytes {} to {} of {} bytes of data", what,
         entry.name, entry.begin, entry.end, data_size);
  }
  std::uint64_t bytes = 1;
  bool overflow = false;
  for (const std::int64_t dim : entry.shape) {
    overflow |= __builtin_mul_overflow(bytes, static_cast<std::uint64_t>(dim), &bytes);
  }
  overflow |= bytes > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  const std::optional<DType> dtype = parse_dtype(entry.dtype);
  if (!overflow && dtype.has_value()) {
    overflow = __builtin_mul_overflow(bytes, dtype_size(*dtype), &bytes);
  }
  if (overflow) {
    fail(ErrorKind::kCorrupt, "{}: tensor '{}' of shape {} is larger than any memory", what,
         entry.name, to_string(entry.shape));
  }
  if (dtype.has_value() && bytes != entry.end - entry.begin) {
    fail(ErrorKind::kCorrupt, "{}: tensor '{}' of {} {} needs {} bytes, its offsets give {}", what,
         entry.name, entry.dtype, to_string(entry.shape), bytes, entry.end - entry.begin);
  }
}

// In the order of their offsets the tensors must follow each other from 0 to the end of the data.
void check_coverage(const SafetensorsHeader& header, std::uint64_t data_size,
                    std::string_view what) {
  std::vector<const SafetensorsEntry*> order;
  order.reserve(header.entries.size());
  for (const SafetensorsEntry& entry : header.entries) order.push_back(&entry);
  std::ranges::sort(order, {}, [](const auto* e) { return std::pair(e->begin, e->end); });
  std::uint64_t position = 0;
  for (const SafetensorsEntry* entry : order) {
    if (entry->begin != position) {
      const bool overlap = entry->begin < position;
      fail(ErrorKind::kCorrupt,
           "{}: tensor '{}' begins at byte {}, the tensor before it ends at {}: {}", what,
           entry->name, entry->begin, position, overlap ? "they overlap" : "a hole");
    }
    position = entry->end;
  }
  if (position != data_size) {
    fail(ErrorKind::kCorrupt, "{}: {} bytes of data, of which the tensors use {}", what, data_size,
         position);
  }
}

}  // namespace

SafetensorsHeader parse_safetensors(std::span<const std::byte> file, std::string_view what) {
  constexpr std::size_t kPrefix = 8;
  if (file.size() < kPrefix) {
    fail(ErrorKind::kCorrupt, "{}: {} bytes, too short for a safetensors file", what, file.size());
  }
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), sizeof length);
  if (length > kMaxSafetensorsHeader) {
    fail(ErrorKind::kCorrupt, "{}: header of {} bytes, more than the limit of {}", what, length,
         kMaxSafetensorsHeader);
  }
  if (length > file.size() - kPrefix) {
    fail(ErrorKind::kCorrupt, "{}: header of {} bytes in a file of {} (truncated?)", what, length,
         file.size());
  }
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + kPrefix, length);
  if (!text.starts_with('{')) {
    fail(ErrorKind::kCorrupt, "{}: header does not begin with '{{'", what);
  }
  SafetensorsHeader header;
  header.data_offset = kPrefix + length;
  HeaderHandler handler(what, header);
  Json::sax_parse(text.begin(), text.end(), &handler);
  const std::uint64_t data_size = file.size() - header.data_offset;
  sort_by_name(header, what);
  for (const SafetensorsEntry& entry : header.entries) check_size(entry, data_size, what);
  check_coverage(header, data_size, what);
  return header;
}

SafetensorsFile::SafetensorsFile(std::shared_ptr<const MappedFile> file)
    : file_(std::move(file)), header_(parse_safetensors(file_->bytes(), file_->path().string())) {}

std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> names;
  for (const SafetensorsEntry& entry : header_.entries) names.push_back(entry.name);
  return names;
}

const Shape* SafetensorsFile::shape(std::string_view name) const {
  const SafetensorsEntry* entry = find(name);
  return entry == nullptr ? nullptr : &entry->shape;
}

const SafetensorsEntry* SafetensorsFile::find(std::string_view name) const {
  const auto found = std::ranges::lower_bound(header_.entries, name, {}, &SafetensorsEntry::name);
  return found != header_.entries.end() && found->name == name ? &*found : nullptr;
}

Tensor SafetensorsFile::tensor(std::string_view name) const {
  const SafetensorsEntry* entry = find(name);
  if (entry == nullptr) {
    fail(ErrorKind::kCorrupt, "{}: no tensor '{}'", path().string(), name);
  }
  const std::optional<DType> dtype = parse_dtype(entry->dtype);
  if (!dtype.has_value()) {
    fail(ErrorKind::kUnsupported, "{}: tensor '{}' has the unknown dtype '{}'", path().string(),
         name, entry->dtype);
  }
  return Tensor::view(
      *dtype, entry->shape,
      file_->bytes().subspan(header_.data_offset + entry->begin, entry->end - entry->begin), file_);
}

}  // namespace nibble
