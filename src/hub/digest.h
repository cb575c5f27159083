// Checksums of files as the hub names them: SHA-256 of large files, and git's SHA-1 of blobs.
#pragma once

#include <filesystem>
#include <string>

namespace nibble::hub {

// Whether a file has the checksum: 64 digits are SHA-256 of the content, 40 are SHA-1 over
// "blob <size>\0" and the content. kInternal for anything else, kDisk when reading fails.
bool has_digest(const std::filesystem::path& path, const std::string& digest);

}  // namespace nibble::hub
