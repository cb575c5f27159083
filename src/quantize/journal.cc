#include "quantize/journal.h"

#include <cstring>

#include "base/error.h"
#include "base/file.h"
#include "base/mmap.h"

namespace nibble {

Journal::Journal(std::filesystem::path directory, std::function<void(const std::string&)> on_saved,
                 double seconds)
    : directory_(std::move(directory)), on_saved_(std::move(on_saved)), interval_(seconds) {
  std::error_code error;
  std::filesystem::create_directory(directory_, error);
  if (error) fail(ErrorKind::kDisk, "{}: cannot create: {}", directory_.string(), error.message());
}

bool Journal::due() {
  const Clock::time_point now = Clock::now();
  if (now - last_ < interval_) return false;
  last_ = now;
  return true;
}

bool Journal::has(const std::string& name) const {
  return std::filesystem::exists(directory_ / name);
}

void Journal::put(const std::string& name, std::string_view value) {
  write_file_atomic(directory_ / name, value);
  if (on_saved_) on_saved_(name);
}

std::string Journal::get(const std::string& name) const {
  return read_text_file(directory_ / name);
}

void Journal::remove(const std::string& name) {
  std::error_code ignored;  // a value that stays costs disk, nothing else
  std::filesystem::remove(directory_ / name, ignored);
}

void Journal::put_floats(const std::string& name, std::span<const float> values) {
  put(name, {reinterpret_cast<const char*>(values.data()), values.size_bytes()});
}

void Journal::get_floats(const std::string& name, std::span<float> values) const {
  const auto file = MappedFile::open(directory_ / name);
  if (file->bytes().size() != values.size_bytes()) {
    fail(ErrorKind::kCorrupt, "{}: holds {} bytes instead of {}; remove it and begin again",
         (directory_ / name).string(), file->bytes().size(), values.size_bytes());
  }
  std::memcpy(values.data(), file->bytes().data(), values.size_bytes());
}

}  // namespace nibble
