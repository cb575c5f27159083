// How products of many rows are cut, by what the tiles cost on an H200. Plain C++.
#include <algorithm>
#include <cmath>

#include "backends/cuda/kernels/w4_large.h"

namespace nibble::cuda {
namespace {

// Nanoseconds on an H200 with random data.
struct TileCost {
  int rows, tokens, share, split;
  double stage;   // 64 of k
  double finish;  // of a tile: its last stores, and the exchange of sums where k is split
};

constexpr double kStart = 3000;  // launch and first stages

constexpr TileCost kCosts[] = {
    {128, 256, 2, 1, 630, 1000}, {128, 256, 1, 2, 630, 10000}, {128, 128, 1, 1, 420, 500},
    {128, 128, 1, 2, 420, 4000}, {128, 64, 1, 1, 330, 300},    {128, 64, 1, 2, 330, 3000},
    {128, 64, 1, 4, 330, 3500},  {256, 64, 1, 1, 490, 500},    {256, 64, 1, 2, 490, 5000}};

std::int64_t tiles_of(std::int64_t size, std::int64_t tile_size) {
  return (size + tile_size - 1) / tile_size;
}

// x [m, stages], W [n, stages].
struct Product {
  std::int64_t m, n, stages;
  int multiprocessors;
};

// Clusters of four do not come out even with the parts of the chip that hold them.
std::int64_t clusters_at_once(const TileCost& tile, int multiprocessors) {
  const int blocks = tile.share * tile.split;
  return std::max(1, multiprocessors / blocks * (blocks < 4 ? 8 : 7) / 8);
}

double expected_time(const TileCost& tile, const Product& product) {
  if (tile.split > product.stages) return HUGE_VAL;
  const std::int64_t clusters =
      tiles_of(product.n, std::int64_t{tile.rows} * tile.share) * tiles_of(product.m, tile.tokens);
  const auto rounds =
      static_cast<double>(tiles_of(clusters, clusters_at_once(tile, product.multiprocessors)));
  const double stages = static_cast<double>(product.stages) / tile.split;
  return rounds * (stages * tile.stage + tile.finish) + kStart;
}

}  // namespace

W4LargeTile choose_w4_large_tile(std::int64_t m, std::int64_t n, std::int64_t k,
                                 int multiprocessors) {
  const Product product{m, n, k / 64, multiprocessors};
  const TileCost& best = *std::ranges::min_element(
      kCosts, {}, [&](const TileCost& tile) { return expected_time(tile, product); });
  return {best.rows, best.tokens, best.share, best.split};
}

}  // namespace nibble::cuda
