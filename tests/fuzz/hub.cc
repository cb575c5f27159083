// Answers of a hub: any text is a list of files within a folder or a clean error, and so are the
// headers and names.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/error.h"
#include "hub/repository.h"

namespace {

// Whether a path, taken against a folder, stays in it.
bool stays(const std::string& path) {
  const std::filesystem::path normal = (std::filesystem::path("/f") / path).lexically_normal();
  return normal.string().starts_with("/f/");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace nibble;
  const std::string text(reinterpret_cast<const char*>(data), size);
  try {
    for (const hub::HubFile& file : hub::parse_repository_files(text, "fuzz").files) {
      if (!stays(file.path) || file.size < -1) std::abort();
      if (!file.digest.empty() && file.digest.size() != 40 && file.digest.size() != 64)
        std::abort();
    }
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kCorrupt) std::abort();
  }
  try {
    const hub::RepositoryName name = hub::parse_repository_name(text);
    if (!stays(name.revision) || !stays(hub::repository_folder(name).string())) std::abort();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kUsage) std::abort();
  }
  if (hub::parse_retry_after(text, std::chrono::system_clock::now()).value_or(0) < 0) std::abort();
  if (hub::digest_of_etag(text).find('/') != std::string::npos) std::abort();
  return 0;
}
