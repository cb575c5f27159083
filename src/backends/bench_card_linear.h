// Speed of every implementation of linear on a card, beside the vendor's products of 16-bit
// numbers, timed in turns with them.
#pragma once

#include <string>
#include <vector>

#include "backends/bench_linear.h"
#include "backends/card_limits.h"
#include "base/log.h"

namespace nibble {

// The shapes, rows of x and formats that are measured unless others are asked for.
LinearBench default_card_bench();

struct CardBenchRow {
  std::string impl;  // or "cublaslt": y[m, rows] of 16 bits from x and w of 16 bits
  std::string format;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t m = 0;
  // Seconds of a call, medians of what the card's clock says of plays of a record: with a barrier
  // between kernels, and as a layer runs them. The rounding of x is part of the call.
  double isolated = 0;
  double chained = 0;
  double wall = 0;              // by the host's clock, one play by itself, chained
  double bytes_per_second = 0;  // weights, x and y, each once; isolated, like the next
  double operations_per_second = 0;
  // Of the limit that alone would take longer, copying these bytes or these products: the time that
  // it would take over `isolated`.
  double fraction = 0;
  std::string limit;  // "copy", or limit_name() of the arithmetic
  // Seconds of the vendor's product over `isolated`; 0 when there is none.
  double over_f16 = 0;
  double over_bf16 = 0;
  std::int64_t samples = 0;
  CardState state;  // right after the last sample
};

// What a speed is held against: the limit that takes longer, and its share of the time.
struct BoundShare {
  double fraction = 0;
  std::string limit;
};
BoundShare share_of_bound(const CardLimits& limits, Arithmetic arithmetic, double bytes,
                          double operations, double seconds);

// Rows in the order shape, m, then the vendor's, then format and implementation; an implementation
// that cannot run a case has none. Each weight is there as often as makes turnover_bytes and one
// copy more. What belongs to one shape and m is sampled in turns until each
// has had its seconds, at least three samples. `timer` was opened for a backend that `make("")`
// made. Errors as those of `make` and parse_model_format(); kDevice when memory does not suffice.
std::vector<CardBenchRow> bench_card_linear(const MakeBackend& make, Backend& backend,
                                            CardTimer& timer, const CardLimits& limits,
                                            const LinearBench& bench,
                                            const ProgressSink& progress = {});

}  // namespace nibble
