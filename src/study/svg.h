// Parts of figures: marks that everybody can tell apart, text, round numbers.
#pragma once

#include <cstddef>
#include <string>

namespace nibble {

// Marks differ by shape and by a colour of Okabe and Ito's palette, which people with any kind of
// colour blindness can tell apart.
inline constexpr std::size_t kSvgMarks = 8;
inline constexpr double kSvgCharWidth = 7.2;  // of the 13-pixel labels, about
const char* svg_color(std::size_t series);
// An element with its middle at (x, y), about 12 pixels wide.
std::string svg_mark(std::size_t series, double x, double y);

// The start of an <svg> element of so many pixels, with a white ground; "</svg>" ends it.
std::string svg_begin(double width, double height);

// A <text> element; anchor: "start", "middle" or "end"; extra: more attributes, with a leading
// space.
std::string svg_text(double x, double y, const char* anchor, const std::string& content,
                     const char* extra = "");

// A step of 1, 2 or 5 times a power of ten that cuts the range into at most ten parts.
double tick_step(double range);

}  // namespace nibble
