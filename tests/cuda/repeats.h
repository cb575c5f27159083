// How often a kernel runs whose results must be equal bit by bit.
#pragma once

#include <algorithm>
#include <cstdlib>

namespace nibble::test {

// NIBBLE_REPEATS where it is set: 1,000 to look for races (./dev gpu --san), 1 under sanitizers.
inline int repeats(int usual) {
  const char* const asked = std::getenv("NIBBLE_REPEATS");
  return asked != nullptr ? std::max(1, std::atoi(asked)) : usual;
}

}  // namespace nibble::test
