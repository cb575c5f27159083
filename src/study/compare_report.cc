#include "study/compare_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "study/line_plot.h"

namespace nibble {
namespace {

constexpr double kMegabyte = 1e6;

double delta_percent(const CompareRow& row, const CompareRow& source) {
  return 100 * (row.perplexity / source.perplexity - 1);
}

// The standard error of the perplexity, from that of its logarithm.
double perplexity_error(const CompareRow& row) { return row.perplexity * row.stderr_nll; }

std::string figure(std::span<const CompareRow> rows, const std::string& model) {
  LinePlot plot;
  plot.title = "Distance to " + model + " against size";
  plot.x_label = "size of the checkpoint in MB (10^6 bytes, logarithmic)";
  plot.y_label = "mean KL in nats (logarithmic); lower is better";
  plot.log_x = plot.log_y = true;
  for (const CompareRow& row : rows) {
    if (row.recipe.empty()) continue;  // no distance at all
    auto series = std::ranges::find(plot.series, row.recipe, &LinePlot::Series::name);
    if (series == plot.series.end()) {
      if (plot.series.size() + 1 == LinePlot::kMostSeries) continue;
      plot.series.push_back({row.recipe, {}, true, false});
      series = plot.series.end() - 1;
    }
    series->points.emplace_back(row.bytes / kMegabyte, row.mean_kl);
  }
  LinePlot::Series front{"Pareto front", {}, false, true};
  for (const CompareRow& row : rows) {
    if (row.pareto && !row.recipe.empty()) {
      front.points.emplace_back(row.bytes / kMegabyte, row.mean_kl);
    }
  }
  plot.series.push_back(std::move(front));
  return to_svg(plot);
}

TextTable shown_table(std::span<const CompareRow> rows) {
  TextTable table = {{"recipe", "format", "bits/weight", "MB", "perplexity", "+-", "delta %",
                      "mean KL", "99 % KL", "top-1 %", "seconds", "peak MiB", "tokens/s",
                      "Pareto"}};
  for (const CompareRow& row : rows) {
    const bool source = row.recipe.empty();
    table.push_back(
        {source ? "as it is" : row.recipe, source ? "" : row.format,
         fmt::format("{:.3f}", row.bits_per_weight), fmt::format("{:.2f}", row.bytes / kMegabyte),
         fmt::format("{:.3f}", row.perplexity), fmt::format("{:.3f}", perplexity_error(row)),
         fmt::format("{:+.2f}", delta_percent(row, rows.front())),
         fmt::format("{:.5f}", row.mean_kl), fmt::format("{:.4f}", row.p99_kl),
         fmt::format("{:.2f}", 100 * row.top1_agreement),
         source ? "" : fmt::format("{:.1f}", row.seconds),
         source ? "" : fmt::format("{:.0f}", row.peak_anon_bytes / (1 << 20)),
         fmt::format("{:.1f}", row.tokens_per_second), row.pareto ? "*" : ""});
  }
  return table;
}

std::string say_front(std::span<const CompareRow> rows) {
  std::string names;
  int count = 0;
  for (const CompareRow& row : rows) {
    if (row.recipe.empty() || !row.pareto) continue;
    names += (names.empty() ? "" : "; ") + name_of(row);
    ++count;
  }
  return fmt::format("{} of {} combinations are beaten by none in size and KL at once: {}.", count,
                     rows.size() - 1, names);
}

std::string say_nearest(std::span<const CompareRow> rows) {
  const CompareRow& best =
      *std::ranges::min_element(rows.subspan(1), {}, [](const CompareRow& row) {
        return std::isnan(row.mean_kl) ? std::numeric_limits<double>::infinity() : row.mean_kl;
      });
  return fmt::format(
      "The nearest to the model is {} with a mean KL of {:.5f} nats and {:+.2f} % of perplexity at "
      "{:.2f} bits a weight.",
      name_of(best), best.mean_kl, delta_percent(best, rows.front()), best.bits_per_weight);
}

std::string say_smallest(std::span<const CompareRow> rows) {
  for (const CompareRow& row : rows.subspan(1)) {  // by size
    const double delta = delta_percent(row, rows.front());
    if (!(delta <= 1)) continue;
    return fmt::format(
        "The smallest that costs at most 1 % of perplexity is {} ({:+.2f} %): {:.2f} MB instead of "
        "{:.2f}.",
        name_of(row), delta, row.bytes / kMegabyte, rows.front().bytes / kMegabyte);
  }
  return "None of them costs less than 1 % of perplexity.";
}

}  // namespace

StudyReport compare_report(std::span<const CompareRow> rows, const std::string& model,
                           const std::string& note) {
  StudyReport report;
  report.title = "Recipes compared on " + model;
  if (rows.size() < 2) return report;
  report.sections.push_back(
      {"Recipes by size",
       note + " Bits per weight count all that is stored for the linear layers; +- is one standard "
              "error of the perplexity over tokens, which mostly cancels in the difference; a star "
              "marks what nothing beats in size and mean KL at once; seconds and peak memory are "
              "of the quantization, tokens per second of decoding one sequence.",
       shown_table(rows),
       {figure(rows, model)}});
  report.findings = {say_front(rows), say_nearest(rows), say_smallest(rows)};
  return report;
}

TextTable compare_table(std::span<const CompareRow> rows) {
  TextTable table = {{"recipe", "format", "stored", "bits_per_weight", "bits_per_weight_total",
                      "bytes", "perplexity", "stderr_nll", "mean_kl", "p99_kl", "top1_agreement",
                      "seconds", "peak_anon_bytes", "tokens_per_second", "pareto"}};
  for (const CompareRow& row : rows) {
    table.push_back({row.recipe, row.format, row.stored, fmt::format("{:.5f}", row.bits_per_weight),
                     fmt::format("{:.5f}", row.bits_per_weight_total),
                     fmt::format("{:.0f}", row.bytes), fmt::format("{:.6g}", row.perplexity),
                     fmt::format("{:.6f}", row.stderr_nll), fmt::format("{:.6g}", row.mean_kl),
                     fmt::format("{:.6g}", row.p99_kl), fmt::format("{:.5f}", row.top1_agreement),
                     fmt::format("{:.3f}", row.seconds), fmt::format("{:.0f}", row.peak_anon_bytes),
                     fmt::format("{:.2f}", row.tokens_per_second), row.pareto ? "1" : "0"});
  }
  return table;
}

}  // namespace nibble
