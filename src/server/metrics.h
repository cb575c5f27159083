// What /metrics says: Prometheus' text format, version 0.0.4.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "runtime/engine.h"

namespace nibble::server {

// Thread-safe.
class Histogram {
 public:
  // `bounds` rise; a value counts in the first bucket whose bound it does not pass.
  explicit Histogram(std::vector<double> bounds);
  void observe(double value);
  // The lines of one series; `labels` is "a=\"b\"", not empty.
  void render(const std::string& name, const std::string& labels, std::string& out) const;

 private:
  std::vector<double> bounds_;
  mutable std::mutex mutex_;
  std::vector<std::int64_t> counts_;  // one more than bounds
  double sum_ = 0;
};

// Counts what the engine does not: times as a client of the server sees them, and answers. Every
// series is given twice, as nibble:NAME and as vllm:NAME, so that dashboards made for vLLM work.
// Thread-safe.
class Metrics {
 public:
  Metrics();

  Histogram time_to_first_token;  // all in seconds
  Histogram inter_token;
  Histogram end_to_end;
  Histogram queue;
  Histogram prompt_tokens;  // of a request
  Histogram generation_tokens;

  void count_finished(const std::string& reason);  // "stop", "length", "abort", "error"
  void count_response(int status);

  std::string render(const EngineStats& stats, const std::string& model) const;

 private:
  mutable std::mutex mutex_;
  std::map<std::string, std::int64_t> finished_;
  std::map<int, std::int64_t> responses_;
};

}  // namespace nibble::server
