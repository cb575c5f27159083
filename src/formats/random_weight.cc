#include "formats/random_weight.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

namespace nibble {
namespace {

constexpr std::int64_t kBandRows = 64;

std::vector<float> random_band(std::int64_t rows, std::int64_t cols, float deviation) {
  std::mt19937_64 random(static_cast<std::uint64_t>(rows * cols));
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> band(static_cast<std::size_t>(rows * cols));
  for (float& v : band) v = normal(random);
  return band;
}

// `whole` filled with copies of `band` along the first axis.
void repeat(const Tensor& band, Tensor& whole) {
  auto* const out = const_cast<std::byte*>(whole.bytes().data());
  for (std::size_t at = 0; at < whole.byte_size(); at += band.byte_size()) {
    std::memcpy(out + at, band.bytes().data(), std::min(band.byte_size(), whole.byte_size() - at));
  }
}

}  // namespace

QuantTensor random_weight(const FormatPtr& format, std::int64_t rows, std::int64_t cols,
                          float deviation) {
  const std::int64_t band_rows = std::min(rows, kBandRows);
  const QuantTensor band =
      format->encode(random_band(band_rows, cols, deviation).data(), band_rows, cols);
  QuantTensor weight{format, rows, cols, {}};
  std::size_t plane = 0;
  for (const PlaneSpec& spec : format->planes(rows, cols)) {
    weight.planes.push_back(Tensor::allocate(spec.dtype, spec.shape));
    repeat(band.planes[plane++], weight.planes.back());
  }
  return weight;
}

}  // namespace nibble
