#include "formats/trellis.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "formats/exl3_code.h"
#include "formats/families.h"
#include "formats/hadamard.h"

namespace nibble {
namespace {

constexpr std::int64_t kMaxBlock = 128;

float value_of(std::uint32_t state) {
  const std::uint32_t x = state * 0x83DCD12Du;
  const std::uint32_t sum = (x & 255) + (x >> 8 & 255) + (x >> 16 & 255) + (x >> 24);
  return (static_cast<float>(sum) - 510.0f) / 128.0f;
}

// Of planes that may lie anywhere in a file.
std::uint32_t word_at(const std::byte* words, std::int64_t i) {
  std::uint32_t word;
  std::memcpy(&word, words + 4 * i, sizeof word);
  return word;
}

const TrellisCode& code_of(const Element& element) {
  static const auto codes = [] {
    std::array<TrellisCode, 2> both;
    for (std::uint32_t x = 0; x < kTrellisStates; ++x) {
      both[0].values.push_back(value_of(x));
      both[1].values.push_back(exl3_value(Exl3Codebook::kMul1, x));
    }
    for (std::size_t t = 0; t < kTrellisTile; ++t) {
      const Exl3Place place = exl3_places()[kTrellisTile - 1 - t];
      both[0].places[t] = static_cast<std::uint8_t>(t);
      both[1].places[t] = static_cast<std::uint8_t>(kTrellisSide * place.out + place.in);
    }
    return both;
  }();
  return codes[element.two_sided ? 1 : 0];
}

// The state of the 16 bits from `bit` on of a tile of so many words.
std::uint32_t state_at(const std::byte* tile, std::int64_t words, std::int64_t bit) {
  const std::uint64_t low = word_at(tile, bit / 32), high = word_at(tile, (bit / 32 + 1) % words);
  return static_cast<std::uint32_t>((high << 32 | low) >> bit % 32) & (kTrellisStates - 1);
}

// Columns of a Hadamard block.
std::int64_t trellis_block(std::int64_t cols) {
  std::int64_t block = 1;
  while (block < kMaxBlock && cols % (2 * block) == 0) block *= 2;
  return block;
}

class TrellisFormat final : public Format {
 public:
  explicit TrellisFormat(const WeightDescriptor& descriptor) : descriptor_(descriptor) {}

  std::string name() const override {
    std::string name = element_name(descriptor_.element);
    if (descriptor_.element.two_sided) return name;
    if (descriptor_.scheme.scale_type == DType::kBF16) name += "_sbf16";
    if (descriptor_.scheme.scale_type == DType::kF32) name += "_sf32";
    return name;
  }
  const WeightDescriptor& descriptor() const override { return descriptor_; }

  std::string why_not(std::int64_t rows, std::int64_t cols) const override {
    if (rows < 1 || cols < 1) return "the matrix is empty";
    if (descriptor_.element.two_sided && (rows % kMaxBlock != 0 || cols % kMaxBlock != 0)) {
      return fmt::format("EXL3 needs rows and columns in {}s, not [{}, {}]", kMaxBlock, rows, cols);
    }
    if (cols % kTrellisSide == 0) return "";
    return fmt::format("tiles of {} columns do not divide {} columns", kTrellisSide, cols);
  }

  std::vector<PlaneSpec> planes(std::int64_t rows, std::int64_t cols) const override {
    const std::int64_t words = 8 * descriptor_.element.bits;
    return {{"codes",
             DType::kI32,
             {(rows + kTrellisSide - 1) / kTrellisSide, cols / kTrellisSide * words}},
            {"scales", descriptor_.scheme.scale_type, {rows, 1}}};
  }

  QuantTensor encode(const float* w, std::int64_t rows, std::int64_t cols,
                     const Codec& codec) const override;
  void decode(const QuantTensor& tensor, std::int64_t row, std::int64_t begin, std::int64_t count,
              float* out, const SpanKernels& spans) const override;
  void decode_rows(const QuantTensor& tensor, std::int64_t first, std::int64_t rows, float* out,
                   const SpanKernels& spans) const override;
  std::int64_t row_block() const override { return descriptor_.element.two_sided ? kMaxBlock : 1; }

 private:
  // Two-sided: rows [first, first + rows) of one block of rows, columns [begin, begin + count).
  void decode_blocks(const QuantTensor& tensor, std::int64_t first, std::int64_t rows,
                     std::int64_t begin, std::int64_t count, float* out) const;

  WeightDescriptor descriptor_;
};

// V of 128 rows and columns, from a tile on that is the first of a column of tiles.
void block_values(const TrellisCode& code, const std::byte* tiles, std::int64_t row_bytes,
                  std::int64_t words, float* v) {
  for (std::int64_t row = 0; row < kMaxBlock; row += kTrellisSide, tiles += row_bytes) {
    for (std::int64_t col = 0; col < kMaxBlock; col += kTrellisSide) {
      const std::byte* tile = tiles + col / kTrellisSide * words * 4;
      for (std::int64_t t = 0; t < kTrellisTile; ++t) {
        const std::int64_t place = code.places[static_cast<std::size_t>(t)];
        v[(row + place / kTrellisSide) * kMaxBlock + col + place % kTrellisSide] =
            code.values[state_at(tile, words, t * words / 8)];
      }
    }
  }
}

QuantTensor TrellisFormat::encode(const float* w, std::int64_t rows, std::int64_t cols,
                                  const Codec& codec) const {
  require_fits(*this, rows, cols);
  require_finite(name(), w, rows, cols);
  std::vector<float> rotated(w, w + rows * cols);
  trellis_rotate(rotated.data(), rows, cols);
  TrellisTarget target =
      trellis_target(make_trellis_format(descriptor_), rotated.data(), rows, cols);
  codec.for_rows(
      target.tensor.planes[0].dim(0), kTrellisSide * cols,
      [&](std::int64_t first, std::int64_t last) {
        TrellisEncoder encoder(descriptor_.element, *codec.spans);
        for (std::int64_t tile = first; tile < last; ++tile) {
          const std::int64_t row = tile * kTrellisSide;
          const TrellisRows part{rotated.data() + row * cols, cols,
                                 std::min(kTrellisSide, rows - row), target.factors.data() + row};
          for (std::int64_t col = 0; col < cols; col += kTrellisSide) {
            encoder.encode(part, col, {}, trellis_words(target.tensor, tile, col / kTrellisSide),
                           nullptr);
          }
        }
      });
  return std::move(target.tensor);
}

void TrellisFormat::decode(const QuantTensor& tensor, std::int64_t row, std::int64_t begin,
                           std::int64_t count, float* out, const SpanKernels& /*spans*/) const {
  if (descriptor_.element.two_sided) return decode_blocks(tensor, row, 1, begin, count, out);
  const int bits = descriptor_.element.bits;
  const std::int64_t words = 8 * bits;
  const std::int64_t block = trellis_block(tensor.cols);
  float factor = 0;
  to_float(tensor.planes[1], row, 1, &factor);
  factor *= static_cast<float>(1 / std::sqrt(static_cast<double>(block)));
  const std::byte* tiles =
      tensor.planes[0].bytes().data() + row / kTrellisSide * tensor.planes[0].dim(1) * 4;
  const std::int64_t first_bit = row % kTrellisSide * kTrellisSide * bits;
  float v[kMaxBlock];
  for (std::int64_t at = begin / block * block; at < begin + count; at += block) {
    for (std::int64_t k = 0; k < block; ++k) {
      const std::byte* tile = tiles + (at + k) / kTrellisSide * words * 4;
      const std::int64_t bit = first_bit + (at + k) % kTrellisSide * bits;
      v[k] = value_of(state_at(tile, words, bit));
    }
    hadamard_sums(v, block);
    const std::int64_t first = std::max<std::int64_t>(0, begin - at);
    for (std::int64_t k = first; k < std::min(block, begin + count - at); ++k) {
      *out++ = v[k] * factor * trellis_sign(at + k);
    }
  }
}

void TrellisFormat::decode_rows(const QuantTensor& tensor, std::int64_t first, std::int64_t rows,
                                float* out, const SpanKernels& spans) const {
  if (!descriptor_.element.two_sided) return Format::decode_rows(tensor, first, rows, out, spans);
  for (const std::int64_t end = first + rows; first < end;) {
    const std::int64_t count = std::min(kMaxBlock - first % kMaxBlock, end - first);
    decode_blocks(tensor, first, count, 0, tensor.cols, out);
    out += count * tensor.cols;
    first += count;
  }
}

void TrellisFormat::decode_blocks(const QuantTensor& tensor, std::int64_t first, std::int64_t rows,
                                  std::int64_t begin, std::int64_t count, float* out) const {
  const std::int64_t words = 8 * descriptor_.element.bits;
  const std::int64_t row_bytes = tensor.planes[0].dim(1) * 4;
  const std::byte* tiles =
      tensor.planes[0].bytes().data() + first / kMaxBlock * (kMaxBlock / kTrellisSide) * row_bytes;
  std::vector<float> factors(static_cast<std::size_t>(rows));
  to_float(tensor.planes[1], first, rows, factors.data());
  std::vector<float> v(static_cast<std::size_t>(kMaxBlock * kMaxBlock));
  for (std::int64_t at = begin / kMaxBlock * kMaxBlock; at < begin + count; at += kMaxBlock) {
    block_values(code_of(descriptor_.element), tiles + at / kTrellisSide * words * 4, row_bytes,
                 words, v.data());
    hadamard_sums_of_rows(v.data(), kMaxBlock, kMaxBlock);
    const std::int64_t from = std::max(at, begin), to = std::min(at + kMaxBlock, begin + count);
    for (std::int64_t row = 0; row < rows; ++row) {
      float* values = v.data() + (first + row) % kMaxBlock * kMaxBlock;
      hadamard_sums(values, kMaxBlock);
      const float factor = factors[static_cast<std::size_t>(row)] / static_cast<float>(kMaxBlock);
      for (std::int64_t col = from; col < to; ++col) {
        out[row * count + col - begin] = values[col - at] * (factor * trellis_sign(col));
      }
    }
  }
}

// Of the scale that gives the values the deviation of the weights: the one of least error for
// Gaussian weights, by measurement. Few bits shrink, many leave room for the tails.
double scale_factor(int bits) {
  constexpr double kFactors[] = {0, 0, 1.05, 1.04, 1.07, 1.18, 1.12, 1.15, 1.3};
  return kFactors[bits];
}

}  // namespace

float trellis_sign(std::int64_t col) {
  std::uint32_t x = static_cast<std::uint32_t>(col + 1) * 0x9E3779B1u;
  x = (x ^ x >> 15) * 0x85EBCA77u;
  return ((x ^ x >> 13) & 1) != 0 ? -1.0f : 1.0f;
}

FormatPtr make_trellis_format(const WeightDescriptor& descriptor) {
  const Scheme& scheme = descriptor.scheme;
  const int bits = descriptor.element.bits;
  if (bits < 2 || bits > 8) {
    fail(ErrorKind::kUnsupported, "trellis of {} bits: 2 to 8 are supported", bits);
  }
  if (scheme.granularity != Granularity::kChannel || !is_float_weight(scheme.scale_type) ||
      scheme.rule != ScaleRule::kAbsmax || scheme.second_level != SecondLevel::kNone) {
    fail(ErrorKind::kUnsupported, "a trellis has one F16, BF16 or F32 scale a channel");
  }
  if (descriptor.element.two_sided && scheme.scale_type != DType::kF16) {
    fail(ErrorKind::kUnsupported, "EXL3 has scales of F16");
  }
  return std::make_shared<TrellisFormat>(descriptor);
}

template <class T>
void trellis_rotate(T* w, std::int64_t rows, std::int64_t cols) {
  const std::int64_t block = trellis_block(cols);
  const T factor = static_cast<T>(1 / std::sqrt(static_cast<double>(block)));
  for (std::int64_t row = 0; row < rows; ++row, w += cols) {
    for (std::int64_t j = 0; j < cols; ++j) w[j] *= factor * static_cast<T>(trellis_sign(j));
    for (std::int64_t j = 0; j < cols; j += block) hadamard_sums(w + j, block);
  }
}
template void trellis_rotate(float* w, std::int64_t rows, std::int64_t cols);
template void trellis_rotate(double* w, std::int64_t rows, std::int64_t cols);

TrellisTarget trellis_target(const FormatPtr& format, float* rotated, std::int64_t rows,
                             std::int64_t cols) {
  const Element& element = format->descriptor().element;
  const double of_values = element.two_sided ? 1.0003 : 1.1547;  // deviation of all states
  std::vector<float> scales;
  for (std::int64_t row = 0; row < rows; ++row) {
    const float* w = rotated + row * cols;
    double sum = 0;
    for (std::int64_t j = 0; j < cols; ++j) sum += double{w[j]} * double{w[j]};
    const double deviation = std::sqrt(sum / static_cast<double>(cols));
    scales.push_back(static_cast<float>(deviation / of_values * scale_factor(element.bits)));
  }
  TrellisTarget target{trellis_tensor(format, rows, cols, scales), {}};
  target.factors = trellis_scales(target.tensor);
  if (!element.two_sided) return target;
  for (std::int64_t row = 0; row < rows; ++row) {
    const float scale = target.factors[static_cast<std::size_t>(row)];
    const float factor = scale > 0 ? 1 / (scale * std::sqrt(static_cast<float>(kMaxBlock))) : 0;
    for (std::int64_t j = 0; j < cols; ++j) rotated[row * cols + j] *= factor;
  }
  for (std::int64_t row = 0; row < rows; row += kMaxBlock) {
    hadamard_sums_of_rows(rotated + row * cols, kMaxBlock, cols);
  }
  std::ranges::fill(target.factors, 1.0f);
  return target;
}

QuantTensor trellis_tensor(const FormatPtr& format, std::int64_t rows, std::int64_t cols,
                           std::span<const float> scales) {
  const std::vector<PlaneSpec> planes = format->planes(rows, cols);
  QuantTensor tensor{format, rows, cols, {}};
  tensor.planes.push_back(Tensor::allocate(planes[0].dtype, planes[0].shape));
  tensor.planes.push_back(from_float(scales.data(), planes[1].dtype, planes[1].shape));
  for (const float stored : trellis_scales(tensor)) {
    if (std::isfinite(stored)) continue;
    fail(ErrorKind::kUnsupported, "{}: a scale beyond {}; take wider scales", format->name(),
         to_string(planes[1].dtype));
  }
  return tensor;
}

std::vector<float> trellis_scales(const QuantTensor& tensor) {
  std::vector<float> scales(static_cast<std::size_t>(tensor.rows));
  to_float(tensor.planes[1], 0, tensor.rows, scales.data());
  return scales;
}

std::span<std::uint32_t> trellis_words(QuantTensor& tensor, std::int64_t tile_row,
                                       std::int64_t tile_col) {
  const std::int64_t words = 8 * tensor.format->descriptor().element.bits;
  Tensor& codes = tensor.planes[0];
  return {codes.mutable_data<std::uint32_t>() + tile_row * codes.dim(1) + tile_col * words,
          static_cast<std::size_t>(words)};
}

TrellisEncoder::TrellisEncoder(const Element& element, const SpanKernels& spans)
    : bits_(element.bits),
      code_(code_of(element)),
      span_(kTrellisStates >> bits_),
      spans_(spans),
      costs_(kTrellisStates),
      other_(kTrellisStates),
      choices_(static_cast<std::size_t>(kTrellisTile) * span_) {}

void TrellisEncoder::search(const Values& w, const Values& weights, std::int64_t begin,
                            std::int64_t end) {
  for (std::int64_t t = end; t-- > begin;) {
    const auto at = static_cast<std::size_t>(t % kTrellisTile);
    spans_.trellis_step(bits_, code_.values.data(), w[at], weights[at], costs_.data(),
                        other_.data(), choices_.data() + at * span_);
    std::swap(costs_, other_);
  }
}

std::uint32_t TrellisEncoder::next(std::uint32_t state, std::int64_t position) const {
  const std::uint32_t kept = state >> bits_;
  const std::uint32_t added =
      choices_[static_cast<std::size_t>(position % kTrellisTile) * span_ + kept];
  return added * span_ + kept;
}

// The stream closes on itself: the state before position 0 ends as that at position 0 begins. A
// search over half the tile, with position 0 in the middle, says how; then the whole tile is
// searched among the paths that begin and end so.
TrellisEncoder::Path TrellisEncoder::find_path(const Values& w, const Values& weights) {
  constexpr std::int64_t kStart = kTrellisTile * 3 / 4;
  std::ranges::fill(costs_, 0.0f);
  search(w, weights, kStart, kStart + kTrellisTile / 2);
  auto state = static_cast<std::uint32_t>(std::ranges::min_element(costs_) - costs_.begin());
  for (std::int64_t t = kStart; t < kTrellisTile; ++t) state = next(state, t);
  const std::uint32_t closing = state & (span_ - 1);

  std::ranges::fill(costs_, std::numeric_limits<float>::infinity());
  for (std::uint32_t x = closing; x < kTrellisStates; x += span_) costs_[x] = 0;
  search(w, weights, 0, kTrellisTile);
  state = closing;
  for (std::uint32_t x = closing; x < kTrellisStates; x += span_) {
    if (costs_[x] < costs_[state]) state = x;
  }
  Path path;
  for (std::int64_t t = 0; t < kTrellisTile; ++t) {
    path[static_cast<std::size_t>(t)] = static_cast<std::uint16_t>(state);
    state = next(state, t);
  }
  return path;
}

void TrellisEncoder::encode(const TrellisRows& rows, std::int64_t col,
                            std::span<const float> column_weights, std::span<std::uint32_t> words,
                            float* decoded) {
  float largest = 0;  // by which weights are divided, so that costs are of the size of errors
  for (std::int64_t row = 0; row < rows.count; ++row) {
    largest = std::max(largest, rows.factors[row]);
  }
  Values w{}, weights{};  // rows that are not there, or zero, weigh nothing
  for (std::int64_t t = 0; t < kTrellisTile; ++t) {
    const std::int64_t place = code_.places[static_cast<std::size_t>(t)];
    const std::int64_t row = place / kTrellisSide, j = place % kTrellisSide;
    const float scale = row < rows.count ? rows.factors[row] : 0;
    if (!(scale > 0)) continue;
    const float share = scale / largest;
    w[static_cast<std::size_t>(t)] = rows.w[row * rows.stride + col + j] / scale;
    weights[static_cast<std::size_t>(t)] =
        share * share *
        (column_weights.empty() ? 1.0f : column_weights[static_cast<std::size_t>(j)]);
  }
  const Path path = find_path(w, weights);
  std::ranges::fill(words, 0u);
  for (std::int64_t t = 0; t < kTrellisTile; ++t) {
    const std::uint32_t state = path[static_cast<std::size_t>(t)];
    const std::int64_t bit = t * bits_;
    const std::uint64_t part = std::uint64_t{state & ((1u << bits_) - 1)} << bit % 32;
    words[static_cast<std::size_t>(bit / 32)] |= static_cast<std::uint32_t>(part);
    if (part >> 32 != 0) {
      words[static_cast<std::size_t>(bit / 32 + 1)] |= static_cast<std::uint32_t>(part >> 32);
    }
    const std::int64_t place = code_.places[static_cast<std::size_t>(t)];
    if (decoded != nullptr && place < rows.count * kTrellisSide) {
      decoded[place] = code_.values[state] * rows.factors[place / kTrellisSide];
    }
  }
}

}  // namespace nibble
