#include "study/scaling_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <set>

#include "study/line_plot.h"

namespace nibble {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kBitsPerMegabyte = 8e6;

double megabytes(const ScalingRow& row) { return row.total_bits / kBitsPerMegabyte; }

std::vector<std::string> models_of(std::span<const ScalingRow> rows) {
  std::vector<std::string> models;
  for (const ScalingRow& row : rows) {
    if (std::ranges::find(models, row.model) == models.end()) models.push_back(row.model);
  }
  return models;
}

std::vector<ScalingRow> rows_of(std::span<const ScalingRow> rows, const std::string& model) {
  std::vector<ScalingRow> result;
  for (const ScalingRow& row : rows) {
    if (row.model == model && row.shown) result.push_back(row);
  }
  return result;
}

std::set<int> widths_of(std::span<const ScalingRow> rows) {
  std::set<int> widths;
  for (const ScalingRow& row : rows) widths.insert(row.rounding.bits);
  return widths;
}

// The row of a model and width with the least perplexity; null when none has one.
const ScalingRow* best_of(std::span<const ScalingRow> rows, const std::string& model, int bits) {
  const ScalingRow* best = nullptr;
  for (const ScalingRow& row : rows) {
    if (row.model != model || row.rounding.bits != bits || std::isnan(row.perplexity)) continue;
    if (best == nullptr || row.perplexity < best->perplexity) best = &row;
  }
  return best;
}

std::string name_of(const ScalingRow& row) {
  if (row.rounding.type == DataType::kSixteenBit) return "16-bit";
  return fmt::format("{} by {}", element_name(row.rounding), block_name(row.rounding.block));
}

std::vector<std::string> table_row(const ScalingRow& row, bool on_envelope) {
  return {name_of(row),
          fmt::format("{:.3f}", row.bits_per_weight),
          fmt::format("{:.3f}", megabytes(row)),
          fmt::format("{:.3f}", row.perplexity),
          fmt::format("{:.4f}", row.bits_per_byte),
          fmt::format("{:.5f}", row.mean_kl),
          fmt::format("{:.2f}", 100 * row.top1_agreement),
          on_envelope ? "*" : ""};
}

const std::vector<std::string> kHeader = {"weights by block", "bits/weight", "total MB",
                                          "perplexity",       "bits/byte",   "mean KL",
                                          "top-1 %",          "envelope"};

// Points of one model, a series a data type, and the envelope.
std::string model_figure(const std::string& model, std::span<const ScalingRow> rows) {
  LinePlot plot{"Distance to " + model + " against its size",
                "total size in MB (10^6 bytes)",
                "mean KL in nats (logarithmic); lower is better",
                false,
                true,
                std::numeric_limits<double>::infinity(),
                {}};
  for (const DataType type : kLowBitTypes) {
    LinePlot::Series series{to_string(type), {}, true, false};
    for (const ScalingRow& row : rows) {
      if (row.rounding.type == type) series.points.emplace_back(megabytes(row), row.mean_kl);
    }
    if (!series.points.empty()) plot.series.push_back(std::move(series));
  }
  LinePlot::Series envelope{"lower envelope", {}, false, true};
  double least = std::numeric_limits<double>::infinity();
  std::vector<ScalingRow> sorted(rows.begin(), rows.end());
  std::ranges::stable_sort(sorted, {}, &ScalingRow::total_bits);
  for (const ScalingRow& row : sorted) {
    if (!(row.mean_kl < least)) continue;
    least = row.mean_kl;
    envelope.points.emplace_back(megabytes(row), row.mean_kl);
  }
  plot.series.push_back(std::move(envelope));
  return to_svg(plot);
}

StudySection model_section(const std::string& model, std::span<const ScalingRow> rows) {
  StudySection section;
  section.heading = model;
  section.note =
      "Rows from small to large. A star marks the lower envelope: nothing smaller has a perplexity "
      "as low. Of floats the split of the least KL is shown.";
  section.figures.push_back(model_figure(model, rows));
  section.table = {kHeader};
  const std::vector<std::size_t> envelope = lower_envelope(rows);
  std::vector<std::size_t> order(rows.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::ranges::stable_sort(order, {}, [&](std::size_t i) { return rows[i].total_bits; });
  for (const std::size_t i : order) {
    section.table.push_back(table_row(rows[i], std::ranges::find(envelope, i) != envelope.end()));
  }
  return section;
}

// The best point of each model, by width.
std::map<int, std::vector<std::pair<double, double>>> curves_of(std::span<const ScalingRow> rows) {
  std::map<int, std::vector<std::pair<double, double>>> curves;
  for (const int bits : widths_of(rows)) {
    auto& curve = curves[bits];
    for (const std::string& model : models_of(rows)) {
      const ScalingRow* best = best_of(rows, model, bits);
      if (best != nullptr) curve.emplace_back(megabytes(*best), best->bits_per_byte);
    }
    std::ranges::sort(curve);
  }
  return curves;
}

// A curve at a size, linear in its logarithm; NaN outside.
double value_at(const std::vector<std::pair<double, double>>& curve, double size) {
  for (std::size_t i = 0; i + 1 < curve.size(); ++i) {
    const auto& [x0, y0] = curve[i];
    const auto& [x1, y1] = curve[i + 1];
    if (size < x0 || size > x1 || x1 <= x0) continue;
    return y0 + (y1 - y0) * std::log(size / x0) / std::log(x1 / x0);
  }
  return kNan;
}

StudySection summary_section(std::span<const ScalingRow> rows, const std::string& note) {
  StudySection section;
  section.heading = "Best width for a total size";
  section.note = note +
                 " For each width of the weights the setting of the least perplexity of each "
                 "model; a curve joins the models. Of two curves the lower one is the better use "
                 "of the same bytes.";
  section.table = {{"model", "bits"}};
  section.table[0].insert(section.table[0].end(), kHeader.begin(), kHeader.end() - 1);
  LinePlot plot{"Bits per byte of text against total size, by width of the weights",
                "total size in MB (10^6 bytes, logarithmic)",
                "bits per byte of text; lower is better",
                true,
                false,
                std::numeric_limits<double>::infinity(),
                {}};
  double worst_whole = 0;  // of 16 bits
  for (const auto& [bits, curve] : curves_of(rows)) {
    if (plot.series.size() < LinePlot::kMostSeries) {
      plot.series.push_back({fmt::format("{} bits", bits), curve, true, true});
    }
    if (bits != 16) continue;
    for (const auto& [size, value] : curve) worst_whole = std::max(worst_whole, value);
  }
  if (worst_whole > 0) plot.y_limit = 1.3 * worst_whole;
  for (const std::string& model : models_of(rows)) {
    for (const int bits : widths_of(rows)) {
      const ScalingRow* best = best_of(rows, model, bits);
      if (best == nullptr) continue;
      std::vector<std::string> line = {model, std::to_string(bits)};
      const auto fields = table_row(*best, false);
      line.insert(line.end(), fields.begin(), fields.end() - 1);
      section.table.push_back(std::move(line));
    }
  }
  section.figures.push_back(to_svg(plot));
  return section;
}

std::string say_width(std::span<const ScalingRow> rows) {
  const std::vector<WidthShare> shares = best_widths(rows);
  if (!shares.empty()) {
    std::string text = fmt::format(
        "For a given total size the best weights have {} bits over {:.0f} % of the sizes that "
        "the models span",
        shares[0].bits, 100 * shares[0].share);
    if (shares.size() > 1) {
      text += fmt::format(", and {} bits over {:.0f} %", shares[1].bits, 100 * shares[1].share);
    }
    return text + ".";
  }
  // One model: the smallest that costs next to nothing.
  const std::string model = models_of(rows).front();
  const ScalingRow* whole = best_of(rows, model, 16);
  if (whole == nullptr) return "";
  const ScalingRow* least = whole;
  for (const ScalingRow& row : rows) {
    if (row.model != model || !(row.perplexity <= 1.01 * whole->perplexity)) continue;
    if (row.total_bits < least->total_bits) least = &row;
  }
  return fmt::format(
      "The smallest {} within 1 % of its 16-bit perplexity ({:.3f}) is {} with {:.2f} MB instead "
      "of {:.2f} ({:.3f}).",
      model, whole->perplexity, name_of(*least), megabytes(*least), megabytes(*whole),
      least->perplexity);
}

// Geometric mean of the KL over models; NaN when a model has none.
double mean_kl(std::span<const ScalingRow> rows,
               const std::function<bool(const WeightRounding&)>& accepts) {
  double sum = 0;
  int count = 0;
  for (const ScalingRow& row : rows) {
    if (!row.shown || !accepts(row.rounding)) continue;
    sum += std::log(row.mean_kl);
    ++count;
  }
  return count == 0 ? kNan : std::exp(sum / count);
}

// The width and block at which types are compared: 4 bits by 64 when they are there.
std::pair<int, std::int64_t> usual_setting(std::span<const ScalingRow> rows) {
  const WeightRounding* first = nullptr;
  for (const ScalingRow& row : rows) {
    if (row.rounding.bits == 16) continue;
    if (row.rounding.bits == 4 && row.rounding.block == 64) return {4, 64};
    if (first == nullptr) first = &row.rounding;
  }
  return first == nullptr ? std::pair<int, std::int64_t>{0, 0}
                          : std::pair(first->bits, first->block);
}

std::string say_types(std::span<const ScalingRow> rows) {
  const auto [bits, block] = usual_setting(rows);
  std::vector<std::pair<double, std::string>> found;
  for (const DataType type : kLowBitTypes) {
    const double kl = mean_kl(rows, [&, b = bits, size = block](const WeightRounding& r) {
      return r.type == type && r.bits == b && r.block == size;
    });
    if (!std::isnan(kl)) found.emplace_back(kl, to_string(type));
  }
  if (found.empty()) return "";
  std::ranges::sort(found);
  std::string list;
  for (const auto& [kl, name] : found) {
    list += fmt::format("{}{} ({:.4f})", list.empty() ? "" : ", then ", name, kl);
  }
  return fmt::format(
      "At {} bits with a scale for {} the data type nearest to the model is {}: mean KL in nats{}.",
      bits, block == 0 ? "each channel" : fmt::format("{} weights", block), list,
      models_of(rows).size() > 1 ? ", geometric mean over the models" : "");
}

std::string say_blocks(std::span<const ScalingRow> rows) {
  const int bits = usual_setting(rows).first;
  const auto kl_of = [&](int width, std::int64_t block) {
    return mean_kl(rows, [&](const WeightRounding& r) {
      return r.type == DataType::kInt && r.bits == width && r.block == block;
    });
  };
  std::int64_t small = 0, large = 0;
  for (const ScalingRow& row : rows) {
    const std::int64_t block = row.rounding.block;
    if (block == 0) continue;
    if (small == 0 || block < small) small = block;
    large = std::max(large, block);
  }
  const double coarse = kl_of(bits, large), fine = kl_of(bits, small);
  if (small == large || std::isnan(coarse) || std::isnan(fine)) return "";
  std::string text = fmt::format(
      "Blocks of {} instead of {} cost {:.2f} bits a weight and take the KL of {}-bit integers "
      "from "
      "{:.4f} to {:.4f}",
      small, large, 16.0 / static_cast<double>(small) - 16.0 / static_cast<double>(large), bits,
      coarse, fine);
  const double wider = kl_of(bits + 1, large);
  if (!std::isnan(wider)) text += fmt::format("; one bit more takes it to {:.4f}", wider);
  return text + ".";
}

// What each width costs, where no sizes of block can be compared.
std::string say_widths(std::span<const ScalingRow> rows) {
  const std::vector<std::string> models = models_of(rows);
  std::string list;
  for (const int bits : widths_of(rows)) {
    if (bits == 16) continue;
    double sum = 0;
    for (const std::string& model : models) {
      const ScalingRow* best = best_of(rows, model, bits);
      sum += best == nullptr ? kNan : std::log(best->mean_kl);
    }
    const double kl = std::exp(sum / static_cast<double>(models.size()));
    if (std::isnan(kl)) continue;
    list += fmt::format("{}{:.4f} at {} bits", list.empty() ? "" : ", ", kl, bits);
  }
  if (list.empty()) return "";
  return fmt::format("The setting of the least perplexity of each width has a mean KL of {}.",
                     list);
}

}  // namespace

std::vector<WidthShare> best_widths(std::span<const ScalingRow> rows) {
  constexpr int kSteps = 1000;
  const auto curves = curves_of(rows);
  double least = std::numeric_limits<double>::infinity(), most = 0;
  for (const auto& [bits, curve] : curves) {
    if (curve.empty()) continue;
    least = std::min(least, curve.front().first);
    most = std::max(most, curve.back().first);
  }
  if (!(least < most)) return {};
  std::map<int, int> wins;
  int covered = 0;
  for (int k = 0; k <= kSteps; ++k) {
    const double size = least * std::pow(most / least, static_cast<double>(k) / kSteps);
    int best = 0, present = 0;
    double value = std::numeric_limits<double>::infinity();
    for (const auto& [bits, curve] : curves) {
      const double here = value_at(curve, size);
      if (std::isnan(here)) continue;
      ++present;
      if (here < value) {
        value = here;
        best = bits;
      }
    }
    if (present < 2) continue;
    ++covered;
    ++wins[best];
  }
  std::vector<WidthShare> shares;
  for (const auto& [bits, count] : wins) {
    shares.push_back({bits, static_cast<double>(count) / covered});
  }
  std::ranges::stable_sort(shares, std::ranges::greater{}, &WidthShare::share);
  return shares;
}

StudyReport scaling_report(std::span<const ScalingRow> rows, const std::string& note) {
  StudyReport report;
  report.title = "Scaling of quality with size";
  if (rows.empty()) return report;
  report.sections.push_back(summary_section(rows, note));
  for (const std::string& model : models_of(rows)) {
    report.sections.push_back(model_section(model, rows_of(rows, model)));
  }
  const std::string blocks = say_blocks(rows);
  report.findings = {say_width(rows), say_types(rows), blocks.empty() ? say_widths(rows) : blocks};
  std::erase(report.findings, "");
  return report;
}

TextTable scaling_table(std::span<const ScalingRow> rows) {
  TextTable table = {{"model", "type", "element", "bits", "block", "bits_per_weight", "total_bits",
                      "perplexity", "stderr_nll", "bits_per_byte", "mean_kl", "top1_agreement",
                      "shown"}};
  for (const ScalingRow& row : rows) {
    table.push_back({row.model, to_string(row.rounding.type), element_name(row.rounding),
                     std::to_string(row.rounding.bits), block_name(row.rounding.block),
                     fmt::format("{:.5f}", row.bits_per_weight),
                     fmt::format("{:.0f}", row.total_bits), fmt::format("{:.6g}", row.perplexity),
                     fmt::format("{:.5f}", row.stderr_nll),
                     fmt::format("{:.6f}", row.bits_per_byte), fmt::format("{:.6g}", row.mean_kl),
                     fmt::format("{:.5f}", row.top1_agreement), row.shown ? "1" : "0"});
  }
  return table;
}

}  // namespace nibble
