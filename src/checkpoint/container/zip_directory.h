// Where the members of a ZIP archive lie. Members are found, never unpacked, so that they can be
// mapped: torch.save stores them without compression and aligned, which no library of ours tells.
// Source: PKWARE APPNOTE 6.3.9, sections 4.3 and 4.5 (ZIP64).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>

namespace nibble {

struct ZipMember {
  std::uint64_t offset = 0;  // of its bytes in the file
  std::uint64_t size = 0;
};

inline constexpr std::size_t kMaxZipMembers = 1'000'000;

// Members by name, all inside the file. kCorrupt, naming `what`, for anything that breaks the
// format or a name that occurs twice; kUnsupported for compressed, encrypted or divided archives.
std::map<std::string, ZipMember> read_zip_directory(std::span<const std::byte> file,
                                                    std::string_view what);

// Whether a file begins as ZIP archives do.
bool looks_like_zip(std::span<const std::byte> file);

}  // namespace nibble
