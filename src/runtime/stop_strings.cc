#include "runtime/stop_strings.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace nibble {

StopStrings::StopStrings(std::vector<std::string> strings) : strings_(std::move(strings)) {
  for (const std::string& s : strings_) {
    if (s.empty()) fail(ErrorKind::kUsage, "stop: a stop string may not be empty");
  }
}

std::string StopStrings::push(std::string_view piece) {
  if (stopped_) return "";
  pending_ += piece;
  std::size_t first_end = std::string::npos;
  std::size_t start = 0;
  for (const std::string& s : strings_) {
    const std::size_t at = pending_.find(s);
    if (at == std::string::npos) continue;
    const std::size_t end = at + s.size();
    if (end < first_end || (end == first_end && at < start)) {
      first_end = end;
      start = at;
    }
  }
  stopped_ = first_end != std::string::npos;
  const std::size_t certain = stopped_ ? start : held_from();
  std::string text = pending_.substr(0, certain);
  pending_.erase(0, certain);
  return text;
}

std::string StopStrings::flush() { return stopped_ ? "" : std::exchange(pending_, ""); }

// Where the longest tail of the pending text begins that is the start of a stop string.
std::size_t StopStrings::held_from() const {
  std::size_t longest = 0;
  for (const std::string& s : strings_) {
    const std::size_t most = std::min(s.size() - 1, pending_.size());
    for (std::size_t n = most; n > longest; --n) {
      if (pending_.compare(pending_.size() - n, n, s, 0, n) == 0) longest = n;
    }
  }
  return pending_.size() - longest;
}

}  // namespace nibble
