#include "formats/stochastic.h"

#include <algorithm>

#include "base/split_mix.h"

namespace nibble {

double uniform_draw(std::uint64_t seed, std::uint64_t index) {
  return static_cast<double>(random_word(seed, index) >> 11) * 0x1p-53;
}

std::uint8_t stochastic_code(const TableView& table, float x, double draw) {
  const auto value = [&](int rank) { return table.values[table.codes[rank]]; };
  int rank = 0;  // of the greatest value that is not above x
  for (int step = table.leaves / 2; step > 0; step /= 2) {
    if (rank + step < table.ranks && value(rank + step) <= x) rank += step;
  }
  if (rank + 1 < table.ranks && x > value(rank)) {
    const double low = double{value(rank)};
    if (draw * (double{value(rank + 1)} - low) < double{x} - low) ++rank;
  }
  return rank == table.zero_rank && std::signbit(x) ? table.negative_zero : table.codes[rank];
}

void stochastic_affine_codes(int bits, const float* scales, const int* zeros, const float* w,
                             std::int64_t groups, std::int64_t length, std::uint64_t seed,
                             std::int64_t index, std::uint8_t* codes) {
  for (std::int64_t i = 0; i < groups * length; ++i) {
    const std::int64_t g = i / length;
    const auto low = static_cast<float>(-zeros[g]);
    const auto high = static_cast<float>((1 << bits) - 1 - zeros[g]);
    const float steps = std::clamp(w[i] / scales[g], low, high);
    const float below = std::floor(steps);
    const double draw = uniform_draw(seed, static_cast<std::uint64_t>(index + i));
    const int up = draw < double{steps} - double{below} ? 1 : 0;
    codes[i] = static_cast<std::uint8_t>(static_cast<int>(below) + up + zeros[g]);
  }
}

void stochastic_table_codes(const TableView& table, const float* scales, const float* w,
                            std::int64_t groups, std::int64_t length, std::uint64_t seed,
                            std::int64_t index, std::uint8_t* codes) {
  for (std::int64_t i = 0; i < groups * length; ++i) {
    const float scale = scales[i / length];
    const double draw = uniform_draw(seed, static_cast<std::uint64_t>(index + i));
    codes[i] = stochastic_code(table, scale > 0 ? w[i] / scale : 0.0f, draw);
  }
}

}  // namespace nibble
