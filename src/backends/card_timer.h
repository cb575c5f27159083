// What `bench linear` asks of a card beside its ops: times by the card's own clock, the vendor's
// products in their own number formats, and what the card does meanwhile.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "backends/backend.h"

namespace nibble {

// Zeros where the driver does not say.
struct CardState {
  double sm_mhz = 0;
  double memory_mhz = 0;
  double watts = 0;
};

// The vendor's product y[m, rows] = x[m, cols] * w[rows, cols]^T with x and w of one type, random
// operands of unit variance and results of 16 bits, for several copies of w.
class VendorProducts {
 public:
  virtual ~VendorProducts() = default;
  // How many algorithms the library proposes, the likely best first; 0 when it cannot.
  virtual int algorithms(std::int64_t m) = 0;
  // Within a step of the backend that the timer was opened for: a product with every copy of w. `m`
  // is at most that of CardTimer::vendor_products(). kDevice when the algorithm fails.
  virtual void issue(std::int64_t m, int algorithm) = 0;
  virtual std::int64_t copies() const = 0;
};

// Not thread-safe.
class CardTimer {
 public:
  virtual ~CardTimer() = default;

  // Seconds of one play of what a step issues. `card` lies between two events, behind a play that
  // is not counted, so that the card never waits for the host; `wall` is one play from the first
  // call to the end of the last kernel, by the host's clock.
  struct Times {
    double card = 0;
    double wall = 0;
  };
  // Plays `step`, which issues ops to `backend` (one of this card; as Backend::run_step), from a
  // record. With `barriers` every kernel begins when the one ahead has ended; without them as in a
  // layer. A step that cannot be recorded is timed by the wall alone.
  virtual Times time(Backend& backend, const std::function<void()>& step, int plays,
                     bool barriers) = 0;

  // The same weight in memory of its own.
  virtual LinearWeight copy(const LinearWeight& weight) = 0;

  // Null without the vendor's library. `type` is kF16, kBf16 or kFp8 (e4m3).
  virtual std::unique_ptr<VendorProducts> vendor_products(Arithmetic type, std::int64_t most_m,
                                                          std::int64_t rows, std::int64_t cols,
                                                          std::int64_t copies) = 0;
  virtual CardState state() = 0;
};

// Null when the backend is not a card. The backend must outlive the timer.
std::unique_ptr<CardTimer> open_card_timer(Backend& backend);

}  // namespace nibble
