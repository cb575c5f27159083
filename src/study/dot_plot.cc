#include "study/dot_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "study/svg.h"

namespace nibble {
namespace {

constexpr double kRowHeight = 22, kPlotWidth = 620, kMargin = 20, kTop = 76, kBottom = 52;
constexpr double kApart = 11;  // over which the marks of a row spread

struct Axis {
  bool log = false;  // lo, hi and step are then powers of ten
  double lo = 0, hi = 1, step = 1, left = 0;
  bool shows(double value) const { return std::isfinite(value) && (!log || value > 0); }
  double place(double value) const { return log ? std::log10(value) : value; }
  double x(double value) const { return left + (place(value) - lo) / (hi - lo) * kPlotWidth; }
};

Axis make_axis(const DotPlot& plot) {
  Axis axis{plot.log};
  double least = std::numeric_limits<double>::infinity(), most = -least;
  for (const auto& series : plot.series) {
    for (const double v : series.values) {
      if (!axis.shows(v)) continue;
      least = std::min(least, axis.place(v));
      most = std::max(most, axis.place(v));
    }
  }
  if (!(least <= most)) least = most = 0;
  axis.step = axis.log ? 1 : tick_step(most > least ? most - least : 1);
  axis.lo = axis.step * std::floor(least / axis.step);
  axis.hi = axis.step * std::ceil(std::max(most, least + axis.step) / axis.step);
  std::size_t longest = 0;
  for (const std::string& row : plot.rows) longest = std::max(longest, row.size());
  axis.left = kMargin + kSvgCharWidth * static_cast<double>(longest) + 10;
  return axis;
}

std::string draw_axis(const DotPlot& plot, const Axis& axis, double bottom) {
  std::string svg;
  const auto ticks = static_cast<int>(std::lround((axis.hi - axis.lo) / axis.step));
  for (int k = 0; k <= ticks; ++k) {
    const double place = axis.lo + k * axis.step;
    const double value = axis.log ? std::pow(10, place) : place, x = axis.x(value);
    svg += fmt::format("<path d=\"M{:.1f} {:.1f}V{:.1f}\" stroke=\"#ddd\" stroke-width=\"1\"/>\n",
                       x, kTop, bottom);
    svg += svg_text(x, bottom + 17, "middle", fmt::format("{:.6g}", value));
  }
  return svg + svg_text(axis.left + kPlotWidth / 2, bottom + 40, "middle", plot.x_label);
}

std::string draw_legend(const DotPlot& plot, double left) {
  std::string svg;
  double x = left;
  for (std::size_t s = 0; s < plot.series.size(); ++s) {
    svg += svg_mark(s, x + 8, 52) + svg_text(x + 20, 57, "start", plot.series[s].name);
    x += 44 + kSvgCharWidth * static_cast<double>(plot.series[s].name.size());
  }
  return svg;
}

}  // namespace

std::string to_svg(const DotPlot& plot) {
  NIBBLE_CHECK(plot.series.size() <= DotPlot::kMostSeries);
  const Axis axis = make_axis(plot);
  const double bottom = kTop + kRowHeight * static_cast<double>(plot.rows.size());
  const double width = axis.left + kPlotWidth + 2 * kMargin, height = bottom + kBottom;
  std::string svg = svg_begin(width, height);
  svg += svg_text(kMargin, 26, "start", plot.title, " font-size=\"16\" font-weight=\"bold\"");
  svg += draw_legend(plot, kMargin) + draw_axis(plot, axis, bottom);
  for (std::size_t r = 0; r < plot.rows.size(); ++r) {
    const double y = kTop + kRowHeight * (static_cast<double>(r) + 0.5);
    svg += svg_text(axis.left - 10, y + 4.5, "end", plot.rows[r]);
    svg += fmt::format("<path d=\"M{:.1f} {:.1f}h{:.1f}\" stroke=\"#eee\"/>\n", axis.left, y,
                       kPlotWidth);
    // Apart by little, so that equal values of two series are two marks.
    const auto count = static_cast<double>(plot.series.size());
    for (std::size_t s = 0; s < plot.series.size(); ++s) {
      const double v = plot.series[s].values[r];
      const double apart = kApart * (static_cast<double>(s) - (count - 1) / 2) / count;
      if (axis.shows(v)) svg += svg_mark(s, axis.x(v), y + apart) + "\n";
    }
  }
  return svg + "</svg>\n";
}

}  // namespace nibble
