// A warp a group, or a block where a group is a long row: its range first, then its values.
#include "backends/cuda/device/block_reduce.cuh"
#include "backends/cuda/device/launch.cuh"
#include "backends/cuda/kernels/round_activations.h"

namespace nibble::cuda {
namespace {

constexpr int kThreads = 256;

// How the values of a group are rounded; as ActivationScale.
struct GroupScale {
  float scale;  // 0: to zero; NaN: to NaN
  float inverse;
  float zero;
};

__device__ GroupScale scale_over(const RoundActivations& args, float lo, float hi) {
  if (args.fixed_scale != 0) {
    return {args.fixed_scale, __fdiv_rn(1, args.fixed_scale), args.fixed_zero};
  }
  if (!isfinite(lo) || !isfinite(hi)) return {NAN, NAN, 0};
  GroupScale by{};
  if (args.symmetric) {
    const float magnitude = fmaxf(-lo, hi);
    by.scale = __fdiv_rn(magnitude, args.most);
    by.inverse = __fdiv_rn(args.most, magnitude);
  } else {
    by.scale = __fsub_rn(__fdiv_rn(hi, args.most), __fdiv_rn(lo, args.most));
    by.inverse = __fdiv_rn(1, by.scale);
    by.zero = fminf(fmaxf(rintf(__fdiv_rn(-lo, by.scale)), 0), args.most);
  }
  return isfinite(by.inverse) ? by : GroupScale{0, 0, 0};
}

__device__ float nearest_value(const RoundActivations& args, float x) {
  int rank = 0;
  for (int step = args.leaves / 2; step > 0; step /= 2) {
    rank += x > args.bounds[rank + step - 1] ? step : 0;
  }
  return args.values[rank];
}

__device__ float rounded(const RoundActivations& args, const GroupScale& by, float x) {
  if (by.scale == 0 || isnan(by.scale)) return by.scale;
  if (!isfinite(x)) return NAN;  // under a static scale
  if (args.bounds != nullptr) {
    return __fmul_rn(by.scale, nearest_value(args, __fdiv_rn(x, by.scale)));
  }
  const float high = args.symmetric ? args.most : args.most - by.zero;
  const float low = !args.symmetric         ? -by.zero
                    : args.fixed_scale != 0 ? args.least_of_static
                                            : -args.most;
  return __fmul_rn(by.scale, fminf(fmaxf(rintf(__fmul_rn(x, by.inverse)), low), high));
}

template <int kLanes>
__global__ void __launch_bounds__(kThreads) round_groups(RoundActivations args) {
  using Lanes = Team<kLanes, kThreads>;
  let_next_kernel_start();
  wait_for_kernel_ahead();
  const std::int64_t groups = (args.cols + args.group - 1) / args.group;
  const std::int64_t index = Lanes::index();
  if (index >= args.rows * groups) return;  // the lanes of a group together
  const std::int64_t row = index / groups;
  const std::int64_t first = index % groups * args.group;
  const int count = static_cast<int>(min(args.group, args.cols - first));
  const float* const x = args.x + row * args.x_stride + first;
  float lo = 0;
  float hi = 0;
  for (int i = Lanes::lane(); args.fixed_scale == 0 && i < count; i += kLanes) {
    const float v = x[i];
    lo = isfinite(v) ? fminf(lo, v) : -INFINITY;
    hi = fmaxf(hi, v);
  }
  const GroupScale by = scale_over(args, -Lanes::largest(-lo), Lanes::largest(hi));
  float* const y = args.y + row * args.cols + first;
  for (int i = Lanes::lane(); i < count; i += kLanes) y[i] = rounded(args, by, x[i]);
}

}  // namespace

cudaError_t round_activations(const RoundActivations& args, cudaStream_t stream) {
  if (args.rows == 0 || args.cols == 0) return cudaSuccess;
  constexpr std::int64_t kWarpGroup = 512;
  const std::int64_t groups = args.rows * ((args.cols + args.group - 1) / args.group);
  if (args.group > kWarpGroup) {
    return launch(round_groups<kThreads>, team_shape<kThreads>(groups, kThreads), stream, args);
  }
  return launch(round_groups<32>, team_shape<32>(groups, kThreads), stream, args);
}

}  // namespace nibble::cuda
