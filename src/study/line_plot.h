// A figure of y against x: marks, lines, linear or logarithmic axes.
#pragma once

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "study/svg.h"

namespace nibble {

struct LinePlot {
  struct Series {
    std::string name;
    // (x, y); others than finite ones, and ones not above 0 on a logarithmic axis, are left out.
    std::vector<std::pair<double, double>> points;
    bool marks = true;
    bool line = true;  // through the points in their order
  };
  std::string title;
  std::string x_label, y_label;  // with their units
  bool log_x = false, log_y = false;
  // What is above is not shown, and the axis says so; the range is that of the points otherwise.
  double y_limit = std::numeric_limits<double>::infinity();
  std::vector<Series> series;  // at most kMostSeries
  static constexpr std::size_t kMostSeries = kSvgMarks;
};

// An <svg> element with the marks of svg.h; the legend stands to the right.
std::string to_svg(const LinePlot& plot);

}  // namespace nibble
