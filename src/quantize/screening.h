// How a search spends its tokens: many candidates are first compared on a few windows, and only the
// best of them on all.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quantize/calibration.h"

namespace nibble {

struct Screening {
  explicit Screening(const CalibrationWindows& windows);

  static constexpr std::size_t kFinalists = 6;

  std::int64_t rows = 0;        // tokens of all windows
  std::int64_t first_rows = 0;  // of the windows that every candidate meets

  bool applies(std::size_t candidates) const {
    return candidates > kFinalists && first_rows < rows;
  }
  // Tokens that comparing so many candidates takes, over all of them.
  std::int64_t tokens(std::size_t candidates) const;
  // Tokens whose hidden states are in memory at once while they are compared.
  std::int64_t tokens_at_once(std::size_t candidates) const;
};

}  // namespace nibble
