#include "hub/repository.h"

#include <fnmatch.h>

#include <algorithm>
#include <charconv>
#include <ctime>

#include "base/error.h"
#include "base/json.h"

namespace nibble::hub {
namespace {

constexpr std::size_t kMostFiles = 100'000, kLongestPath = 4096, kLongestName = 96;

bool is_hexadecimal(std::string_view text) {
  return text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

bool is_digest(std::string_view text) {
  return (text.size() == 40 || text.size() == 64) && is_hexadecimal(text);
}

// Components that stay within a folder.
bool is_inner_path(std::string_view path) {
  if (path.empty() || path.size() > kLongestPath) return false;
  while (true) {
    const std::size_t at = path.find('/');
    const std::string_view part = path.substr(0, at);
    const bool odd = std::ranges::any_of(
        part, [](char c) { return static_cast<unsigned char>(c) < 32 || c == 127 || c == '\\'; });
    if (part.empty() || part == "." || part == ".." || odd) return false;
    if (at == std::string_view::npos) return true;
    path.remove_prefix(at + 1);
  }
}

bool is_name_part(std::string_view part) {
  const bool plain = std::ranges::all_of(part, [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '_' || c == '.';
  });
  const auto edge = [](char c) { return c == '-' || c == '.'; };
  return plain && !part.empty() && part.size() <= kLongestName && !edge(part.front()) &&
         !edge(part.back()) && part.find("--") == std::string_view::npos &&
         part.find("..") == std::string_view::npos;
}

std::string text_of(const Json& object, const char* key) {
  const Json value = object.value(key, Json());
  return value.is_string() ? value.get<std::string>() : "";
}

HubFile parse_file(const Json& entry, const std::string& what) {
  if (!entry.is_object()) fail(ErrorKind::kCorrupt, "{}: a file that is no object", what);
  HubFile file;
  file.path = text_of(entry, "rfilename");
  if (!is_inner_path(file.path)) {
    fail(ErrorKind::kCorrupt, "{}: '{}' is no path within a folder; nothing was written", what,
         file.path.substr(0, kLongestName));
  }
  file.digest = text_of(entry, "blobId");
  const Json* sized = &entry;
  const auto large = entry.find("lfs");
  if (large != entry.end() && large->is_object()) {
    file.digest = text_of(*large, "sha256");
    sized = &*large;
  }
  const Json size = sized->value("size", Json());
  constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 48;
  if (size.is_number_unsigned() && size.get<std::uint64_t>() <= kMostBytes) {
    file.size = size.get<std::int64_t>();
  }
  if (!is_digest(file.digest)) file.digest.clear();
  return file;
}

}  // namespace

RepositoryName parse_repository_name(std::string_view text) {
  RepositoryName result;
  const std::size_t colon = text.find(':');
  result.name = text.substr(0, colon);
  if (colon != std::string_view::npos) result.revision = text.substr(colon + 1);
  const std::size_t slash = result.name.find('/');
  const std::string_view name = result.name;
  const bool named = slash == std::string::npos ? is_name_part(name)
                                                : is_name_part(name.substr(0, slash)) &&
                                                      is_name_part(name.substr(slash + 1));
  if (!named || !is_inner_path(result.revision)) {
    fail(ErrorKind::kUsage, "'{}' is no model of a hub; write ORG/MODEL or ORG/MODEL:REVISION",
         text.substr(0, 2 * kLongestName));
  }
  return result;
}

RepositoryFiles parse_repository_files(std::string_view json, const std::string& what) {
  const Json answer = parse_json(json, what, {.max_bytes = std::size_t{64} << 20, .max_depth = 32});
  RepositoryFiles result;
  if (answer.is_object()) result.commit = text_of(answer, "sha");
  const Json siblings = answer.is_object() ? answer.value("siblings", Json()) : Json();
  if (result.commit.size() != 40 || !is_hexadecimal(result.commit) || !siblings.is_array() ||
      siblings.size() > kMostFiles) {
    fail(ErrorKind::kCorrupt, "{}: no list of files of a commit ('sha' and 'siblings')", what);
  }
  for (const Json& entry : siblings) result.files.push_back(parse_file(entry, what));
  std::ranges::sort(result.files, {}, &HubFile::path);
  const auto twice = std::ranges::adjacent_find(result.files, {}, &HubFile::path);
  if (twice != result.files.end()) {
    fail(ErrorKind::kCorrupt, "{}: '{}' is listed twice", what, twice->path);
  }
  return result;
}

bool included(const std::string& path, const std::vector<std::string>& patterns) {
  return patterns.empty() || std::ranges::any_of(patterns, [&](const std::string& pattern) {
           return fnmatch(pattern.c_str(), path.c_str(), 0) == 0;
         });
}

std::optional<std::int64_t> parse_retry_after(const std::string& text,
                                              std::chrono::system_clock::time_point now) {
  std::int64_t seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (error == std::errc{} && end == text.data() + text.size() && seconds >= 0) return seconds;
  std::tm date = {};
  const char* rest = strptime(text.c_str(), "%a, %d %b %Y %H:%M:%S GMT", &date);
  if (rest == nullptr || *rest != 0) return std::nullopt;
  const std::time_t then = timegm(&date);
  return std::max<std::int64_t>(0, then - std::chrono::system_clock::to_time_t(now));
}

std::string digest_of_etag(std::string_view etag) {
  if (etag.starts_with("W/")) etag.remove_prefix(2);
  if (etag.size() >= 2 && etag.front() == '"' && etag.back() == '"') {
    etag = etag.substr(1, etag.size() - 2);
  }
  return is_digest(etag) ? std::string(etag) : "";
}

std::filesystem::path repository_folder(const RepositoryName& name) {
  std::string folder = "models--" + name.name;
  if (const std::size_t slash = folder.find('/'); slash != std::string::npos) {
    folder.replace(slash, 1, "--");
  }
  return folder;
}

}  // namespace nibble::hub
