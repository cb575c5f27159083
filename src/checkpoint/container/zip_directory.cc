#include "checkpoint/container/zip_directory.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace nibble {
namespace {

constexpr std::uint32_t kLocalHeader = 0x04034b50;
constexpr std::uint32_t kCentralHeader = 0x02014b50;
constexpr std::uint32_t kEnd = 0x06054b50;
constexpr std::uint32_t kEnd64 = 0x06064b50;
constexpr std::uint32_t kEnd64Locator = 0x07064b50;
constexpr std::uint64_t kEndBytes = 22;
constexpr std::uint64_t kLocatorBytes = 20;
constexpr std::uint16_t kNarrow16 = 0xffff;      // the value stands in a ZIP64 record
constexpr std::uint32_t kNarrow32 = 0xffffffff;  // the same
constexpr std::uint16_t kZip64Extra = 1;

// The bytes of the file, read with bounds.
class Reader {
 public:
  Reader(std::span<const std::byte> file, std::string_view what) : file_(file), what_(what) {}

  template <class T>
  T at(std::uint64_t offset) const {
    T value;
    std::memcpy(&value, bytes(offset, sizeof value).data(), sizeof value);
    return value;
  }

  std::span<const std::byte> bytes(std::uint64_t offset, std::uint64_t count) const {
    if (offset > file_.size() || count > file_.size() - offset) {
      fail(ErrorKind::kCorrupt,
           "{}: bytes {} + {} of the archive lie behind its end at {} (cut off?)", what_, offset,
           count, file_.size());
    }
    return file_.subspan(offset, count);
  }

  std::uint64_t size() const { return file_.size(); }
  std::string_view what() const { return what_; }

 private:
  std::span<const std::byte> file_;
  std::string_view what_;
};

struct Directory {
  std::uint64_t members = 0;
  std::uint64_t offset = 0;
};

// The record at the end, which a comment of up to 65535 bytes may follow.
std::uint64_t find_end(const Reader& file) {
  constexpr std::uint64_t kMaxComment = 65535;
  if (file.size() >= kEndBytes) {
    const std::uint64_t last = file.size() - kEndBytes;
    const std::uint64_t first = last - std::min(last, kMaxComment);
    for (std::uint64_t at = last + 1; at-- > first;) {
      if (file.at<std::uint32_t>(at) == kEnd) return at;
    }
  }
  fail(ErrorKind::kCorrupt, "{}: the archive has no directory at its end (cut off?)", file.what());
}

Directory find_directory(const Reader& file) {
  const std::uint64_t end = find_end(file);
  if (file.at<std::uint16_t>(end + 4) != 0 && file.at<std::uint16_t>(end + 4) != kNarrow16) {
    fail(ErrorKind::kUnsupported, "{}: an archive in several parts", file.what());
  }
  Directory found{file.at<std::uint16_t>(end + 10), file.at<std::uint32_t>(end + 16)};
  const bool wide = found.members == kNarrow16 || found.offset == kNarrow32;
  if (!wide || end < kLocatorBytes ||
      file.at<std::uint32_t>(end - kLocatorBytes) != kEnd64Locator) {
    return found;
  }
  const auto record = file.at<std::uint64_t>(end - kLocatorBytes + 8);
  if (file.at<std::uint32_t>(record) != kEnd64) {
    fail(ErrorKind::kCorrupt, "{}: the archive's ZIP64 record is not where it should be",
         file.what());
  }
  return {file.at<std::uint64_t>(record + 32), file.at<std::uint64_t>(record + 48)};
}

// Replaces sizes and the offset that 32 bits do not hold.
void read_zip64_extra(const Reader& file, std::uint64_t begin, std::uint64_t length,
                      std::uint64_t* stored, std::uint64_t* size, std::uint64_t* header) {
  const std::uint64_t end = begin + length;
  for (std::uint64_t at = begin; at + 4 <= end;) {
    const auto id = file.at<std::uint16_t>(at);
    const std::uint64_t field_end = at + 4 + file.at<std::uint16_t>(at + 2);
    if (id == kZip64Extra) {
      std::uint64_t value = at + 4;
      for (std::uint64_t* field : {size, stored, header}) {
        if (*field != kNarrow32) continue;
        if (value + 8 > field_end) {
          fail(ErrorKind::kCorrupt, "{}: a ZIP64 field is too short", file.what());
        }
        *field = file.at<std::uint64_t>(value);
        value += 8;
      }
      return;
    }
    at = field_end;
  }
}

// Where the bytes behind a member's own header begin.
std::uint64_t data_offset(const Reader& file, std::uint64_t header) {
  if (file.at<std::uint32_t>(header) != kLocalHeader) {
    fail(ErrorKind::kCorrupt, "{}: no member of the archive begins at byte {}", file.what(),
         header);
  }
  return header + 30 + file.at<std::uint16_t>(header + 26) + file.at<std::uint16_t>(header + 28);
}

}  // namespace

std::map<std::string, ZipMember> read_zip_directory(std::span<const std::byte> bytes,
                                                    std::string_view what) {
  const Reader file(bytes, what);
  const Directory directory = find_directory(file);
  if (directory.members > kMaxZipMembers) {
    fail(ErrorKind::kCorrupt, "{}: an archive of {} members, more than the limit of {}", what,
         directory.members, kMaxZipMembers);
  }
  std::map<std::string, ZipMember> members;
  std::uint64_t at = directory.offset;
  for (std::uint64_t i = 0; i < directory.members; ++i) {
    if (file.at<std::uint32_t>(at) != kCentralHeader) {
      fail(ErrorKind::kCorrupt, "{}: entry {} of the archive's directory is damaged", what, i);
    }
    const auto flags = file.at<std::uint16_t>(at + 8);
    const auto method = file.at<std::uint16_t>(at + 10);
    std::uint64_t stored = file.at<std::uint32_t>(at + 20);
    std::uint64_t size = file.at<std::uint32_t>(at + 24);
    const std::uint64_t name_bytes = file.at<std::uint16_t>(at + 28);
    const std::uint64_t extra_bytes = file.at<std::uint16_t>(at + 30);
    std::uint64_t header = file.at<std::uint32_t>(at + 42);
    const auto name = file.bytes(at + 46, name_bytes);
    const std::string text(reinterpret_cast<const char*>(name.data()), name.size());
    read_zip64_extra(file, at + 46 + name_bytes, extra_bytes, &stored, &size, &header);
    if ((flags & 1) != 0 || method != 0 || stored != size) {
      fail(ErrorKind::kUnsupported, "{}: member '{}' is compressed or encrypted", what, text);
    }
    const std::uint64_t offset = data_offset(file, header);
    file.bytes(offset, size);
    if (!members.emplace(text, ZipMember{offset, size}).second) {
      fail(ErrorKind::kCorrupt, "{}: member '{}' stands in the archive twice", what, text);
    }
    at += 46 + name_bytes + extra_bytes + file.at<std::uint16_t>(at + 32);
  }
  return members;
}

bool looks_like_zip(std::span<const std::byte> file) {
  std::uint32_t word = 0;
  if (file.size() < sizeof word) return false;
  std::memcpy(&word, file.data(), sizeof word);
  return word == kLocalHeader;
}

}  // namespace nibble
