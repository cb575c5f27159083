// A block a row, which reads it from the L2 a dozen times instead of sorting it: borders of the
// filters are found digit by digit, by histograms over the digits of ordered keys. Weights are
// integers (counts, or probabilities in units of 2^-40), so that neither sums nor results depend on
// the order of threads.
#include "backends/cuda/device/launch.cuh"
#include "backends/cuda/device/rising_key.cuh"
#include "backends/cuda/kernels/sample.h"

namespace nibble::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;
constexpr int kBins = 2 * kThreads;
constexpr int kDigits = 3;  // of a key: 11, 11 and 10 bits
constexpr std::uint32_t kAll = 0xffffffffu;

struct Shared {
  unsigned long long bins[kBins];
  std::uint64_t totals[kWarps];
  std::uint64_t before;  // what the thread that finds something says to the others
  std::uint64_t at;
  std::uint32_t found;
};

__device__ std::uint64_t warp_running_sum(std::uint64_t value) {
#pragma unroll
  for (int lanes = 1; lanes < 32; lanes *= 2) {
    const std::uint64_t other = __shfl_up_sync(kAll, value, lanes);
    if (threadIdx.x % 32 >= lanes) value += other;
  }
  return value;
}

struct Sums {
  std::uint64_t before;  // of the threads below this one
  std::uint64_t total;
};

// Of a value each thread. Everyone has read `totals` when the next call writes them: callers
// synchronize in between.
__device__ Sums block_sums(std::uint64_t value, Shared& shared) {
  const std::uint64_t running = warp_running_sum(value);
  if (threadIdx.x % 32 == 31) shared.totals[threadIdx.x / 32] = running;
  __syncthreads();
  const std::uint64_t warps = warp_running_sum(shared.totals[threadIdx.x % 32]);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const std::uint64_t total = __shfl_sync(kAll, warps, 31);
  const std::uint64_t below = __shfl_sync(kAll, warps, max(warp - 1, 0));
  return {running - value + (warp > 0 ? below : 0), total};
}

// A row divided by its temperature.
struct Row {
  const float* x;
  std::int64_t cols;
  float temperature;
  float top;

  __device__ float at(std::int64_t col) const { return __fdiv_rn(x[col], temperature); }
  // exp(v - top) in units of 2^-40.
  __device__ std::uint64_t mass(float v) const {
    constexpr double kNothing = -29;  // exp(-29) is below half a unit
    const double below = static_cast<double>(v) - static_cast<double>(top);
    if (!(below > kNothing)) return 0;
    return static_cast<std::uint64_t>(__double2ll_rn(exp(below) * 0x1p40));
  }
};

// The numbers up to a border, in the order of keys.
struct Border {
  std::uint32_t key;     // the first at which their weights together pass the target
  std::uint64_t before;  // the weights of all below it
  std::uint64_t at;      // of all with this key
  std::uint64_t target;
};

// weight(v, key) of a number; target(total) is below the sum of all.
template <class Weight, class Target>
__device__ Border find_border(const Row& row, const Weight& weight, const Target& target_of,
                              Shared& shared) {
  Border border{0, 0, 0, 0};
  int shift = 32;
  for (int digit = 0; digit < kDigits; ++digit) {
    const int above = shift;
    shift = max(shift - 11, 0);
    const std::uint32_t mask = (1u << (above - shift)) - 1;
    for (int i = static_cast<int>(threadIdx.x); i < kBins; i += kThreads) shared.bins[i] = 0;
    __syncthreads();
    for (std::int64_t c = threadIdx.x; c < row.cols; c += kThreads) {
      const float v = row.at(c);
      const std::uint32_t key = rising_key(v);
      if (above < 32 && key >> above != border.key) continue;
      const std::uint64_t w = weight(v, key);
      if (w > 0) atomicAdd(&shared.bins[key >> shift & mask], static_cast<unsigned long long>(w));
    }
    __syncthreads();
    const std::uint64_t low = shared.bins[2 * threadIdx.x];
    const std::uint64_t high = shared.bins[2 * threadIdx.x + 1];
    const Sums sums = block_sums(low + high, shared);
    if (digit == 0) border.target = target_of(sums.total);
    const std::uint64_t before = border.before + sums.before;
    if (before <= border.target && border.target < before + low + high) {
      const bool second = border.target >= before + low;
      shared.found = 2 * threadIdx.x + (second ? 1 : 0);
      shared.before = before + (second ? low : 0);
      shared.at = second ? high : low;
    }
    __syncthreads();
    border.key = border.key << (above - shift) | shared.found;
    border.before = shared.before;
    border.at = shared.at;
  }
  __syncthreads();
  return border;
}

// The first column at which the weights, in the order of columns, pass the target: target(total) is
// below the sum of all.
template <class Weight, class Target>
__device__ std::int32_t find_column(const Row& row, const Weight& weight, const Target& target_of,
                                    Shared& shared) {
  const std::int64_t warp = threadIdx.x / 32;
  const std::int64_t lane = threadIdx.x % 32;
  const std::int64_t part = (row.cols + kThreads - 1) / kThreads * 32;  // of a warp
  const std::int64_t begin = min(warp * part, row.cols);
  const std::int64_t end = min(begin + part, row.cols);
  std::uint64_t own = 0;
  for (std::int64_t c = begin + lane; c < end; c += 32) own += weight(row.at(c), c);
  const Sums sums = block_sums(own, shared);
  const std::uint64_t target = target_of(sums.total);
  // What lies before the warp's part, and behind it.
  const std::uint64_t before = __shfl_sync(kAll, sums.before, 0);
  const std::uint64_t behind = __shfl_sync(kAll, sums.before + own, 31);
  if (before <= target && target < behind) {
    std::uint64_t passed = before;
    for (std::int64_t c = begin; c < end; c += 32) {
      const std::int64_t col = c + lane;
      const std::uint64_t w = col < end ? weight(row.at(col), col) : 0;
      const std::uint64_t running = passed + warp_running_sum(w);
      const unsigned over = __ballot_sync(kAll, running > target);
      if (over != 0) {
        if (lane == 0) shared.found = static_cast<std::uint32_t>(c + __ffs(over) - 1);
        break;
      }
      passed = __shfl_sync(kAll, running, 31);
    }
  }
  __syncthreads();
  const auto found = static_cast<std::int32_t>(shared.found);
  __syncthreads();
  return found;
}

// What top_k and top_p leave: numbers above a key, and those with it up to a column.
struct Kept {
  std::uint32_t key = 0;
  std::int32_t last = 0x7fffffff;

  __device__ bool has(std::uint32_t number, std::int64_t col) const {
    return number > key || (number == key && col <= last);
  }
};

__device__ std::uint64_t part_of(double share, std::uint64_t total) {
  const auto part = static_cast<std::uint64_t>(share * static_cast<double>(total));
  return min(part, total - 1);
}

__device__ Kept keep_top_k(const Row& row, std::int32_t k, Shared& shared) {
  const auto one = [](float, std::uint32_t) { return std::uint64_t{1}; };
  // As many as may go lie below the border.
  const auto target = [&](std::uint64_t total) { return total - static_cast<std::uint64_t>(k); };
  Kept kept;
  kept.key = find_border(row, one, target, shared).key;
  return kept;
}

__device__ Kept keep_top_p(const Row& row, const DrawRule& rule, Kept kept, Shared& shared) {
  const auto mass = [&](float v, std::uint32_t key) {
    return key >= kept.key ? row.mass(v) : std::uint64_t{0};
  };
  const auto target = [&](std::uint64_t total) { return part_of(rule.keep_below, total); };
  const Border border = find_border(row, mass, target, shared);
  kept.key = border.key;
  // Of equals at the border the higher columns go, as long as their sum allows.
  const std::uint64_t each = row.mass(number_of_key(border.key));
  const std::uint64_t stay = border.at / each - (border.target - border.before) / each;
  if (stay == border.at / each) return kept;
  const auto equal = [&](float v, std::int64_t) {
    return std::uint64_t{rising_key(v) == border.key ? 1u : 0u};
  };
  kept.last = find_column(
      row, equal, [&](std::uint64_t) { return stay - 1; }, shared);
  return kept;
}

__global__ void __launch_bounds__(kThreads) sample_row(SampleRows args) {
  __shared__ Shared shared;
  let_next_kernel_start();
  wait_for_kernel_ahead();
  const DrawRule rule = args.rules[blockIdx.x];
  Row row{args.x + blockIdx.x * args.cols, args.cols, rule.temperature, 0};
  std::uint64_t best = 0;
  for (std::int64_t c = threadIdx.x; c < args.cols; c += kThreads) {
    best = max(best, first_largest_key(row.x[c], c));
  }
  best = warp_largest(best);
  if (threadIdx.x % 32 == 0) shared.totals[threadIdx.x / 32] = best;
  __syncthreads();
  best = warp_largest(shared.totals[threadIdx.x % 32]);
  __syncthreads();
  const bool broken = best == 0 || best == kBrokenKey;
  const float top = number_of_key(static_cast<std::uint32_t>(best >> 32));
  row.top = __fdiv_rn(top, rule.temperature);
  std::int32_t chosen = broken ? -1 : column_of_key(best);
  if (!broken && rule.temperature > 0 && isfinite(row.top)) {
    Kept kept;
    if (rule.top_k > 0 && rule.top_k < args.cols) kept = keep_top_k(row, rule.top_k, shared);
    if (rule.keep_below > 0) kept = keep_top_p(row, rule, kept, shared);
    const double least = static_cast<double>(row.top) + rule.log_min_p;
    const auto mass = [&](float v, std::int64_t col) {
      if (!kept.has(rising_key(v), col)) return std::uint64_t{0};
      if (rule.has_min_p != 0 && static_cast<double>(v) < least) return std::uint64_t{0};
      return row.mass(v);
    };
    const auto target = [&](std::uint64_t total) { return part_of(rule.u, total); };
    chosen = find_column(row, mass, target, shared);
  }
  if (threadIdx.x == 0) args.chosen[blockIdx.x] = chosen;
}

}  // namespace

cudaError_t sample_rows(const SampleRows& args, cudaStream_t stream) {
  if (args.rows == 0) return cudaSuccess;
  if (args.cols < 1 || args.cols > kSampleMaxCols) return cudaErrorInvalidValue;
  return launch(sample_row, {dim3(static_cast<unsigned>(args.rows)), dim3(kThreads), 0, true},
                stream, args);
}

}  // namespace nibble::cuda
