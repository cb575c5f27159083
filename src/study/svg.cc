#include "study/svg.h"

#include <fmt/format.h>

#include <cmath>

#include "base/markup.h"

namespace nibble {
namespace {

constexpr const char* kColors[kSvgMarks] = {"#0072B2", "#D55E00", "#009E73", "#CC79A7",
                                            "#E69F00", "#56B4E9", "#000000", "#777777"};

}  // namespace

const char* svg_color(std::size_t series) { return kColors[series % kSvgMarks]; }

std::string svg_mark(std::size_t series, double x, double y) {
  const std::string fill = svg_color(series);
  switch (series % kSvgMarks) {
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

std::string svg_begin(double width, double height) {
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} {1:.0f}\" width=\"{0:.0f}\" "
      "height=\"{1:.0f}\" font-family=\"DejaVu Sans,Verdana,sans-serif\" font-size=\"13\" "
      "fill=\"#222\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
      width, height);
}

std::string svg_text(double x, double y, const char* anchor, const std::string& content,
                     const char* extra) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\"{}>{}</text>\n", x, y,
                     anchor, extra, escape_markup(content));
}

double tick_step(double range) {
  const double power = std::pow(10, std::floor(std::log10(range / 10)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (range / (factor * power) <= 10) return factor * power;
  }
  return 10 * power;
}

}  // namespace nibble
