#include "study/dot_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/markup.h"

namespace nibble {
namespace {

constexpr double kRowHeight = 22, kPlotWidth = 620, kMargin = 20, kTop = 76, kBottom = 52;
constexpr double kCharWidth = 7.2;  // of the 13-pixel labels, about
constexpr const char* kColors[DotPlot::kMostSeries] = {"#0072B2", "#D55E00", "#009E73", "#CC79A7",
                                                       "#E69F00", "#56B4E9", "#000000", "#777777"};

std::string mark(std::size_t series, double x, double y) {
  const std::string fill = kColors[series];
  switch (series) {
    case 0:
      return fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"5.5\" fill=\"{}\"/>", x, y, fill);
    case 1:
      return fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"10\" height=\"10\" fill=\"{}\"/>",
                         x - 5, y - 5, fill);
    case 2:
      return fmt::format("<path d=\"M{:.1f} {:.1f}l6 10.5h-12z\" fill=\"{}\"/>", x, y - 6.5, fill);
    case 3:
      return fmt::format("<path d=\"M{:.1f} {:.1f}l6.5 6.5l-6.5 6.5l-6.5 -6.5z\" fill=\"{}\"/>", x,
                         y - 6.5, fill);
    case 4:
      return fmt::format("<path d=\"M{:.1f} {:.1f}l6 -10.5h-12z\" fill=\"{}\"/>", x, y + 6.5, fill);
    case 5:
      return fmt::format(
          "<path d=\"M{:.1f} {:.1f}h12m-6 -6v12\" stroke=\"{}\" stroke-width=\"3.5\"/>", x - 6, y,
          fill);
    case 6:
      return fmt::format(
          "<path d=\"M{:.1f} {:.1f}l9 9m0 -9l-9 9\" stroke=\"{}\" stroke-width=\"2.5\"/>", x - 4.5,
          y - 4.5, fill);
    default:
      return fmt::format(
          "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"5\" fill=\"none\" stroke=\"{}\" "
          "stroke-width=\"2.5\"/>",
          x, y, fill);
  }
}

std::string text(double x, double y, const char* anchor, const std::string& content,
                 const char* extra = "") {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\"{}>{}</text>\n", x, y,
                     anchor, extra, escape_markup(content));
}

// A step of 1, 2 or 5 times a power of ten that cuts the range into at most ten parts.
double tick_step(double range) {
  const double power = std::pow(10, std::floor(std::log10(range / 10)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (range / (factor * power) <= 10) return factor * power;
  }
  return 10 * power;
}

struct Axis {
  double lo = 0, hi = 1, step = 1, left = 0;
  double x(double value) const { return left + (value - lo) / (hi - lo) * kPlotWidth; }
};

Axis make_axis(const DotPlot& plot) {
  Axis axis;
  double least = std::numeric_limits<double>::infinity(), most = -least;
  for (const auto& series : plot.series) {
    for (const double v : series.values) {
      if (!std::isfinite(v)) continue;
      least = std::min(least, v);
      most = std::max(most, v);
    }
  }
  if (!(least <= most)) least = most = 0;
  axis.step = tick_step(most > least ? most - least : 1);
  axis.lo = axis.step * std::floor(least / axis.step);
  axis.hi = axis.step * std::ceil(std::max(most, least + axis.step) / axis.step);
  std::size_t longest = 0;
  for (const std::string& row : plot.rows) longest = std::max(longest, row.size());
  axis.left = kMargin + kCharWidth * static_cast<double>(longest) + 10;
  return axis;
}

std::string draw_axis(const DotPlot& plot, const Axis& axis, double bottom) {
  std::string svg;
  const auto ticks = static_cast<int>(std::lround((axis.hi - axis.lo) / axis.step));
  for (int k = 0; k <= ticks; ++k) {
    const double value = axis.lo + k * axis.step, x = axis.x(value);
    svg += fmt::format("<path d=\"M{:.1f} {:.1f}V{:.1f}\" stroke=\"#ddd\" stroke-width=\"1\"/>\n",
                       x, kTop, bottom);
    svg += text(x, bottom + 17, "middle", fmt::format("{:.6g}", value));
  }
  return svg + text(axis.left + kPlotWidth / 2, bottom + 40, "middle", plot.x_label);
}

std::string draw_legend(const DotPlot& plot, double left) {
  std::string svg;
  double x = left;
  for (std::size_t s = 0; s < plot.series.size(); ++s) {
    svg += mark(s, x + 8, 52) + text(x + 20, 57, "start", plot.series[s].name);
    x += 44 + kCharWidth * static_cast<double>(plot.series[s].name.size());
  }
  return svg;
}

}  // namespace

std::string to_svg(const DotPlot& plot) {
  NIBBLE_CHECK(plot.series.size() <= DotPlot::kMostSeries);
  const Axis axis = make_axis(plot);
  const double bottom = kTop + kRowHeight * static_cast<double>(plot.rows.size());
  const double width = axis.left + kPlotWidth + 2 * kMargin, height = bottom + kBottom;
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} {1:.0f}\" width=\"{0:.0f}\" "
      "height=\"{1:.0f}\" font-family=\"DejaVu Sans,Verdana,sans-serif\" font-size=\"13\" "
      "fill=\"#222\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
      width, height);
  svg += text(kMargin, 26, "start", plot.title, " font-size=\"16\" font-weight=\"bold\"");
  svg += draw_legend(plot, kMargin) + draw_axis(plot, axis, bottom);
  for (std::size_t r = 0; r < plot.rows.size(); ++r) {
    const double y = kTop + kRowHeight * (static_cast<double>(r) + 0.5);
    svg += text(axis.left - 10, y + 4.5, "end", plot.rows[r]);
    svg += fmt::format("<path d=\"M{:.1f} {:.1f}h{:.1f}\" stroke=\"#eee\"/>\n", axis.left, y,
                       kPlotWidth);
    for (std::size_t s = 0; s < plot.series.size(); ++s) {
      const double v = plot.series[s].values[r];
      if (std::isfinite(v)) svg += mark(s, axis.x(v), y) + "\n";
    }
  }
  return svg + "</svg>\n";
}

}  // namespace nibble
