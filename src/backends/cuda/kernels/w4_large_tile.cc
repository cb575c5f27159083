// What products of many rows take, and how they are cut, by what tiles cost on an H200. Plain C++.
#include <algorithm>
#include <cmath>
#include <span>

#include "backends/cuda/kernels/w4_large.h"

namespace nibble::cuda {
namespace {

// Nanoseconds on an H200 with random data.
struct TileCost {
  int rows, tokens, share;
  double stage;   // of k: 64, of fp8 128
  double finish;  // of a tile: its last stores
  double split;   // where k is split: the exchange of sums
  double spread;  // where k is shared out over all clusters
};

constexpr double kStart = 3000;          // launch and first stages
constexpr std::int64_t kMost = 1 << 24;  // rows, columns, tokens

constexpr TileCost kBf16Costs[] = {{128, 256, 2, 640, 2000, HUGE_VAL, 15000},
                                   {256, 128, 1, 800, 1000, 6500, 13000},
                                   {256, 64, 1, 550, 1000, 4000, 10000},
                                   {256, 32, 1, 470, 1000, 3000, 8000},
                                   {128, 64, 1, 390, 500, 4000, 8000}};

constexpr TileCost kFp8Costs[] = {{128, 192, 1, 680, 5500, HUGE_VAL, 18000},
                                  {128, 128, 1, 560, 2500, 5000, 7000},
                                  {256, 64, 1, 730, 2000, 5000, 11000},
                                  {256, 32, 1, 560, 2000, 3500, 8000}};

std::int64_t tiles_of(std::int64_t size, std::int64_t tile_size) {
  return (size + tile_size - 1) / tile_size;
}

std::int64_t clusters_of(const W4Large& args, const TileCost& tile) {
  const std::int64_t rows = (args.silu_pair ? tile.rows / 2 : tile.rows) * tile.share;
  std::int64_t tiles = 0;
  for (int i = 0; i < (args.silu_pair ? 1 : args.part_count); ++i) {
    tiles += tiles_of(args.parts[i].w.rows, rows);
  }
  return tiles * tiles_of(args.m, tile.tokens);
}

// A cut of a product by one of the tiles, and its time.
class Cuts {
 public:
  Cuts(const TileCost& tile, std::int64_t clusters, std::int64_t stages, int multiprocessors)
      : tile_(tile),
        room_(std::max(1, multiprocessors / tile.share)),
        rounds_(static_cast<double>(clusters / room_)),
        rest_(clusters % room_),
        stages_(stages) {}

  template <class Take>
  void for_each(const Take& take) const {
    const double all = static_cast<double>(stages_);
    take(cut(1, false), time(all));
    if (rest_ == 0) return;
    take(cut(1, true),
         time(all * static_cast<double>(rest_) / static_cast<double>(room_)) + tile_.spread);
    for (int split = 2; split <= std::min<std::int64_t>(kW4LargeMostSplit, stages_); ++split) {
      if (rest_ * split > room_) break;
      take(cut(split, false), time(static_cast<double>(tiles_of(stages_, split))) + tile_.split);
    }
  }

 private:
  W4LargeTile cut(int split, bool spreads) const {
    return {tile_.rows, tile_.tokens, tile_.share, split, spreads};
  }

  // last: stages of the tiles that are not a whole round.
  double time(double last) const {
    const double whole = static_cast<double>(stages_) * tile_.stage + tile_.finish;
    return kStart + rounds_ * whole + (rest_ > 0 ? last * tile_.stage + tile_.finish : 0);
  }

  const TileCost& tile_;
  std::int64_t room_;
  double rounds_;
  std::int64_t rest_;
  std::int64_t stages_;
};

W4LargeTile cheapest(std::span<const TileCost> costs, const W4Large& args, std::int64_t stages,
                     int multiprocessors) {
  W4LargeTile best;
  double least = HUGE_VAL;
  for (const TileCost& tile : costs) {
    if (args.silu_pair && tile.rows != 256) continue;
    const Cuts cuts(tile, clusters_of(args, tile), stages, multiprocessors);
    cuts.for_each([&](const W4LargeTile& cut, double time) {
      if (time >= least) return;
      least = time;
      best = cut;
    });
  }
  return best;
}

// Through the bulk copy engine.
bool stores_boxes(const W4LargeTile& tile) { return tile.rows == 128 && tile.tokens >= 128; }

bool valid_part(const W4Large& args, const W4LargeTile& tile, const FragmentPart& part) {
  const FragmentMatrix& w = part.w;
  return w.bits == 4 && w.rows > 0 && w.rows <= kMost && w.rows % 64 == 0 &&
         part.y_stride >= w.rows && (!stores_boxes(tile) || part.y_stride % 4 == 0) &&
         alike(w, args.parts[0].w) && (!args.silu_pair || w.rows == args.parts[0].w.rows);
}

bool valid_columns(const FragmentMatrix& w, int stage_columns) {
  if (w.cols <= 0 || w.cols > kMost || w.cols % stage_columns != 0 || w.groups <= 0 ||
      w.cols % w.groups != 0) {
    return false;
  }
  const std::int64_t group = w.cols / w.groups;
  return group == 32 || group == 64 || group == 128 || w.groups == 1;
}

bool valid_tile(const W4Large& args, const W4LargeTile& tile, int stage_columns) {
  if (tile.share != 1 && tile.share != 2) return false;
  if (tile.split < 1 || tile.split > kW4LargeMostSplit) return false;
  if (args.silu_pair && tile.rows != 256) return false;
  if (tile.split == 1 && !tile.spreads) return true;
  const bool one_way = tile.spreads ? tile.split == 1 : tile.tokens <= 128;
  return one_way && args.workspace != nullptr && args.parts[0].w.cols / stage_columns >= tile.split;
}

}  // namespace

bool valid_large(const W4Large& args, const W4LargeTile& tile, int stage_columns) {
  if (args.m <= 0 || args.m > kMost || args.part_count < 1 || args.part_count > kW4LargeMaxParts) {
    return false;
  }
  if (args.silu_pair && (args.part_count != 2 || args.accumulate)) return false;
  if (args.rounded_y != nullptr && !args.silu_pair) return false;
  return valid_columns(args.parts[0].w, stage_columns) && valid_tile(args, tile, stage_columns) &&
         std::all_of(args.parts, args.parts + args.part_count,
                     [&](const FragmentPart& part) { return valid_part(args, tile, part); });
}

W4LargeTile choose_w4_large_tile(const W4Large& args, int multiprocessors) {
  return cheapest(kBf16Costs, args, args.parts[0].w.cols / 64, multiprocessors);
}

W4LargeTile choose_w4_fp8_tile(const W4Large& args, int multiprocessors) {
  return cheapest(kFp8Costs, args, args.parts[0].w.cols / 128, multiprocessors);
}

std::size_t w4_large_workspace(int multiprocessors) {
  constexpr std::size_t kMostSums = std::size_t{256} * 128 * sizeof(float);  // of a block
  return kW4LargeCounterBytes + static_cast<std::size_t>(multiprocessors) * kMostSums;
}

}  // namespace nibble::cuda
