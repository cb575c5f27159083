// Fetching one thing from a hub, as often as it takes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "hub/http.h"
#include "hub/repository.h"

namespace nibble::hub {

struct DownloadOptions {
  std::string token;  // of the hub; empty: none
  // Sleeps. Called between attempts, by any thread; may throw to give up.
  std::function<void(std::int64_t seconds)> wait;
  // Bytes that came (negative: that are to come again). By any thread; may throw to give up.
  std::function<void(std::int64_t bytes)> arrived;
};

// The reply to a request that was tried again, six times at most without progress, while
// connections fail or the server asks for patience (429, 500, 502, 503, 504), as long as it asks
// for. kUsage for 401, 403 and 404, with what to do; kDisk when the network or the server fails for
// good. `attempt` sends the request and says whether anything came that stays.
HttpReply fetch_patiently(const DownloadOptions& options,
                          const std::function<HttpReply(bool& progress)>& attempt);

// A text of at most `max_bytes`; likewise. kCorrupt when it is longer.
std::string download_text(const std::string& url, std::size_t max_bytes,
                          const DownloadOptions& options);

// The file at `url` as `blob`, which appears when it is whole and has file.digest; until then it
// grows as `blob`.incomplete, from where a later call goes on. file.digest must be set. Another
// process that fetches the same is waited for, by a lock on `lock`. kCorrupt when size or checksum
// are others, the second time too; kDisk when it cannot be written; else as above. Returns whether
// anything had to be fetched.
bool download_blob(const std::string& url, const HubFile& file, const std::filesystem::path& blob,
                   const std::filesystem::path& lock, const DownloadOptions& options);

}  // namespace nibble::hub
