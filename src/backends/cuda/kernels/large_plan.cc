// How products of many rows are cut, by what the tiles cost on an H200. Plain C++.
#include <algorithm>
#include <iterator>

#include "backends/cuda/kernels/fp8_large.h"
#include "backends/cuda/kernels/w4_large.h"

namespace nibble::cuda {
namespace {

// Nanoseconds on an H200 with random data.
struct TileCost {
  int rows, tokens, share, split;
  double stage;   // 64 of k for 4-bit weights, 128 for FP8
  double finish;  // of a tile: its last stores, and the exchange of sums where k is split
};

constexpr double kStart = 3000;  // launch and first stages

constexpr TileCost kW4Costs[] = {{128, 256, 2, 1, 630, 1000}, {128, 256, 1, 2, 630, 10000},
                                 {128, 128, 1, 1, 420, 500},  {128, 128, 1, 2, 420, 4000},
                                 {128, 64, 1, 1, 330, 300},   {128, 64, 1, 2, 330, 3000},
                                 {256, 64, 1, 1, 490, 500},   {256, 64, 1, 2, 490, 5000}};

constexpr TileCost kFp8Costs[] = {{128, 256, 2, 1, 1250, 1000},
                                  {128, 256, 1, 2, 1250, 10000},
                                  {128, 128, 2, 1, 880, 500},
                                  {128, 128, 1, 2, 880, 6000}};

std::int64_t tiles_of(std::int64_t size, std::int64_t tile_size) {
  return (size + tile_size - 1) / tile_size;
}

// x [m, stages], W [n, stages].
struct Product {
  std::int64_t m, n, stages;
  int multiprocessors;
};

std::int64_t clusters_at_once(const TileCost& tile, int multiprocessors) {
  return std::max(1, multiprocessors / (tile.share * tile.split));
}

double expected_time(const TileCost& tile, const Product& product) {
  const std::int64_t clusters =
      tiles_of(product.n, std::int64_t{tile.rows} * tile.share) * tiles_of(product.m, tile.tokens);
  const auto rounds =
      static_cast<double>(tiles_of(clusters, clusters_at_once(tile, product.multiprocessors)));
  const double stages = static_cast<double>(product.stages) / tile.split;
  return rounds * (stages * tile.stage + tile.finish) + kStart;
}

const TileCost& fastest(const TileCost* begin, const TileCost* end, const Product& product) {
  return *std::min_element(begin, end, [&](const TileCost& a, const TileCost& b) {
    return expected_time(a, product) < expected_time(b, product);
  });
}

const TileCost& fastest_w4(const Product& product) {
  return fastest(std::begin(kW4Costs), std::end(kW4Costs), product);
}

W4LargeTile w4_tile(const TileCost& tile) {
  return {tile.rows, tile.tokens, tile.share, tile.split};
}

}  // namespace

W4LargeTile choose_w4_large_tile(std::int64_t m, std::int64_t n, std::int64_t k,
                                 int multiprocessors) {
  return w4_tile(fastest_w4({m, n, k / 64, multiprocessors}));
}

Fp8LargeTile choose_fp8_large_tile(std::int64_t m, std::int64_t n, std::int64_t k,
                                   int multiprocessors) {
  const TileCost& tile =
      fastest(std::begin(kFp8Costs), std::end(kFp8Costs), {m, n, k / 128, multiprocessors});
  return {tile.tokens, tile.share, tile.split};
}

W4LargePlan plan_w4_large(std::int64_t m, std::int64_t n, std::int64_t k, int multiprocessors) {
  const Product whole{m, n, k / 64, multiprocessors};
  const TileCost& only = fastest_w4(whole);
  W4LargePlan best{{{n, w4_tile(only)}, {}}};
  double best_time = expected_time(only, whole);
  for (const TileCost& tile : kW4Costs) {
    const std::int64_t token_tiles = tiles_of(m, tile.tokens);
    const std::int64_t clusters = tiles_of(n, std::int64_t{tile.rows} * tile.share) * token_tiles;
    const std::int64_t at_once = clusters_at_once(tile, multiprocessors);
    const std::int64_t rows = clusters / at_once * at_once / token_tiles * tile.rows * tile.share;
    if (rows == 0 || rows >= n) continue;
    const Product first{m, rows, whole.stages, multiprocessors};
    const Product rest{m, n - rows, whole.stages, multiprocessors};
    const TileCost& last = fastest_w4(rest);
    const double time = expected_time(tile, first) + expected_time(last, rest);
    if (time < best_time) {
      best_time = time;
      best = {{{rows, w4_tile(tile)}, {n - rows, w4_tile(last)}}};
    }
  }
  return best;
}

}  // namespace nibble::cuda
