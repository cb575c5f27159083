// Text for people: tables, sizes, progress.
#pragma once

#include <chrono>
#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

namespace nibble::cli {

// Columns padded to the widest cell; cells that look like numbers are right-aligned. The first row
// is the header.
std::string format_table(const std::vector<std::vector<std::string>>& rows);

std::string format_bytes(double bytes);      // "2.05 GiB"
std::string format_seconds(double seconds);  // "1 h 02 min", "3 min 20 s", "4.2 s"

// On a terminal one line that is redrawn, with the time left; elsewhere a line when a step begins
// and ends.
class ProgressDisplay {
 public:
  explicit ProgressDisplay(std::ostream& stream);
  ~ProgressDisplay();
  ProgressDisplay(const ProgressDisplay&) = delete;
  ProgressDisplay& operator=(const ProgressDisplay&) = delete;

  void update(const std::string& step, std::int64_t done, std::int64_t total);

 private:
  using Clock = std::chrono::steady_clock;
  void draw(std::int64_t done, std::int64_t total);
  void finish_line();

  std::ostream& stream_;
  bool terminal_;
  std::string step_;
  Clock::time_point started_;
  Clock::time_point drawn_;
  bool line_open_ = false;
};

}  // namespace nibble::cli
