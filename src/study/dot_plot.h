// A figure for many categories and few series: one line a category, one mark a series.
#pragma once

#include <string>
#include <vector>

#include "study/svg.h"

namespace nibble {

struct DotPlot {
  struct Series {
    std::string name;
    std::vector<double> values;  // one a row; NaN: no mark
  };
  std::string title;
  std::string x_label;  // with its unit
  std::vector<std::string> rows;
  std::vector<Series> series;  // at most kMostSeries
  bool log = false;            // a logarithmic axis; values not above 0 have no mark
  static constexpr std::size_t kMostSeries = kSvgMarks;
};

// An <svg> element with the marks of svg.h; the legend stands below the title.
// Ends of the axis are the round numbers around the values.
std::string to_svg(const DotPlot& plot);

}  // namespace nibble
