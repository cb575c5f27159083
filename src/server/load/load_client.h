// Sends many completions to an OpenAI-compatible server over HTTP/1.1 and times what streams back.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/log.h"
#include "server/load/trace.h"

namespace nibble::server {

struct LoadOptions {
  std::string url;                // http://host:port, with or without /v1
  std::string model;              // empty: the first that the server lists
  std::string api_key;            // empty: none
  std::size_t concurrency = 0;    // requests that are under way at most; 0 = no limit
  double time_scale = 1;          // arrivals come so many times as fast
  double timeout_seconds = 3600;  // of one request
  std::int64_t vocab = 1000;
  std::uint64_t seed = 0;
  float temperature = 0;
  // Not 0: the run ends so long after all of `concurrency` requests, which is not 0 then, have had
  // their first text; what is under way is cut off.
  double window_seconds = 0;
};

// Times in seconds after the start of the run.
struct LoadRecord {
  double sent = 0;
  std::vector<double> chunks;  // when text came
  double ended = 0;
  std::int64_t prompt_tokens = 0;  // as the server counts them, or else as sent
  std::int64_t output_tokens = 0;  // as the server counts them, or else chunks
  std::string error;               // empty: all went well
  bool cut = false;                // the window ended before
};

struct LoadRun {
  std::vector<LoadRecord> records;  // of the requests that were sent
  // Of a run with a window.
  double window_begin = 0;
  double window_end = 0;
};

// Requests go out when they arrive, unless `concurrency` holds them back; answers are asked to have
// their full length (ignore_eos). Failures of single requests are in their records. kUsage for a
// URL that makes no sense and for a window that the requests do not fill, kDisk when the server
// cannot be reached at all.
LoadRun run_load(const std::vector<LoadRequest>& requests, const LoadOptions& options,
                 const ProgressSink& progress = {});

}  // namespace nibble::server
