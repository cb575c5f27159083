// The rows of the scaling study as tables, figures and sentences.
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "study/report.h"
#include "study/scaling.h"

namespace nibble {

// note: how it was measured (text, tokens, context), for the page.
StudyReport scaling_report(std::span<const ScalingRow> rows, const std::string& note);

// Every row as it is, for CSV.
TextTable scaling_table(std::span<const ScalingRow> rows);

// Which width of weights gives the least bits per byte of text for a total size, over sizes that
// are covered by the curves of two widths or more. A curve joins a width's best point of each
// model, linear in the logarithm of the size.
struct WidthShare {
  int bits = 0;
  double share = 0;  // of the range of logarithms of sizes in which it is the best
};
// Largest share first; empty when fewer than two models overlap.
std::vector<WidthShare> best_widths(std::span<const ScalingRow> rows);

}  // namespace nibble
