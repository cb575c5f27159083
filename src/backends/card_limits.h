// What a card reaches: the limits that the speeds of its kernels are held against.
#pragma once

#include "backends/card_timer.h"

namespace nibble {

// Zero is not known.
struct CardLimits {
  double copy_bytes_per_second = 0;  // within its memory, bytes read and bytes written
  // Of the vendor's product of 8192 x 8192 x 8192 random numbers by its fastest algorithm, as
  // reached at the end of the time that it was given: operations (two a multiply-add) a second.
  double f16_per_second = 0;
  double bf16_per_second = 0;
  double fp8_per_second = 0;
  CardState state;  // while it multiplied bf16

  // The peak for products of this kind. Bytes of either type are held against fp8's, since the
  // library's product of int8 does not reach what the card could.
  double operations_per_second(Arithmetic arithmetic) const;
};

// Which of them: "f16", "bf16", "fp8", or "" for float32, which is not measured.
const char* limit_name(Arithmetic arithmetic);

struct CardLimitsOptions {
  std::size_t copy_bytes = std::size_t{1} << 30;
  std::int64_t side = 8192;
  double copy_seconds = 1;
  double seconds = 10;  // of each kind of product
};

// The algorithm that takes the least time for y[m, rows], and that time of a product. Algorithms
// that fail are passed over; kDevice when all do.
struct VendorChoice {
  int algorithm = 0;
  double seconds = 0;
};
VendorChoice fastest_algorithm(CardTimer& timer, Backend& backend, VendorProducts& products,
                               std::int64_t m);

// `backend` is the one that the timer was opened for.
CardLimits measure_card(Backend& backend, CardTimer& timer, const CardLimitsOptions& options = {});

}  // namespace nibble
