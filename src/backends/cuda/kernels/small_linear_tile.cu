// The cut of the work of kernels/small_linear.h, by a model of its time.
#include <cmath>

#include "backends/cuda/device/small_linear_cut.cuh"
#include "backends/cuda/kernels/small_linear.h"

namespace nibble::cuda {
namespace small {
namespace {

// Time as measured on an H200, in about microseconds: what the busiest multiprocessor has to read
// and multiply, more where its warps do not come out even, and the rounding of x.
double cost_of(const Device& device, const SmallLinear& args, const SmallLinearTile& tile) {
  const FragmentMatrix& w = args.parts[0].w;
  const int bytes = shared_bytes(w, args.m, tile);
  if (bytes > device.block_bytes) return HUGE_VAL;
  const int blocks = blocks_of(device, bytes, args.m, tile);
  const int token_tiles = token_tiles_of(args.m);
  const int tiles = tiles_of(tile.tiles, w.bits, token_tiles, groups_of_chunk(w));
  std::int64_t rows = 0;
  for (int p = 0; p < args.part_count; ++p) rows += args.parts[p].w.rows;
  const auto tasks = static_cast<int>(rows / (16 * tiles));
  // Clusters of four and more do not come out even with the parts of the chip that hold them.
  const double fit = tile.slices >= 4 ? 0.92 : 1.0;
  const int room = static_cast<int>(device.multiprocessors * blocks / tile.slices * fit);
  const int clusters = std::clamp(room, 1, tasks);
  const int per_multiprocessor =
      clusters * tile.slices > device.multiprocessors && blocks == 2 ? 2 : 1;
  const int tasks_of_cluster = (tasks + clusters - 1) / clusters;
  const int places = kWarps / tile.splits;
  const int rounds = (tasks_of_cluster + places - 1) / places;
  const double idle = static_cast<double>(rounds * places) / tasks_of_cluster - 1;
  const auto chunks = static_cast<int>(((w.cols / 64 + 1) / 2 + tile.slices - 1) / tile.slices);
  const double products =
      0.25 * tasks_of_cluster * chunks * tiles / 4 * (blocks == 1 ? 1.05 : 1) * (1 + 0.3 * idle);
  return per_multiprocessor * (products + 0.011 * args.m * chunks);
}

}  // namespace
}  // namespace small

SmallLinearTile choose_small_linear_tile(const SmallLinear& args) {
  using namespace small;
  Device device;
  if (current_device(device) != cudaSuccess || device.major < 9) return {1, 1, 2, 2};
  const FragmentMatrix& w = args.parts[0].w;
  constexpr SmallLinearTile kCandidates[] = {
      {2, 4, 4, 2}, {4, 2, 4, 2}, {8, 1, 4, 2}, {2, 2, 4, 2}, {4, 1, 4, 2}};
  // If x fits in none of them: the smallest share of it.
  const std::int64_t chunks = (w.cols / 64 + 1) / 2;
  SmallLinearTile best{static_cast<int>(std::min<std::int64_t>(kMaxSlices, chunks)), 1, 2, 1};
  double least = HUGE_VAL;
  for (const SmallLinearTile& tile : kCandidates) {
    const bool few = tile.slices * tile.splits < 8;
    if (few && args.m <= 8) continue;  // too few warps a row for its chunks
    if (!valid(tile, w.cols, device.major)) continue;
    const double cost = cost_of(device, args, tile);
    if (cost < 0.98 * least) {  // else the fewer slices
      least = cost;
      best = tile;
    }
  }
  return best;
}

}  // namespace nibble::cuda
