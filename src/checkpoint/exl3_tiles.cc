#include "checkpoint/exl3_tiles.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "formats/hadamard.h"

namespace nibble {
namespace {

constexpr std::int64_t kSide = 16, kTile = kSide * kSide, kBlock = 128;
constexpr std::uint32_t kStates = 1 << 16;

// A tile's stream: words of 32 bits, the highest first, without end.
class Stream {
 public:
  Stream(const std::byte* words, int bits) : words_(words), bits_(bits) {}

  // The 16 bits that end with those of weight t.
  std::uint32_t state(int t) const {
    const int all = static_cast<int>(kTile) * bits_;
    const int first = ((t + 1) * bits_ - 16 + all) % all;
    const std::uint64_t two = std::uint64_t{word(first / 32)} << 32 | word(first / 32 + 1);
    return static_cast<std::uint32_t>(two >> (48 - first % 32)) & (kStates - 1);
  }

 private:
  std::uint32_t word(int index) const {
    std::uint32_t value;
    std::memcpy(&value, words_ + index % (8 * bits_) * 4, sizeof value);
    return value;
  }

  const std::byte* words_;
  int bits_;
};

// The tiles as [out, in].
std::vector<float> decode_tiles(const Exl3Weight& weight, const std::vector<float>& values) {
  const std::int64_t in_tiles = weight.trellis.dim(0), out_tiles = weight.trellis.dim(1);
  const int bits = static_cast<int>(weight.trellis.dim(2) / kSide);
  const std::int64_t cols = in_tiles * kSide;
  std::vector<float> w(static_cast<std::size_t>(out_tiles * kSide * cols));
  const std::byte* tile = weight.trellis.bytes().data();
  for (std::int64_t i = 0; i < in_tiles; ++i) {
    for (std::int64_t o = 0; o < out_tiles; ++o, tile += weight.trellis.dim(2) * 2) {
      const Stream stream(tile, bits);
      float* corner = w.data() + o * kSide * cols + i * kSide;
      for (int t = 0; t < kTile; ++t) {
        const Exl3Place place = exl3_places()[static_cast<std::size_t>(t)];
        corner[place.out * cols + place.in] = values[stream.state(t)];
      }
    }
  }
  return w;
}

}  // namespace

Tensor decode_exl3(const Exl3Weight& weight, const std::string& what) {
  std::vector<float> values;
  for (std::uint32_t x = 0; x < kStates; ++x) values.push_back(exl3_value(weight.codebook, x));
  std::vector<float> w = decode_tiles(weight, values);
  const std::int64_t rows = weight.out.elements(), cols = weight.in.elements();
  std::vector<float> in(static_cast<std::size_t>(cols)), out(static_cast<std::size_t>(rows));
  to_float(weight.in, in.data());
  to_float(weight.out, out.data());
  for (std::int64_t row = 0; row < rows; row += kBlock)
    hadamard_sums_of_rows(w.data() + row * cols, kBlock, cols);
  for (std::int64_t row = 0; row < rows; ++row) {
    float* to = w.data() + row * cols;
    for (std::int64_t col = 0; col < cols; col += kBlock) hadamard_sums(to + col, kBlock);
    const float factor = out[static_cast<std::size_t>(row)] / static_cast<float>(kBlock);
    for (std::int64_t col = 0; col < cols; ++col) {
      to[col] *= factor * in[static_cast<std::size_t>(col)];
      constexpr float kTop = 65504;
      if (!(std::abs(to[col]) <= kTop)) {
        fail(ErrorKind::kCorrupt, "{}: a weight of {}, beyond F16", what, to[col]);
      }
    }
  }
  return from_float(w.data(), DType::kF16, {rows, cols});
}

}  // namespace nibble
