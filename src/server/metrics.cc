#include "server/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>

namespace nibble::server {
namespace {

// Buckets of vLLM (vllm/v1/metrics/loggers.py), so that quantiles of dashboards compare.
std::vector<double> first_token_bounds() {
  return {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,  0.25,  0.5,   0.75,
          1.0,   2.5,   5.0,  7.5,  10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0};
}
std::vector<double> inter_token_bounds() {
  return {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1,  0.15, 0.2,  0.3,
          0.4,   0.5,    0.75,  1.0,  2.5,   5.0,  7.5,   10.0, 20.0, 40.0, 80.0};
}
std::vector<double> request_bounds() {
  return {0.3,  0.5,  0.8,  1.0,  1.5,   2.0,   2.5,   5.0,   10.0,   15.0,  20.0,
          30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0};
}
std::vector<double> token_bounds() {
  std::vector<double> bounds;
  for (double step = 1; step <= 1e5; step *= 10) {
    for (const double factor : {1, 2, 5}) bounds.push_back(step * factor);
  }
  return bounds;
}

// Prometheus' escapes of a label's value.
std::string escaped(const std::string& value) {
  std::string out;
  for (const char c : value) {
    if (c == '\\' || c == '"') out += '\\';
    out += c == '\n' ? std::string("\\n") : std::string(1, c);
  }
  return out;
}

class Page {
 public:
  Page(std::string prefix, const std::string& model)
      : prefix_(std::move(prefix)), labels_(fmt::format("model_name=\"{}\"", escaped(model))) {}

  void head(std::string_view name, std::string_view type, std::string_view help) {
    out_ += fmt::format("# HELP {0}{1} {2}\n# TYPE {0}{1} {3}\n", prefix_, name, help, type);
  }
  void value(std::string_view name, double value, const std::string& more = "") {
    out_ += fmt::format("{}{}{{{}{}}} {}\n", prefix_, name, labels_, more, value);
  }
  void one(std::string_view name, std::string_view type, std::string_view help, double number) {
    head(name, type, help);
    value(name, number);
  }
  void histogram(const std::string& name, std::string_view help, const Histogram& histogram) {
    head(name, "histogram", help);
    histogram.render(prefix_ + name, labels_, out_);
  }
  std::string take() { return std::move(out_); }

 private:
  std::string prefix_;
  std::string labels_;
  std::string out_;
};

void render_engine(const EngineStats& stats, Page& page) {
  const auto number = [](std::int64_t n) { return static_cast<double>(n); };
  page.one("num_requests_running", "gauge", "Requests that run.", number(stats.running));
  page.one("num_requests_waiting", "gauge", "Requests that wait.", number(stats.waiting));
  page.one("kv_cache_usage_perc", "gauge", "Share of the KV cache in use, 0 to 1.",
           stats.kv_cache_usage);
  page.one("cpu_cache_usage_perc", "gauge", "Share of the swap space in use, 0 to 1.",
           stats.swap_usage);
  page.one("num_preemptions_total", "counter", "Requests that were put back.",
           number(stats.preemptions));
  page.one("swapped_tokens_total", "counter", "Tokens whose keys and values were swapped out.",
           number(stats.swapped_tokens));
  page.one("prompt_tokens_total", "counter", "Tokens of prompts, cached ones included.",
           number(stats.prompt_tokens));
  page.one("generation_tokens_total", "counter", "Tokens generated.",
           number(stats.generation_tokens));
  page.one("prefix_cache_queries_total", "counter", "Tokens looked up in the prefix cache.",
           number(stats.prefix_cache_queries));
  page.one("prefix_cache_hits_total", "counter", "Tokens that the prefix cache had.",
           number(stats.prefix_cache_hits));
  page.one("spec_decode_num_draft_tokens_total", "counter", "Tokens guessed by speculation.",
           number(stats.guessed_tokens));
  page.one("spec_decode_num_accepted_tokens_total", "counter", "Guessed tokens that were right.",
           number(stats.right_guesses));
}

}  // namespace

Histogram::Histogram(std::vector<double> bounds)
    : bounds_(std::move(bounds)), counts_(bounds_.size() + 1) {}

void Histogram::observe(double value) {
  const auto at = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
  const std::lock_guard lock(mutex_);
  ++counts_[static_cast<std::size_t>(at)];
  sum_ += value;
}

void Histogram::render(const std::string& name, const std::string& labels, std::string& out) const {
  const std::lock_guard lock(mutex_);
  std::int64_t below = 0;
  for (std::size_t i = 0; i < counts_.size(); ++i) {
    below += counts_[i];
    const std::string bound = i < bounds_.size() ? fmt::format("{}", bounds_[i]) : "+Inf";
    out += fmt::format("{}_bucket{{{},le=\"{}\"}} {}\n", name, labels, bound, below);
  }
  out += fmt::format("{0}_sum{{{1}}} {2}\n{0}_count{{{1}}} {3}\n", name, labels, sum_, below);
}

Metrics::Metrics()
    : time_to_first_token(first_token_bounds()),
      inter_token(inter_token_bounds()),
      end_to_end(request_bounds()),
      queue(request_bounds()),
      prompt_tokens(token_bounds()),
      generation_tokens(token_bounds()) {
  for (const char* reason : {"stop", "length", "abort", "error"}) finished_[reason] = 0;
}

void Metrics::count_finished(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  ++finished_[reason];
}

void Metrics::count_response(int status) {
  const std::lock_guard lock(mutex_);
  ++responses_[status];
}

std::string Metrics::render(const EngineStats& stats, const std::string& model) const {
  std::string out;
  for (const char* prefix : {"nibble:", "vllm:"}) {
    Page page(prefix, model);
    render_engine(stats, page);
    page.histogram("time_to_first_token_seconds", "From a request to its first token.",
                   time_to_first_token);
    page.histogram("inter_token_latency_seconds", "From one token to the next.", inter_token);
    page.histogram("e2e_request_latency_seconds", "From a request to its end.", end_to_end);
    page.histogram("request_queue_time_seconds", "Time that a request waited.", queue);
    page.histogram("request_prompt_tokens", "Tokens of a request's prompt.", prompt_tokens);
    page.histogram("request_generation_tokens", "Tokens of a request's answer.", generation_tokens);
    const std::lock_guard lock(mutex_);
    page.head("request_success_total", "counter", "Requests that ended, by reason.");
    for (const auto& [reason, count] : finished_) {
      page.value("request_success_total", static_cast<double>(count),
                 fmt::format(",finished_reason=\"{}\"", reason));
    }
    page.head("http_responses_total", "counter", "Answers of the API, by status.");
    for (const auto& [status, count] : responses_) {
      page.value("http_responses_total", static_cast<double>(count),
                 fmt::format(",status=\"{}\"", status));
    }
    out += page.take();
  }
  return out;
}

}  // namespace nibble::server
