#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "base/error.h"
#include "base/mmap.h"

namespace nibble {
namespace {

[[noreturn]] void fail_io(const std::filesystem::path& path, const char* what) {
  const int code = errno;
  fail(ErrorKind::kDisk, "{}: {}: {}", path.string(), what, std::strerror(code));
}

}  // namespace

std::string read_text_file(const std::filesystem::path& path) {
  const auto file = MappedFile::open(path);
  const auto bytes = file->bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void write_file_atomic(const std::filesystem::path& path, std::string_view content) {
  const std::filesystem::path temporary = path.string() + ".tmp";
  try {
    OutputFile file(temporary, content.size());
    file.write_at(0, std::as_bytes(std::span(content.data(), content.size())));
    file.sync();
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    const int code = errno;
    ::unlink(temporary.c_str());
    errno = code;
    fail_io(path, "cannot rename into place");
  }
  sync_path(path.has_parent_path() ? path.parent_path() : std::filesystem::path("."));
}

void sync_path(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail_io(path, "cannot open to sync");
  const int result = ::fsync(fd);
  ::close(fd);
  if (result != 0) fail_io(path, "cannot sync");
}

OutputFile::OutputFile(const std::filesystem::path& path, std::size_t size)
    : path_(path), fd_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)) {
  if (fd_ < 0) fail_io(path_, "cannot create");
  int result = ::ftruncate(fd_, static_cast<off_t>(size)) == 0 ? 0 : errno;
  if (result == 0 && size > 0) {
    result = ::posix_fallocate(fd_, 0, static_cast<off_t>(size));
    if (result == EOPNOTSUPP || result == EINVAL) result = 0;  // file systems without reservation
  }
  if (result != 0) {
    ::close(fd_);
    errno = result;
    fail_io(path_, "cannot reserve space");
  }
}

OutputFile::~OutputFile() { ::close(fd_); }

void OutputFile::write_at(std::size_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail_io(path_, "cannot write");
    offset += static_cast<std::size_t>(n);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
}

void OutputFile::sync() {
  if (::fsync(fd_) != 0) fail_io(path_, "cannot sync");
}

bool is_valid_utf8(std::string_view text) {
  const auto* p = reinterpret_cast<const unsigned char*>(text.data());
  const auto* const end = p + text.size();
  while (p < end) {
    const unsigned lead = *p++;
    if (lead < 0x80) continue;
    const int extra = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
    if (lead < 0xc2 || lead > 0xf4 || end - p < extra) return false;
    std::uint32_t code = lead & (0x3fu >> extra);
    for (int i = 0; i < extra; ++i) {
      if ((*p & 0xc0u) != 0x80u) return false;
      code = (code << 6) | (*p++ & 0x3fu);
    }
    constexpr std::uint32_t kSmallest[] = {0, 0x80, 0x800, 0x10000};
    if (code < kSmallest[extra] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) {
      return false;
    }
  }
  return true;
}

}  // namespace nibble
