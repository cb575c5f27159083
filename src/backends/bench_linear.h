// Speed of every implementation of linear on the host, beside the machine's measured limits and the
// vendor library in the same run. Of a card: bench_card_linear.h.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "backends/device_limits.h"

namespace nibble {

struct LinearBench {
  struct Shape {
    std::int64_t rows = 0;  // outputs
    std::int64_t cols = 0;  // inputs
  };
  std::vector<Shape> shapes = {{4096, 4096}};
  std::vector<std::int64_t> ms = {1, 4, 16, 64, 512};
  // Of the grammar; w= and a= count.
  std::vector<std::string> formats = {"bf16", "int4_g128_asym"};
  double seconds = 0.1;  // spent on each row
  // Of weights on a card, at least, before the first is read again: more than a cache could hold.
  std::size_t turnover_bytes = std::size_t{256} << 20;
};

struct BenchRow {
  std::string op;
  std::string impl;  // or "openblas"
  std::string format;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t m = 0;
  double seconds = 0;             // of a call, best of all runs
  double gflops = 0;              // 2 m rows cols
  double gbytes_per_second = 0;   // weights, inputs and outputs, each once
  double flops_fraction = 0;      // of the peak of its arithmetic, all threads
  double bandwidth_fraction = 0;  // of the read bandwidth of all threads
};

// Makes the backend to measure, with this in place of NIBBLE_FORCE ("" for none).
using MakeBackend = std::function<std::unique_ptr<Backend>(const std::string& force)>;

// Rows in the order shape, format, m, implementation. Implementations that cannot run a case have
// no row; the reference has one up to m = 16. The vendor library (OpenBLAS, if the machine has it)
// multiplies float32. Errors as `make` and parse_model_format().
std::vector<BenchRow> bench_linear(const MakeBackend& make, const SpeedLimits& limits,
                                   const LinearBench& bench);

}  // namespace nibble
