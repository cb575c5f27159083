// Speed of every implementation of linear, beside the machine's measured limits and the vendor
// library in the same run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "backends/cpu/probe.h"

namespace nibble {

struct LinearBench {
  struct Shape {
    std::int64_t rows = 0;  // outputs
    std::int64_t cols = 0;  // inputs
  };
  std::vector<Shape> shapes = {{4096, 4096}};
  std::vector<std::int64_t> ms = {1, 4, 16, 64, 512};
  std::vector<std::string> formats = {"bf16", "int4_g128_asym"};  // weight formats of the grammar
  double seconds = 0.1;                                           // spent on each row
};

struct BenchRow {
  std::string op;
  std::string impl;  // or "openblas"
  std::string format;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t m = 0;
  double seconds = 0;             // best of all runs
  double gflops = 0;              // 2 m rows cols
  double gbytes_per_second = 0;   // weights, inputs and outputs, each once
  double flops_fraction = 0;      // of the peak of its arithmetic, all threads
  double bandwidth_fraction = 0;  // of the read bandwidth of all threads
};

// Rows in the order shape, format, m, implementation. Implementations that cannot run a case have
// no row; the reference has one up to m = 16. The vendor library (OpenBLAS, if the machine has it)
// multiplies float32. Errors as make_cpu_backend and parse_weight_format.
std::vector<BenchRow> bench_linear(const BackendOptions& options, const cpu::MachineLimits& limits,
                                   const LinearBench& bench);

}  // namespace nibble
