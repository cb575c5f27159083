// y = x W^T (+ bias) for 4-bit weights on Hopper's warpgroup products: from some ten rows of x up.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "backends/cuda/kernels/fragment_matrix.h"

namespace nibble::cuda {

inline constexpr int kW4LargeMaxParts = 3;
inline constexpr int kW4LargeMostSplit = 8;

struct W4Large {
  // bfloat16 [m, cols], contiguous, on 16 bytes (kernels/round_rows.h); for w4_fp8, codes of fp8
  // [m, cols] in the order of kernels/fp8_rows.h.
  const void* x = nullptr;
  // Of w4_fp8 alone: [m], and the sums of x's codes (kernels/fp8_rows.h).
  const float* x_scales = nullptr;
  const void* x_sums = nullptr;
  std::int64_t m = 0;
  // All alike, of 4 bits. For tiles of 128 rows and as many tokens or more y lies on 16 bytes and
  // y_stride is a multiple of 4.
  FragmentPart parts[kW4LargeMaxParts];
  // Of a pair: where its y goes instead, rounded to bfloat16, [m, rows] without gaps, on 16 bytes.
  void* rounded_y = nullptr;
  int part_count = 1;
  bool accumulate = false;  // y += instead of y =
  // Two parts of the same shape: y of the first is silu(first) * second, that of the second is not
  // written. Not with accumulate.
  bool silu_pair = false;
  bool dependent_launch = false;  // may start before the kernel ahead of it in the stream has ended
  // w4_large_workspace() bytes on 256 bytes, for tiles that split k: zeros before the first launch,
  // then of these kernels alone, one launch at a time.
  void* workspace = nullptr;
};

// How the product is cut. A block of threads computes `rows` of W by `tokens` of x.
struct W4LargeTile {
  int rows = 0;  // 128 or 256
  // Of bf16: 256 (by 128 rows), 128 or 32 (by 256), 64 (by either); of fp8: 192 or 128 (by 128
  // rows), 64 or 32 (by 256).
  int tokens = 0;
  int share = 1;  // 1, or 2 blocks of a cluster with the same tokens that share their loads
  // Of tiles beyond those of which every block (or cluster) has one, and which may be all, k is
  // shared out: by so many blocks or clusters each, 1 to kW4LargeMostSplit, if there are as many;
  // or evenly over all of them. Some of these wait for others, which must fit on the device beside
  // them.
  int split = 1;
  bool spreads = false;  // without `split`
};

// The tile expected to be fastest on a device of so many multiprocessors (w4_large_tile.cc).
W4LargeTile choose_w4_large_tile(const W4Large& args, int multiprocessors);
W4LargeTile choose_w4_fp8_tile(const W4Large& args, int multiprocessors);

inline constexpr std::size_t kW4LargeCounterBytes = 4096;  // at the begin of the workspace
std::size_t w4_large_workspace(int multiprocessors);

// Whether arguments and tile are as said here, but for what one of the kernels asks of groups and
// tokens. stage_columns: of k, that a block works on at a time.
bool valid_large(const W4Large& args, const W4LargeTile& tile, int stage_columns);

// Needs compute capability 9.0. Deterministic. x, scales and W's values are rounded to bfloat16,
// sums are float32. cudaErrorInvalidValue for sizes or tiles not as above.
cudaError_t w4_large(const W4Large& args, const W4LargeTile& tile, cudaStream_t stream);

// The same for x in fp8 (e4m3) and groups of 128 or the whole row: products of exact codes, summed
// by the tensor cores over 128 of k and then scaled in float32.
cudaError_t w4_fp8(const W4Large& args, const W4LargeTile& tile, cudaStream_t stream);

}  // namespace nibble::cuda
