// From records of a load test to the figures that serving is compared by.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "server/load/load_client.h"

namespace nibble::server {

// Of a sample, linear between its values (as numpy's percentile). All 0 for an empty one.
struct Percentiles {
  double mean = 0, p50 = 0, p90 = 0, p95 = 0, p99 = 0, max = 0;
};
Percentiles percentiles(std::vector<double> sample);

// Bounds that a good request keeps, in seconds; 0 = none.
struct LoadGoal {
  double first_token = 0;
  double per_token = 0;
  double end_to_end = 0;
};

struct LoadReport {
  std::int64_t completed = 0;
  std::int64_t failed = 0;
  double seconds = 0;             // from the first request's sending to the last one's end
  std::int64_t input_tokens = 0;  // of completed requests
  std::int64_t output_tokens = 0;
  double request_throughput = 0;  // a second
  double output_throughput = 0;   // tokens a second
  double total_throughput = 0;    // tokens of prompts and answers a second
  double goodput = 0;             // requests a second that kept the goal
  std::int64_t cut = 0;           // requests under way when the window ended
  double window_seconds = 0;      // 0: none
  double window_throughput = 0;   // output tokens a second in it, of whatever request
  // In seconds. TTFT from sending to the first text; TPOT the rest of a request over its other
  // tokens; ITL between two pieces of text; E2E from sending to the end.
  Percentiles ttft, tpot, itl, e2e;
  std::map<std::string, std::int64_t> errors;
};

LoadReport load_report(const LoadRun& run, const LoadGoal& goal);
Json to_json(const LoadReport& report);  // times in ms
std::string to_text(const LoadReport& report);

}  // namespace nibble::server
