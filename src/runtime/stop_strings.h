// Finds stop strings in text that arrives in pieces, and never lets part of one through.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace nibble {

// Text that could still become a stop string is held back until it is decided. Not thread-safe.
class StopStrings {
 public:
  // kUsage when a string is empty. No strings: everything passes at once.
  explicit StopStrings(std::vector<std::string> strings);

  // Text that is certain to come before any stop string. Once one is found (the earliest end wins,
  // then the earliest start), the text before it comes back, stopped() is true and nothing more is
  // taken.
  std::string push(std::string_view piece);
  // What was held back, at the end of the text.
  std::string flush();
  bool stopped() const { return stopped_; }

 private:
  std::size_t held_from() const;

  std::vector<std::string> strings_;
  std::string pending_;
  bool stopped_ = false;
};

}  // namespace nibble
