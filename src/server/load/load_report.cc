#include "server/load/load_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace nibble::server {
namespace {

double at_quantile(const std::vector<double>& sorted, double q) {
  const double place = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(std::floor(place));
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (place - std::floor(place)) * (sorted[above] - sorted[below]);
}

bool keeps(double value, double bound) { return bound <= 0 || value <= bound; }

Json to_json(const Percentiles& p) {
  return {{"mean", 1e3 * p.mean}, {"p50", 1e3 * p.p50}, {"p90", 1e3 * p.p90},
          {"p95", 1e3 * p.p95},   {"p99", 1e3 * p.p99}, {"max", 1e3 * p.max}};
}

std::string line(const char* name, const Percentiles& p) {
  return fmt::format("{:<22}{:>10.1f}{:>10.1f}{:>10.1f}{:>10.1f}{:>10.1f}{:>10.1f}\n", name,
                     1e3 * p.mean, 1e3 * p.p50, 1e3 * p.p90, 1e3 * p.p95, 1e3 * p.p99, 1e3 * p.max);
}

// Tokens are counted by what came in the window: pieces of text, each as many tokens as those of
// completed requests are on average.
void add_window(const LoadRun& run, LoadReport& report) {
  report.window_seconds = run.window_end - run.window_begin;
  if (report.window_seconds <= 0) return;
  std::int64_t within = 0, pieces = 0, tokens = 0;
  for (const LoadRecord& record : run.records) {
    if (!record.error.empty()) continue;
    within += std::ranges::count_if(record.chunks, [&](double time) {
      return time >= run.window_begin && time < run.window_end;
    });
    if (record.cut) continue;
    pieces += static_cast<std::int64_t>(record.chunks.size());
    tokens += record.output_tokens;
  }
  const double each = pieces == 0 ? 1 : static_cast<double>(tokens) / static_cast<double>(pieces);
  report.window_throughput = static_cast<double>(within) * each / report.window_seconds;
}

}  // namespace

Percentiles percentiles(std::vector<double> sample) {
  if (sample.empty()) return {};
  std::sort(sample.begin(), sample.end());
  const double sum = std::accumulate(sample.begin(), sample.end(), 0.0);
  return {sum / static_cast<double>(sample.size()),
          at_quantile(sample, 0.5),
          at_quantile(sample, 0.9),
          at_quantile(sample, 0.95),
          at_quantile(sample, 0.99),
          sample.back()};
}

LoadReport load_report(const LoadRun& run, const LoadGoal& goal) {
  LoadReport report;
  std::vector<double> ttft, tpot, itl, e2e;
  std::int64_t good = 0;
  double first = INFINITY;
  double last = 0;
  for (const LoadRecord& record : run.records) {
    first = std::min(first, record.sent);
    last = std::max(last, record.ended);
    if (record.cut) {
      ++report.cut;
      continue;
    }
    if (!record.error.empty() || record.chunks.empty()) {
      ++report.failed;
      ++report.errors[record.error];
      continue;
    }
    ++report.completed;
    report.input_tokens += record.prompt_tokens;
    report.output_tokens += record.output_tokens;
    ttft.push_back(record.chunks.front() - record.sent);
    e2e.push_back(record.ended - record.sent);
    const double rest = record.ended - record.chunks.front();
    const double each =
        record.output_tokens > 1 ? rest / static_cast<double>(record.output_tokens - 1) : 0;
    if (record.output_tokens > 1) tpot.push_back(each);
    for (std::size_t i = 1; i < record.chunks.size(); ++i) {
      itl.push_back(record.chunks[i] - record.chunks[i - 1]);
    }
    if (keeps(ttft.back(), goal.first_token) && keeps(each, goal.per_token) &&
        keeps(e2e.back(), goal.end_to_end)) {
      ++good;
    }
  }
  report.seconds = std::max(last - first, 0.0);
  if (report.seconds > 0) {
    report.request_throughput = static_cast<double>(report.completed) / report.seconds;
    report.output_throughput = static_cast<double>(report.output_tokens) / report.seconds;
    report.total_throughput =
        static_cast<double>(report.input_tokens + report.output_tokens) / report.seconds;
    report.goodput = static_cast<double>(good) / report.seconds;
  }
  add_window(run, report);
  report.ttft = percentiles(std::move(ttft));
  report.tpot = percentiles(std::move(tpot));
  report.itl = percentiles(std::move(itl));
  report.e2e = percentiles(std::move(e2e));
  return report;
}

Json to_json(const LoadReport& report) {
  return {{"completed", report.completed},
          {"failed", report.failed},
          {"seconds", report.seconds},
          {"input_tokens", report.input_tokens},
          {"output_tokens", report.output_tokens},
          {"request_throughput", report.request_throughput},
          {"output_token_throughput", report.output_throughput},
          {"total_token_throughput", report.total_throughput},
          {"goodput", report.goodput},
          {"cut", report.cut},
          {"window_seconds", report.window_seconds},
          {"window_output_token_throughput", report.window_throughput},
          {"ttft_ms", to_json(report.ttft)},
          {"tpot_ms", to_json(report.tpot)},
          {"itl_ms", to_json(report.itl)},
          {"e2e_ms", to_json(report.e2e)},
          {"errors", report.errors}};
}

std::string to_text(const LoadReport& report) {
  std::string text = fmt::format(
      "{} requests completed, {} failed, in {:.2f} s\n"
      "{:.2f} requests/s ({:.2f} within the goal), {:.1f} output tokens/s, {:.1f} tokens/s in all\n"
      "{:<22}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}\n",
      report.completed, report.failed, report.seconds, report.request_throughput, report.goodput,
      report.output_throughput, report.total_throughput, "ms", "mean", "p50", "p90", "p95", "p99",
      "max");
  text += line("time to first token", report.ttft) + line("time per output token", report.tpot) +
          line("inter-token latency", report.itl) + line("end to end", report.e2e);
  if (report.window_seconds > 0) {
    text += fmt::format(
        "in a window of {:.1f} s with all places taken: {:.1f} output tokens/s; {} requests were "
        "cut "
        "off at its end\n",
        report.window_seconds, report.window_throughput, report.cut);
  }
  for (const auto& [error, count] : report.errors) {
    text += fmt::format("{} times: {}\n", count, error);
  }
  return text;
}

}  // namespace nibble::server
