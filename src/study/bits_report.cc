#include "study/bits_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <map>

#include "study/dot_plot.h"

namespace nibble {
namespace {

constexpr const char* kBitsLabel = "bits of accuracy = log2(deviation / RMSE); right is better";
using Filter = std::function<bool(const BitsRow&)>;

// Means over rows, by two names, both in the order of their first appearance.
class Pivot {
 public:
  void add(const std::string& row, const std::string& col, double value) {
    remember(rows_, row);
    remember(cols_, col);
    auto& [sum, count] = cells_[{row, col}];
    sum += value;
    ++count;
  }
  bool empty() const { return rows_.empty(); }
  const std::vector<std::string>& rows() const { return rows_; }
  const std::vector<std::string>& cols() const { return cols_; }

  // NaN where nothing was added.
  double mean(const std::string& row, const std::string& col) const {
    const auto it = cells_.find({row, col});
    if (it == cells_.end()) return std::numeric_limits<double>::quiet_NaN();
    return it->second.first / it->second.second;
  }

  void sort_rows_by(const std::string& col) {
    std::stable_sort(rows_.begin(), rows_.end(),
                     [&](const auto& a, const auto& b) { return mean(a, col) < mean(b, col); });
  }

  TextTable table(const std::string& corner) const {
    TextTable table = {{corner}};
    table[0].insert(table[0].end(), cols_.begin(), cols_.end());
    for (const std::string& row : rows_) {
      table.push_back({row});
      for (const std::string& col : cols_) {
        const double value = mean(row, col);
        table.back().push_back(std::isnan(value) ? "" : fmt::format("{:.3f}", value));
      }
    }
    return table;
  }

  // The columns that `shown` accepts, as many as the figure can tell apart.
  std::string figure(const std::string& title,
                     const std::function<bool(const std::string&)>& shown) const {
    DotPlot plot{title, kBitsLabel, rows_, {}};
    for (const std::string& col : cols_) {
      if (!shown(col) || plot.series.size() == DotPlot::kMostSeries) continue;
      plot.series.push_back({col, {}});
      for (const std::string& row : rows_) plot.series.back().values.push_back(mean(row, col));
    }
    return to_svg(plot);
  }

 private:
  static void remember(std::vector<std::string>& names, const std::string& name) {
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  std::vector<std::string> rows_, cols_;
  std::map<std::pair<std::string, std::string>, std::pair<double, int>> cells_;
};

// Elements that differ from a neighbour by one code only would cover its mark.
bool in_figure(const std::string& format) {
  for (const char* twin : {"full", "fn", "ieee", "e1m2"}) {
    if (format.find(twin) != std::string::npos) return false;
  }
  return true;
}

struct KindText {
  const char* kind;
  const char* of;     // "of the weights"
  const char* group;  // header of the first column
};
constexpr std::array kKinds = {KindText{"distribution", "on distributions", "distribution"},
                               KindText{"weight", "on the weights", "linears"},
                               KindText{"activation", "on the activations", "inputs of"}};

void add_elements(std::span<const BitsRow> rows, const KindText& kind, int width,
                  StudyReport& report) {
  for (const bool best : {true, false}) {
    Pivot pivot;
    for (const BitsRow& row : rows) {
      const bool shown =
          best ? row.range == "best" || row.range == "lloyd-max" : row.range == "minmax";
      if (row.source.kind == kind.kind && shown && row.bits_per_weight == width) {
        pivot.add(row.source.group, row.format, row.bits);
      }
    }
    if (pivot.empty()) continue;
    StudySection section;
    section.heading = fmt::format("{}-bit elements {}, {}", width, kind.of,
                                  best ? "best range" : "range of the largest magnitude");
    section.note = best ? "One scale for all values, chosen for the least squared error."
                        : "One scale for all values, so that the largest magnitude is just "
                          "representable; of the "
                          "distributions that have no end it is 10 (normal), 16 (Laplace) and 100 "
                          "(Student's t).";
    section.note += fmt::format(
        " e2m1 has a sign, 2 exponent bits and 1 mantissa bit; floats have no code for infinity or "
        "NaN but where fn or ieee says so. int{0}_full has {1} beside int{0}'s {2} to {3}.",
        width, -(1 << (width - 1)), 1 - (1 << (width - 1)), (1 << (width - 1)) - 1);
    if (best) {
      section.note +=
          " lloyd-max is a bound, what as many levels keep that stand wherever they are best.";
    }
    if (kind.kind == std::string_view("distribution")) {
      section.note +=
          " student-t 5 is Student's distribution of 5 degrees of freedom; normal + 1% to 20 has "
          "one value in a hundred spread evenly up to 20 deviations on either side.";
    } else {
      section.note += fmt::format(" int{}_asym has a zero point, so that its range has two ends{}.",
                                  width, best ? "" : ", the minimum and the maximum");
    }
    section.table = pivot.table(kind.group);
    section.figures.push_back(pivot.figure(section.heading, in_figure));
    report.sections.push_back(std::move(section));
  }
}

void add_stored(std::span<const BitsRow> rows, const KindText& kind, StudyReport& report) {
  constexpr const char* kBpw = "bits/weight";
  Pivot pivot, labelled;
  for (const BitsRow& row : rows) {
    if (row.source.kind != kind.kind || row.range != "stored") continue;
    pivot.add(row.format, kBpw, row.bits_per_weight);
    pivot.add(row.format, row.source.group, row.bits);
  }
  if (pivot.empty()) return;
  pivot.sort_rows_by(kBpw);
  for (const std::string& row : pivot.rows()) {
    for (const std::string& col : pivot.cols()) {
      const double value = pivot.mean(row, col);
      if (col == kBpw || std::isnan(value)) continue;
      labelled.add(fmt::format("{} ({:.3g})", row, pivot.mean(row, kBpw)), col, value);
    }
  }
  StudySection section;
  section.heading = fmt::format("Stored formats {}", kind.of);
  section.note =
      "Scales by block or row as each format stores them; in brackets all that is stored, in bits "
      "per weight, by which the rows are sorted. Of names that differ in activations alone the "
      "first is shown; 'nibble list formats' says what the names mean.";
  section.table = pivot.table("format");
  section.figures.push_back(labelled.figure(section.heading, [](const auto&) { return true; }));
  report.sections.push_back(std::move(section));
}

bool is_block(const BitsRow& row) { return row.range.starts_with("block"); }

// One section a distribution; the tensors of a model together.
void add_blocks(std::span<const BitsRow> rows, const KindText& kind, StudyReport& report) {
  std::map<std::string, Pivot> by_heading;
  for (const BitsRow& row : rows) {
    if (row.source.kind != kind.kind || !is_block(row)) continue;
    const std::string of =
        row.source.kind == "distribution" ? fmt::format("of {} values", row.source.name) : kind.of;
    by_heading["Elements by size of block " + of].add(row.format, row.range, row.bits);
  }
  for (const auto& [heading, pivot] : by_heading) {
    report.sections.push_back(
        {heading,
         "One exact scale for each block of so many values, so that its largest magnitude is just "
         "representable (asym: a zero point with it, so that its two ends are); \"+clip\" (in the "
         "table): the best of 26 scales, block by block.",
         pivot.table("element"),
         {pivot.figure(heading,
                       [](const std::string& range) { return !range.ends_with("clip"); })}});
  }
}

bool is_calibrated(const BitsRow& row) {
  return row.range != "best" && row.range != "minmax" && row.range != "lloyd-max" &&
         row.range != "stored" && !is_block(row);
}

bool is_by_channel(const BitsRow& row) { return row.range.ends_with(kByChannel); }

// Of all values under one range; or, `by_channel`, with ranges of their own.
void add_calibrators(std::span<const BitsRow> rows, const KindText& kind, int width,
                     bool by_channel, StudyReport& report) {
  const std::string format = fmt::format("int{}", width);
  Pivot pivot;
  bool any = false;
  for (const BitsRow& row : rows) {
    if (row.source.kind != kind.kind || row.format != format || row.range == "stored" ||
        is_block(row) || (is_calibrated(row) && is_by_channel(row) != by_channel)) {
      continue;
    }
    any = any || is_calibrated(row);
    pivot.add(row.source.group, row.range, row.bits);
  }
  if (!any) return;
  StudySection section;
  section.heading =
      fmt::format("Calibrators of INT{} {}{}", width, kind.of, by_channel ? ", by channel" : "");
  section.note = by_channel
                     ? "A symmetric range for each channel (a row of a weight, a column of "
                       "activations), chosen from a histogram of 512 bins of its own; 'best' and "
                       "'minmax' are one range for all values."
                     : "One symmetric range for all values, chosen from a histogram of 2048 bins.";
  section.table = pivot.table(kind.group);
  section.figures.push_back(pivot.figure(section.heading, [](const auto&) { return true; }));
  report.sections.push_back(std::move(section));
}

// The row with the most bits that a filter accepts; null when none.
const BitsRow* best_row(std::span<const BitsRow> rows, const Filter& accepts) {
  const BitsRow* best = nullptr;
  for (const BitsRow& row : rows) {
    if (accepts(row) && (best == nullptr || row.bits > best->bits)) best = &row;
  }
  return best;
}

const BitsRow* best_element(std::span<const BitsRow> rows, const std::string& source, int width) {
  return best_row(rows, [&](const BitsRow& row) {
    return row.source.name == source && row.range == "best" && row.bits_per_weight == width &&
           row.format.find("full") == std::string::npos;
  });
}

double bits_of(std::span<const BitsRow> rows, const std::string& source,
               const std::string& format) {
  const BitsRow* row = best_row(rows, [&](const BitsRow& r) {
    return r.source.name == source && r.range == "best" && r.format == format;
  });
  return row == nullptr ? std::numeric_limits<double>::quiet_NaN() : row->bits;
}

std::string say_light_tails(std::span<const BitsRow> rows) {
  const BitsRow* uniform = best_element(rows, "uniform", 8);
  const BitsRow* normal = best_element(rows, "normal", 8);
  if (uniform == nullptr || normal == nullptr) return "";
  return fmt::format(
      "With one scale and 8 bits, {} keeps the most of uniform values ({:.2f} bits of accuracy) "
      "and {} of normal ones ({:.2f}; int8 keeps {:.2f}).",
      uniform->format, uniform->bits, normal->format, normal->bits,
      bits_of(rows, "normal", "int8"));
}

std::string say_outliers(std::span<const BitsRow> rows) {
  const std::string name = "normal + 0.1% to 60";
  const BitsRow* best = best_element(rows, name, 8);
  if (best == nullptr) return "";
  return fmt::format(
      "Where one value in a thousand lies up to 60 deviations out, int8 falls from {:.2f} to "
      "{:.2f} bits while {} keeps {:.2f}, so outliers call for exponent bits or for smaller "
      "blocks.",
      bits_of(rows, "normal", "int8"), bits_of(rows, name, "int8"), best->format, best->bits);
}

// Mean bits of each stored format over the tensors of a kind or one source, at most 4.6 bits a
// weight: what fits the usual 4-bit budget.
std::string best_four_bit(std::span<const BitsRow> rows, const Filter& accepts, double* bits) {
  Pivot pivot;
  for (const BitsRow& row : rows) {
    if (row.range == "stored" && row.bits_per_weight <= 4.6 && accepts(row)) {
      pivot.add(row.format, "bits", row.bits);
    }
  }
  std::string best;
  for (const std::string& format : pivot.rows()) {
    const double value = pivot.mean(format, "bits");
    if (best.empty() || value > *bits) {
      best = format;
      *bits = value;
    }
  }
  return best;
}

std::string say_stored(std::span<const BitsRow> rows) {
  const auto from = [](const char* name) {
    return [name](const BitsRow& row) { return row.source.name == name; };
  };
  double normal = 0, heavy = 0;
  const std::string of_normal = best_four_bit(rows, from("normal"), &normal);
  const std::string of_heavy = best_four_bit(rows, from("student-t 5"), &heavy);
  if (of_normal.empty() || of_heavy.empty()) return "";
  return fmt::format(
      "Of the stored formats up to 4.6 bits a weight {} keeps the most of normal values ({:.2f} "
      "bits) and {} of heavy-tailed ones ({:.2f}).",
      of_normal, normal, of_heavy == of_normal ? "also" : of_heavy, heavy);
}

std::string say_model(std::span<const BitsRow> rows, const std::string& model) {
  const auto weights = [](const BitsRow& row) { return row.source.kind == "weight"; };
  double bits = 0;
  const std::string best = best_four_bit(rows, weights, &bits);
  Pivot int8;
  for (const BitsRow& row : rows) {
    if (row.format == "int8" && (row.range == "best" || row.range == "minmax"))
      int8.add(row.source.kind, row.range, row.bits);
    if (row.format == "int8_asym" && row.range == "best")
      int8.add(row.source.kind, row.format, row.bits);
  }
  const std::string stored =
      best.empty()
          ? ""
          : fmt::format("{} keeps {:.2f} bits, the most up to 4.6 bits a weight, and ", best, bits);
  std::string sentence = fmt::format("In the weights of {} {}int8 with one scale a tensor {:.2f}",
                                     model, stored, int8.mean("weight", "best"));
  const double activations = int8.mean("activation", "best");
  if (!std::isnan(activations)) {
    sentence += fmt::format(
        "; in its activations int8 with one scale keeps {:.2f} at the best range, {:.2f} with a "
        "zero point, and {:.2f} at the range of the largest value",
        activations, int8.mean("activation", "int8_asym"), int8.mean("activation", "minmax"));
  }
  return sentence + ".";
}

}  // namespace

StudyReport bits_report(std::span<const BitsRow> rows, const std::string& model) {
  StudyReport report;
  report.title = "Bits of accuracy" + (model.empty() ? "" : ": " + model);
  for (const KindText& kind : kKinds) {
    for (const int width : {8, 6, 4}) add_elements(rows, kind, width, report);
    add_blocks(rows, kind, report);
    add_stored(rows, kind, report);
    for (const bool by_channel : {false, true}) {
      for (const int width : {8, 6, 4}) add_calibrators(rows, kind, width, by_channel, report);
    }
  }
  if (model.empty()) {
    report.findings = {say_light_tails(rows), say_outliers(rows), say_stored(rows)};
  } else {
    report.findings = {say_outliers(rows), say_stored(rows), say_model(rows, model)};
  }
  std::erase(report.findings, "");
  return report;
}

TextTable bits_table(std::span<const BitsRow> rows) {
  TextTable table = {
      {"kind", "source", "group", "format", "range", "bits", "clip", "bits_per_weight"}};
  for (const BitsRow& row : rows) {
    table.push_back({row.source.kind, row.source.name, row.source.group, row.format, row.range,
                     fmt::format("{:.5f}", row.bits), fmt::format("{:.5f}", row.clip),
                     fmt::format("{:.5f}", row.bits_per_weight)});
  }
  return table;
}

}  // namespace nibble
