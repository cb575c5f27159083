#include "checkpoint/marlin_order.h"

#include <array>
#include <cstring>

namespace nibble {
namespace {

constexpr std::int64_t kTileCodes = kMarlinTile * kMarlinTile;
constexpr std::int64_t kTiles = kMarlinRows / kMarlinTile;  // that are permuted together
constexpr int kPerWord = 8;

// Which code of four tiles, each row-major over its inputs, stands at each place of a stretch of
// 1024: a thread of the kernel gets the eight of a tile that its tensor core takes, as one word in
// the order in which they are unpacked.
const std::array<std::int16_t, kTiles * kTileCodes>& code_order() {
  static const auto order = [] {
    constexpr int kThreads = 32, kUnpacked[] = {0, 2, 4, 6, 1, 3, 5, 7};
    std::array<std::int16_t, kTiles * kTileCodes> places{};
    std::size_t place = 0;
    for (int thread = 0; thread < kThreads; ++thread) {
      for (int tile = 0; tile < kTiles; ++tile) {
        for (const int i : kUnpacked) {
          const int in = 2 * (thread % 4) + (i % 4 / 2) * 8 + i % 2;
          const int out = thread / 4 + i / 4 * 8;
          places[place++] = static_cast<std::int16_t>(tile * kTileCodes + in * kMarlinTile + out);
        }
      }
    }
    return places;
  }();
  return order;
}

// Which output has the scale at each place of a stretch of 32 (a scale a row) or 64.
std::int64_t scale_output(std::int64_t place, bool whole_rows) {
  if (!whole_rows) return place / 8 + place % 8 * 8;
  constexpr std::int64_t kOffsets[] = {0, 1, 8, 9, 16, 17, 24, 25};
  return 2 * (place / 8) + kOffsets[place % 8];
}

}  // namespace

Tensor marlin_codes(const Tensor& stored) {
  const std::int64_t strips = stored.dim(0), words = stored.dim(1), rows = words / 2;
  Tensor codes = Tensor::allocate(DType::kI32, {rows, strips * kMarlinTile / kPerWord});
  std::memset(codes.address(), 0, codes.byte_size());
  auto* out = codes.mutable_data<std::uint32_t>();
  for (std::int64_t strip = 0; strip < strips; ++strip) {
    for (std::int64_t w = 0; w < words; ++w) {
      std::uint32_t word;
      std::memcpy(&word, stored.bytes().data() + (strip * words + w) * 4, sizeof word);
      for (int i = 0; i < kPerWord; ++i, word >>= 4) {
        const std::int64_t place = w * kPerWord + i;
        const auto stretch = static_cast<std::int64_t>(code_order().size());
        const std::int64_t code = code_order()[static_cast<std::size_t>(place % stretch)];
        const std::int64_t tile = place / stretch * kTiles + code / kTileCodes;
        const std::int64_t row = tile * kMarlinTile + code % kMarlinTile;
        const std::int64_t col = strip * kMarlinTile + code % kTileCodes / kMarlinTile;
        out[row * codes.dim(1) + col / kPerWord] |= (word & 15) << (col % kPerWord * 4);
      }
    }
  }
  return codes;
}

Tensor marlin_scales(const Tensor& stored) {
  const std::int64_t groups = stored.dim(0), rows = stored.dim(1);
  const bool whole_rows = groups == 1;
  const std::int64_t stretch = whole_rows ? 32 : 64;
  Tensor scales = Tensor::allocate(DType::kF16, {rows, groups});
  auto* out = scales.mutable_data<std::uint16_t>();
  for (std::int64_t g = 0; g < groups; ++g) {
    for (std::int64_t at = 0; at < rows; ++at) {
      const std::int64_t row = at / stretch * stretch + scale_output(at % stretch, whole_rows);
      std::memcpy(out + row * groups + g, stored.bytes().data() + (g * rows + at) * 2, 2);
    }
  }
  return scales;
}

}  // namespace nibble
