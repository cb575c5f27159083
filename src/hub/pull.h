// Bringing a model of a hub into the cache that huggingface_hub keeps, so that both find what the
// other fetched:
//
//   <cache>/models--org--name/blobs/<checksum>             contents
//                            /refs/<revision>              the commit that it was last
//                            /snapshots/<commit>/<path>    links into blobs
//   <cache>/.locks/models--org--name/<checksum>.lock
//
// Source: huggingface_hub, "Understand caching", and file_download.py.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/log.h"
#include "hub/repository.h"

namespace nibble::hub {

struct PullOptions {
  std::string endpoint;                                 // "https://huggingface.co"
  std::string token;                                    // empty: none
  std::filesystem::path cache;                          // the folder of all models
  std::vector<std::string> include;                     // included(); empty: all
  int jobs = 4;                                         // files at a time
  std::function<void(std::int64_t seconds)> wait = {};  // sleeps between attempts; empty: really
};

// From HF_ENDPOINT, HF_TOKEN (or the file HF_TOKEN_PATH, or <HF_HOME>/token), HF_HUB_CACHE,
// HF_HOME, XDG_CACHE_HOME and HOME, as huggingface_hub reads them. kUsage when one of them cannot
// be meant.
PullOptions pull_options_from_environment();

struct PullReport {
  std::filesystem::path snapshot;
  std::string commit;
  std::int64_t files = 0;    // of the snapshot that were asked for
  std::int64_t fetched = 0;  // of these, that were not in the cache
  std::int64_t bytes = 0;    // of all of them
};

// Fetches what is missing; every file is compared with the checksum that the hub names before it
// appears. Interrupted, it goes on where it stopped. kUsage when there is no such model, file or
// right to read it; kCorrupt for answers that contradict themselves; kDisk when network or disk
// fail.
PullReport pull(const RepositoryName& repository, const PullOptions& options,
                const ProgressSink& progress = {});

}  // namespace nibble::hub
