// What this machine has, and what it reaches: measured limits that speeds are compared with.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "ops/op.h"

namespace nibble::cpu {

// One measured rate: on one thread, and on all threads of the pool together.
struct Rate {
  double one_thread = 0;
  double all_threads = 0;
};

// Peak rate of one kind of products of one instruction-set level, in operations a second (a
// multiply-add counts as two).
struct ArithmeticPeak {
  CpuIsa isa = CpuIsa::kGeneric;
  Arithmetic arithmetic = Arithmetic::kFloat32;
  Rate rate;
};

struct MachineLimits {
  Rate read_bandwidth;  // bytes a second, from memory (a block larger than the caches)
  std::vector<ArithmeticPeak> peaks;  // of what the caps allow, rising levels

  // The fastest of that kind, as a fraction's denominator for kernels; zero when there is none.
  Rate peak(Arithmetic arithmetic) const;
};

// Best of several short bursts, so that a busy neighbour disturbs little; takes about two seconds
// and 256 MiB. kMemory when that cannot be had.
MachineLimits measure_machine(ThreadPool& pool, const DeviceCaps& caps);

struct MachineInfo {
  std::string cpu_model;           // as /proc/cpuinfo names it; empty when it does not
  std::vector<std::string> flags;  // of the instruction sets that nibble knows: "avx2", ...
  int processors = 0;              // that this process may use
  int cores = 0;                   // as available_cores() counts
  int numa_nodes = 1;
  std::int64_t memory_bytes = 0;
  std::int64_t available_bytes = 0;
  std::vector<std::string> gpus;  // model names that the NVIDIA driver reports
};

MachineInfo machine_info();

}  // namespace nibble::cpu
