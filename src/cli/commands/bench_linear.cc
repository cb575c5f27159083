#include "cli/commands/bench_linear.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "backends/bench_card_linear.h"
#include "backends/device_limits.h"
#include "base/error.h"
#include "base/file.h"
#include "cli/terminal.h"
#include "study/report.h"

namespace nibble::cli {
namespace {

struct LinearBenchOptions {
  std::vector<std::string> shapes;  // "KxN": inputs x outputs
  std::vector<std::int64_t> ms;
  std::vector<std::string> formats;
  double seconds = 0;  // 0: the device's own
  double limit_seconds = CardLimitsOptions{}.seconds;
  std::string csv;
};

LinearBench::Shape parse_shape(const std::string& text) {
  long long cols = 0;
  long long rows = 0;
  int end = 0;
  if (std::sscanf(text.c_str(), "%lldx%lld%n", &cols, &rows, &end) != 2 ||
      static_cast<std::size_t>(end) != text.size() || cols < 1 || rows < 1 || cols > 1 << 20 ||
      rows > 1 << 20) {
    fail(ErrorKind::kUsage, "--shapes '{}': expected INPUTSxOUTPUTS, such as 4096x14336", text);
  }
  return {rows, cols};
}

// What was asked for, and the rest as the device has it.
LinearBench settled(LinearBench bench, const LinearBenchOptions& options) {
  if (!options.shapes.empty()) bench.shapes.clear();
  for (const std::string& shape : options.shapes) bench.shapes.push_back(parse_shape(shape));
  if (!options.ms.empty()) bench.ms = options.ms;
  if (!options.formats.empty()) bench.formats = options.formats;
  if (options.seconds > 0) bench.seconds = options.seconds;
  return bench;
}

// One table for the terminal, one for files, and the same as JSON.
struct Report {
  Json json;
  std::string head;
  TextTable shown;
  TextTable csv;
};

std::string csv_cell(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return value.dump();
  return fmt::format("{}x{}", value[0].dump(), value[1].dump());  // a shape
}

// The cells of `row`, and their names, as CSV has them.
void add_csv_row(const Json& row, TextTable& csv) {
  std::vector<std::string> names;
  std::vector<std::string> cells;
  for (const auto& [name, value] : row.items()) {
    names.push_back(name);
    cells.push_back(csv_cell(value));
  }
  if (csv.empty()) csv.push_back(std::move(names));
  csv.push_back(std::move(cells));
}

void add_row(Json row, std::vector<std::string> shown, Report& report) {
  add_csv_row(row, report.csv);
  report.shown.push_back(std::move(shown));
  report.json["rows"].push_back(std::move(row));
}

Report host_report(const MakeBackend& make, Backend& backend, const LinearBench& bench) {
  Report report;
  report.shown = {
      {"format", "in", "out", "m", "implementation", "ms", "GFLOP/s", "% peak", "GB/s", "% read"}};
  for (const BenchRow& row : bench_linear(make, measure_limits(backend), bench)) {
    add_row({{"impl", row.impl},
             {"format", row.format},
             {"shape", {row.cols, row.rows}},
             {"m", row.m},
             {"seconds", row.seconds},
             {"gflops", row.gflops},
             {"gbytes_per_second", row.gbytes_per_second},
             {"flops_fraction", row.flops_fraction},
             {"bandwidth_fraction", row.bandwidth_fraction}},
            {row.format, std::to_string(row.cols), std::to_string(row.rows), std::to_string(row.m),
             row.impl, fmt::format("{:.3f}", 1e3 * row.seconds), fmt::format("{:.1f}", row.gflops),
             fmt::format("{:.1f}", 100 * row.flops_fraction),
             fmt::format("{:.1f}", row.gbytes_per_second),
             fmt::format("{:.1f}", 100 * row.bandwidth_fraction)},
            report);
  }
  return report;
}

std::string speed_text(const CardBenchRow& row) {
  if (row.limit == "copy") return fmt::format("{:.0f} GB/s", 1e-9 * row.bytes_per_second);
  return fmt::format("{:.0f} TFLOP/s", 1e-12 * row.operations_per_second);
}

// "2.91 / 3.20": isolated and chained.
std::string ratio_text(double isolated, double chained) {
  return isolated > 0 ? fmt::format("{:.2f} / {:.2f}", isolated, chained) : "";
}

void add_card_row(const CardBenchRow& row, Report& report) {
  const double overlap = row.isolated / row.chained;  // what chaining gains
  add_row({{"impl", row.impl},
           {"format", row.format},
           {"shape", {row.cols, row.rows}},
           {"m", row.m},
           {"seconds", row.isolated},
           {"chained_seconds", row.chained},
           {"wall_seconds", row.wall},
           {"gflops", 1e-9 * row.operations_per_second},
           {"gbytes_per_second", 1e-9 * row.bytes_per_second},
           {"fraction", row.fraction},
           {"limit", row.limit},
           {"ratio_cublas_f16", row.over_f16},
           {"ratio_cublas_bf16", row.over_bf16},
           {"chained_ratio_cublas_f16", row.over_f16 * overlap},
           {"chained_ratio_cublas_bf16", row.over_bf16 * overlap},
           {"samples", row.samples},
           {"sm_mhz", row.state.sm_mhz},
           {"memory_mhz", row.state.memory_mhz},
           {"watts", row.state.watts}},
          {row.format, std::to_string(row.cols), std::to_string(row.rows), std::to_string(row.m),
           row.impl, fmt::format("{:.1f}", 1e6 * row.isolated),
           fmt::format("{:.1f}", 1e6 * row.chained), fmt::format("{:.1f}", 1e6 * row.wall),
           speed_text(row), fmt::format("{:.0f} {}", 100 * row.fraction, row.limit),
           ratio_text(row.over_f16, row.over_f16 * overlap),
           ratio_text(row.over_bf16, row.over_bf16 * overlap),
           fmt::format("{:.0f} {:.0f}", row.state.sm_mhz, row.state.watts)},
          report);
}

Json limits_json(const CardLimits& limits) {
  return {{"copy_bytes_per_second", limits.copy_bytes_per_second},
          {"f16_operations_per_second", limits.f16_per_second},
          {"bf16_operations_per_second", limits.bf16_per_second},
          {"fp8_operations_per_second", limits.fp8_per_second},
          {"sm_mhz", limits.state.sm_mhz},
          {"memory_mhz", limits.state.memory_mhz},
          {"watts", limits.state.watts}};
}

Report card_report(const MakeBackend& make, Backend& backend, CardTimer& timer,
                   const LinearBench& bench, double limit_seconds, const Context& context) {
  CardLimitsOptions options;
  options.seconds = limit_seconds;
  const CardLimits limits = measure_card(backend, timer, options);
  Report report;
  report.json["limits"] = limits_json(limits);
  report.head = fmt::format(
      "limits, measured now: copy {:.0f} GB/s; products for {:g} s each, f16 {:.0f}, bf16 {:.0f}, "
      "fp8 {:.0f} TFLOP/s ({:.0f} MHz, {:.0f} W)\n"
      "µs a call: isolated (a barrier between kernels), chained (dependent launch), and by the "
      "host's clock; ratios to cuBLASLt's fastest algorithm, isolated / chained\n",
      1e-9 * limits.copy_bytes_per_second, limit_seconds, 1e-12 * limits.f16_per_second,
      1e-12 * limits.bf16_per_second, 1e-12 * limits.fp8_per_second, limits.state.sm_mhz,
      limits.state.watts);
  report.shown = {{"format", "in", "out", "m", "implementation", "isolated", "chained", "wall",
                   "speed", "% of", "x f16", "x bf16", "MHz W"}};
  for (const CardBenchRow& row :
       bench_card_linear(make, backend, timer, limits, bench, context.progress())) {
    add_card_row(row, report);
  }
  return report;
}

void run_bench_linear(const LinearBenchOptions& options, Context& context) {
  const auto backend = context.make_backend();
  const auto make = [&context](const std::string& force) { return context.make_backend(force); };
  const std::unique_ptr<CardTimer> timer = open_card_timer(*backend);
  const Report report =
      timer == nullptr ? host_report(make, *backend, settled(LinearBench{}, options))
                       : card_report(make, *backend, *timer, settled(default_card_bench(), options),
                                     options.limit_seconds, context);
  if (!options.csv.empty()) write_file_atomic(options.csv, csv_text(report.csv));
  context.emit(report.json, report.head + format_table(report.shown));
}

}  // namespace

void add_bench_linear(CLI::App* bench, Context& context) {
  CLI::App* linear = bench->add_subcommand("linear", "One op, every implementation");
  auto options = add_command<LinearBenchOptions>(linear, context, run_bench_linear);
  linear->add_option("--shapes", options->shapes, "INPUTSxOUTPUTS, comma separated")
      ->delimiter(',');
  linear->add_option("--m", options->ms, "Rows of the input, comma separated")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 20));
  linear->add_option("--formats", options->formats, "Formats (w= and a= count), comma separated")
      ->delimiter(',');
  linear->add_option("--seconds", options->seconds, "Spent on each row (0.1; on a GPU 0.02)")
      ->check(CLI::Range(0.0, 600.0));
  linear
      ->add_option("--limit-seconds", options->limit_seconds,
                   "On a GPU: spent on the peak of each kind of product")
      ->check(CLI::Range(0.0, 600.0))
      ->capture_default_str();
  linear->add_option("--csv", options->csv, "Write every row to this file");
}

}  // namespace nibble::cli
