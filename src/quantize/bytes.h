// Values in byte strings: what a run keeps on disk to resume. Host byte order; never leaves the
// machine.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"

namespace nibble {

class ByteWriter {
 public:
  template <class T>
  void put(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(T));
  }
  void put_text(const std::string& text) {
    put(static_cast<std::uint64_t>(text.size()));
    bytes_ += text;
  }
  template <class T>
  void put_values(std::span<const T> values) {
    put(static_cast<std::uint64_t>(values.size()));
    bytes_.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
  }
  std::string take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

// kCorrupt, naming `what`, when the bytes end early or are not used up.
class ByteReader {
 public:
  ByteReader(const std::string& bytes, std::string what) : bytes_(bytes), what_(std::move(what)) {}

  template <class T>
  T get() {
    T value;
    std::memcpy(&value, take(sizeof(T)), sizeof(T));
    return value;
  }
  std::string get_text() {
    const auto size = get<std::uint64_t>();
    const char* begin = take(size);
    return {begin, begin + size};
  }
  template <class T>
  std::vector<T> get_values() {
    const auto count = get<std::uint64_t>();
    if (count > bytes_.size() / sizeof(T)) fail_short();
    std::vector<T> values(count);
    std::memcpy(values.data(), take(count * sizeof(T)), count * sizeof(T));
    return values;
  }
  void expect_end() const {
    if (position_ != bytes_.size()) fail(ErrorKind::kCorrupt, "{}: too many bytes", what_);
  }

 private:
  [[noreturn]] void fail_short() const {
    fail(ErrorKind::kCorrupt, "{}: ends early; remove the .partial directory and begin again",
         what_);
  }
  const char* take(std::uint64_t size) {
    if (size > bytes_.size() - position_) fail_short();
    const char* at = bytes_.data() + position_;
    position_ += size;
    return at;
  }

  const std::string& bytes_;
  std::string what_;
  std::size_t position_ = 0;
};

}  // namespace nibble
