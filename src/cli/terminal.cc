#include "cli/terminal.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>

namespace nibble::cli {
namespace {

bool looks_numeric(const std::string& cell) {
  return !cell.empty() && cell.find_first_not_of("0123456789.,+-%eE ") == std::string::npos;
}

// Characters, not bytes: continuation bytes of UTF-8 take no column.
std::size_t width(const std::string& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

std::string format_table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], width(row[c]));
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t c = 0; c < row.size(); ++c) {
      const std::string padding(widths[c] - width(row[c]), ' ');
      if (c > 0) line += "  ";
      line += looks_numeric(row[c]) ? padding + row[c] : row[c] + padding;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + '\n';
  }
  return text;
}

std::string format_bytes(double bytes) {
  const char* const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < std::size(units)) {
    bytes /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.2f} {}", bytes, units[unit]);
}

std::string format_seconds(double seconds) {
  if (seconds < 60) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<std::int64_t>(seconds + 0.5);
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole / 60 % 60);
}

ProgressDisplay::ProgressDisplay(std::ostream& stream)
    : stream_(stream), terminal_(&stream == &std::cerr && isatty(STDERR_FILENO) != 0) {}

ProgressDisplay::~ProgressDisplay() { finish_line(); }

void ProgressDisplay::update(const std::string& step, std::int64_t done, std::int64_t total) {
  if (step != step_) {
    finish_line();
    step_ = step;
    started_ = Clock::now();
    drawn_ = {};
    if (!terminal_) stream_ << "nibble: " << step << '\n';
  }
  constexpr double kRedrawSeconds = 0.1;
  if (terminal_ && (done >= total || seconds_since(drawn_) > kRedrawSeconds)) draw(done, total);
}

void ProgressDisplay::draw(std::int64_t done, std::int64_t total) {
  constexpr int kBarWidth = 30;
  const double share =
      total > 0 ? std::clamp(static_cast<double>(done) / static_cast<double>(total), 0.0, 1.0) : 0;
  const int filled = static_cast<int>(share * kBarWidth);
  const double elapsed = seconds_since(started_);
  const std::string left =
      share > 0 && share < 1 ? ", " + format_seconds(elapsed * (1 - share) / share) + " left" : "";
  stream_ << fmt::format("\r\x1b[K{:<28} [{}{}] {:3.0f} % {}{}", step_, std::string(filled, '#'),
                         std::string(kBarWidth - filled, '.'), share * 100, format_seconds(elapsed),
                         left)
          << std::flush;
  drawn_ = Clock::now();
  line_open_ = true;
}

void ProgressDisplay::finish_line() {
  if (line_open_) stream_ << '\n' << std::flush;
  line_open_ = false;
}

}  // namespace nibble::cli
