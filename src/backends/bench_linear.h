// Speed of every implementation of linear, beside the machine's measured limits and the vendor
// library in the same run.
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
// no row; the reference has one up to m = 16. On a CPU the vendor library (OpenBLAS, if the machine
// has it) multiplies float32; on a GPU it is one of the implementations. There calls are recorded
// and played, over as many copies of the weight as the caches cannot hold. Errors as `make` and
// parse_weight_format.
std::vector<BenchRow> bench_linear(const MakeBackend& make, const SpeedLimits& limits,
                                   const LinearBench& bench);

}  // namespace nibble
