#include "study/line_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace nibble {
namespace {

constexpr double kLeft = 86, kTop = 50, kPlotWidth = 560, kPlotHeight = 380, kBottom = 56;
constexpr double kMargin = 20, kLegendRow = 22;

// One direction: real numbers to pixels.
struct Axis {
  bool log = false;
  double lo = 0, hi = 1;  // of the transformed values
  double begin = 0, length = 1;

  double transformed(double v) const { return log ? std::log10(v) : v; }
  double at(double v) const { return begin + (transformed(v) - lo) / (hi - lo) * length; }
  bool shows(double v) const {
    return std::isfinite(v) && (!log || v > 0) && transformed(v) <= hi + 1e-9;
  }
};

// The least range that holds all values, with a little room at both ends.
Axis make_axis(const std::vector<double>& values, bool log, double begin, double length) {
  Axis axis{log, 0, 1, begin, length};
  double least = std::numeric_limits<double>::infinity(), most = -least;
  for (const double v : values) {
    if (!std::isfinite(v) || (log && v <= 0)) continue;
    least = std::min(least, axis.transformed(v));
    most = std::max(most, axis.transformed(v));
  }
  if (!(least <= most)) return axis;
  const double room = most > least ? 0.04 * (most - least) : 0.5;
  axis.lo = least - room;
  axis.hi = most + room;
  return axis;
}

// Values at which the axis is labelled.
std::vector<double> ticks(const Axis& axis) {
  std::vector<double> result;
  if (!axis.log || axis.hi - axis.lo < 0.5) {  // less than half a decade: steps of equal size
    const double lo = axis.log ? std::pow(10, axis.lo) : axis.lo;
    const double hi = axis.log ? std::pow(10, axis.hi) : axis.hi;
    const double step = tick_step(hi - lo);
    for (double k = std::ceil(lo / step); k * step <= hi; ++k) {
      result.push_back(k * step + 0.0);  // -0 becomes 0
    }
    return result;
  }
  const bool few = axis.hi - axis.lo > 3;  // powers of ten alone
  for (double power = std::floor(axis.lo); power <= axis.hi; ++power) {
    for (const double factor : {1.0, 2.0, 5.0}) {
      const double value = factor * std::pow(10, power);
      const double place = std::log10(value);
      if (place < axis.lo || place > axis.hi || (few && factor != 1)) continue;
      result.push_back(value);
    }
  }
  return result;
}

std::string draw_axes(const LinePlot& plot, const Axis& x, const Axis& y) {
  const double bottom = kTop + kPlotHeight, right = kLeft + kPlotWidth;
  std::string svg;
  for (const double v : ticks(x)) {
    svg +=
        fmt::format("<path d=\"M{:.1f} {:.1f}V{:.1f}\" stroke=\"#ddd\"/>\n", x.at(v), kTop, bottom);
    svg += svg_text(x.at(v), bottom + 18, "middle", fmt::format("{:.6g}", v));
  }
  for (const double v : ticks(y)) {
    svg +=
        fmt::format("<path d=\"M{:.1f} {:.1f}H{:.1f}\" stroke=\"#ddd\"/>\n", kLeft, y.at(v), right);
    svg += svg_text(kLeft - 8, y.at(v) + 4.5, "end", fmt::format("{:.6g}", v));
  }
  svg += svg_text(kLeft + kPlotWidth / 2, bottom + 42, "middle", plot.x_label);
  const double middle = kTop + kPlotHeight / 2;
  const std::string turn = fmt::format(" transform=\"rotate(-90 20 {:.1f})\"", middle);
  return svg + svg_text(20, middle, "middle", plot.y_label, turn.c_str());
}

std::string draw_series(const LinePlot::Series& series, std::size_t index, const Axis& x,
                        const Axis& y) {
  std::string marks, line;
  for (const auto& [px, py] : series.points) {
    if (!x.shows(px) || !y.shows(py)) continue;
    if (series.marks) marks += svg_mark(index, x.at(px), y.at(py)) + "\n";
    line += fmt::format("{}{:.1f} {:.1f}", line.empty() ? "M" : "L", x.at(px), y.at(py));
  }
  if (!series.line || line.empty()) return marks;
  return fmt::format("<path d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\"/>\n", line,
                     svg_color(index)) +
         marks;
}

std::string draw_legend(const LinePlot& plot) {
  const double x = kLeft + kPlotWidth + kMargin;
  std::string svg;
  for (std::size_t s = 0; s < plot.series.size(); ++s) {
    const double y = kTop + 10 + kLegendRow * static_cast<double>(s);
    if (plot.series[s].line) {
      svg += fmt::format("<path d=\"M{:.1f} {:.1f}h24\" stroke=\"{}\" stroke-width=\"1.5\"/>\n", x,
                         y, svg_color(s));
    }
    if (plot.series[s].marks) svg += svg_mark(s, x + 12, y) + "\n";
    svg += svg_text(x + 32, y + 4.5, "start", plot.series[s].name);
  }
  return svg;
}

}  // namespace

std::string to_svg(const LinePlot& plot) {
  NIBBLE_CHECK(plot.series.size() <= LinePlot::kMostSeries);
  std::vector<double> xs, ys;
  std::size_t longest = 0, left_out = 0;
  for (const auto& series : plot.series) {
    longest = std::max(longest, series.name.size());
    for (const auto& [px, py] : series.points) {
      if (plot.log_y && !(py > 0)) continue;
      xs.push_back(px);
      if (py <= plot.y_limit) ys.push_back(py);
      if (py > plot.y_limit) ++left_out;
    }
  }
  const Axis x = make_axis(xs, plot.log_x, kLeft, kPlotWidth);
  const Axis y = make_axis(ys, plot.log_y, kTop + kPlotHeight, -kPlotHeight);
  const double width = kLeft + kPlotWidth + 2 * kMargin + 40 +
                       kSvgCharWidth * static_cast<double>(std::max<std::size_t>(longest, 12));
  std::string svg = svg_begin(width, kTop + kPlotHeight + kBottom);
  svg += svg_text(kMargin, 26, "start", plot.title, " font-size=\"16\" font-weight=\"bold\"");
  svg += draw_axes(plot, x, y) + draw_legend(plot);
  for (std::size_t s = 0; s < plot.series.size(); ++s) svg += draw_series(plot.series[s], s, x, y);
  if (left_out > 0) {
    svg += svg_text(kLeft + kPlotWidth, kTop - 6, "end",
                    fmt::format("{} beyond the upper end", left_out), " fill=\"#666\"");
  }
  return svg + "</svg>\n";
}

}  // namespace nibble
