// The cut of the work of kernels/small_linear.h, by a model of its time.
#include <cmath>

#include "backends/cuda/device/small_linear_cut.cuh"
#include "backends/cuda/kernels/small_linear.h"

namespace nibble::cuda {
namespace small {
namespace {

int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Microseconds, as measured on an H200.
struct Speeds {
  double bit;      // of a code of 16 x 128 codes, where it is read and multiplied
  double tile;     // of a chunk, on the way of a warp
  double x;        // rounding of a row of a chunk
  double meeting;  // of all that share a task, whatever their number
  double slicing;  // a factor of two of slices
};
constexpr Speeds kFragmentSpeeds{0.0055, 0.18, 0.009, 1.2, 0.35};
constexpr Speeds kDigitSpeeds{0.0083, 0.125, 0.003, 1.2, 0.2};

// About the time of a launch. What the busiest multiprocessor has to read and multiply and the way
// of its slowest warp through its tasks (chunks of k, then a meeting of all that share the task)
// hide each other in part; the rounding of x hides behind neither.
double cost_of(const Device& device, const SmallLinear& args, const SmallLinearTile& tile) {
  const FragmentMatrix& w = args.parts[0].w;
  const int bytes = shared_bytes(device, w, args.m, tile);
  if (bytes > device.block_bytes) return HUGE_VAL;
  const int blocks = blocks_of(device, bytes, args.m, tile);
  const int token_tiles = token_tiles_of(args.m);
  const Speeds& speeds = token_tiles == 0 ? kDigitSpeeds : kFragmentSpeeds;
  const int tiles = tiles_of(tile.tiles, w.bits, token_tiles, groups_of_chunk(w));
  std::int64_t rows = 0;
  for (int p = 0; p < args.part_count; ++p) rows += args.parts[p].w.rows;
  const auto tasks = static_cast<int>(rows / (16 * tiles));
  // Clusters of four and more do not come out even with the parts of the chip that hold them.
  const double fit = tile.slices >= 4 ? 0.72 : 1.0;
  const int room = static_cast<int>(device.multiprocessors * blocks / tile.slices * fit);
  const int clusters = std::clamp(room, 1, tasks);
  const int per_multiprocessor =
      clusters * tile.slices > device.multiprocessors && blocks == 2 ? 2 : 1;
  const int tasks_of_cluster = ceil_div(tasks, clusters);
  const int chunks = ceil_div(static_cast<int>((w.cols / 64 + 1) / 2), tile.slices);
  const double work = speeds.bit * w.bits * per_multiprocessor * tasks_of_cluster * chunks * tiles;
  const int cells = cells_of(tiles, token_tiles);
  const double meeting =
      speeds.meeting + 0.011 * tile.slices * tile.splits * cells / std::min(tile.splits, cells);
  const double columns = 0.35 + 0.65 * std::max(1, token_tiles);
  const double task = speeds.tile * ceil_div(chunks, tile.splits) * tiles * columns + meeting;
  const double way = ceil_div(tasks_of_cluster, kWarps / tile.splits) * task;
  return std::hypot(work, way) + speeds.x * args.m * chunks * per_multiprocessor +
         speeds.slicing * std::log2(tile.slices);
}

}  // namespace
}  // namespace small

SmallLinearTile choose_small_linear_tile(const SmallLinear& args) {
  using namespace small;
  Device device;
  if (current_device(device) != cudaSuccess || device.major < 9) return {1, 1, 2, 2};
  const FragmentMatrix& w = args.parts[0].w;
  constexpr SmallLinearTile kCandidates[] = {{1, 2, 4, 2}, {1, 4, 4, 2}, {1, 8, 4, 2}, {2, 1, 4, 2},
                                             {2, 2, 4, 2}, {2, 4, 4, 2}, {2, 8, 4, 2}, {4, 1, 4, 2},
                                             {4, 2, 4, 2}, {8, 1, 4, 2}, {8, 2, 4, 2}};
  // If x fits in none of them: the smallest share of it.
  const std::int64_t chunks = (w.cols / 64 + 1) / 2;
  SmallLinearTile best{static_cast<int>(std::min<std::int64_t>(kMaxSlices, chunks)), 1, 2, 1};
  double least = HUGE_VAL;
  for (const SmallLinearTile& tile : kCandidates) {
    if (!valid(tile, w.cols, device.major)) continue;
    const double cost = cost_of(device, args, tile);
    if (cost < least) {
      least = cost;
      best = tile;
    }
  }
  return best;
}

}  // namespace nibble::cuda
