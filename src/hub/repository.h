// What is pulled from a hub: names, the list of files, and where they lie in the cache that
// huggingface_hub keeps. Pure functions of hostile text.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::hub {

struct RepositoryName {
  std::string name;               // "org/model", or "model"
  std::string revision = "main";  // a branch, a tag or a commit
};

// "org/model[:revision]". kUsage for anything that is no such name.
RepositoryName parse_repository_name(std::string_view text);

struct HubFile {
  std::string path;        // relative, '/' between components, none of which is "." or ".."
  std::string digest;      // SHA-256 or git's SHA-1 (hub/digest.h); empty: not said
  std::int64_t size = -1;  // bytes; -1: not said
};

struct RepositoryFiles {
  std::string commit;  // 40 hexadecimal digits
  std::vector<HubFile> files;
};

// The answer of /api/models/<name>/revision/<revision>. kCorrupt, naming `what`, for damaged text
// and for paths that would leave the folder.
RepositoryFiles parse_repository_files(std::string_view json, const std::string& what);

// Whether a path matches one of the patterns, or there is none: '*' (also over '/'), '?', '[...]'.
bool included(const std::string& path, const std::vector<std::string>& patterns);

// "120", or a date: seconds from `now` on, 0 for what is past; none when the text is neither.
std::optional<std::int64_t> parse_retry_after(const std::string& text,
                                              std::chrono::system_clock::time_point now);

// The checksum in an ETag header, quotes and "W/" taken off; empty when it is none.
std::string digest_of_etag(std::string_view etag);

// The folder of a model in a cache: "models--org--model".
std::filesystem::path repository_folder(const RepositoryName& name);

}  // namespace nibble::hub
