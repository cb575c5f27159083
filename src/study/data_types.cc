#include "study/data_types.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/half.h"
#include "formats/codebook.h"
#include "formats/float_bits.h"

namespace nibble {
namespace {

constexpr float kLargestF16 = 65504;

bool has_width(DataType type, int bits) { return type != DataType::kNormalFloat || bits <= 4; }

void check_ranges(std::span<const int> bits, std::span<const std::int64_t> blocks) {
  for (const int b : bits) {
    if ((b < 2 || b > 8) && b != 16) {
      fail(ErrorKind::kUsage, "study scaling: {} bits; there are 2 to 8, and 16", b);
    }
  }
  for (const std::int64_t block : blocks) {
    if (block < 0) fail(ErrorKind::kUsage, "study scaling: a block of {} weights", block);
  }
}

Levels levels_of_table(const CodeTable& table) {
  Levels levels{{}, static_cast<double>(table.max())};
  for (const float v : table.values()) levels.values.push_back(static_cast<double>(v));
  std::ranges::sort(levels.values);
  const auto same = std::unique(levels.values.begin(), levels.values.end());  // -0 and 0
  levels.values.erase(same, levels.values.end());
  return levels;
}

class Rounder {
 public:
  explicit Rounder(const Levels& levels) : levels_(levels) {
    const auto& values = levels.values;
    for (std::size_t i = 0; i + 1 < values.size(); ++i) {
      borders_.push_back((values[i] + values[i + 1]) / 2);
    }
    zero_ = static_cast<std::size_t>(std::ranges::lower_bound(values, 0.0) - values.begin());
  }

  // One block.
  void round(std::span<float> values) const {
    float largest = 0;
    for (const float v : values) largest = std::max(largest, std::abs(v));
    const auto scale = static_cast<double>(to_float(to_f16(std::min(largest, kLargestF16))));
    for (float& v : values) {
      v = scale == 0 ? 0 : static_cast<float>(nearest(static_cast<double>(v), scale));
    }
  }

 private:
  double nearest(double x, double scale) const {
    const double y = x * levels_.top;  // exact, as are the borders times the scale
    const auto at = std::partition_point(borders_.begin(), borders_.end(),
                                         [&](double border) { return border * scale < y; });
    auto index = static_cast<std::size_t>(at - borders_.begin());
    const bool tie = at != borders_.end() && *at * scale == y;
    if (tie && (index + zero_) % 2 != 0) ++index;
    return levels_.values[index] * scale / levels_.top;
  }

  const Levels& levels_;
  std::vector<double> borders_;
  std::size_t zero_ = 0;  // index of the level 0, or of the first above
};

}  // namespace

std::string to_string(DataType type) {
  switch (type) {
    case DataType::kInt:
      return "int";
    case DataType::kFloat:
      return "float";
    case DataType::kQuantile:
      return "quantile";
    case DataType::kNormalFloat:
      return "nf";
    case DataType::kSixteenBit:
      return "16-bit";
  }
  return "";
}

DataType parse_data_type(const std::string& name) {
  std::string known;
  for (const DataType type : kLowBitTypes) {
    if (to_string(type) == name) return type;
    known += (known.empty() ? "" : ", ") + to_string(type);
  }
  fail(ErrorKind::kUsage, "data type '{}': there are {}", name, known);
}

std::string element_name(const WeightRounding& rounding) {
  switch (rounding.type) {
    case DataType::kFloat:
      return fmt::format("e{}m{}", rounding.exponent, rounding.bits - 1 - rounding.exponent);
    case DataType::kSixteenBit:
      return to_string(rounding.type);
    default:
      return fmt::format("{}{}", to_string(rounding.type), rounding.bits);
  }
}

std::string block_name(std::int64_t block) {
  return block == 0 ? "channel" : std::to_string(block);
}

std::vector<WeightRounding> rounding_grid(std::span<const int> bits,
                                          std::span<const DataType> types,
                                          std::span<const std::int64_t> blocks) {
  check_ranges(bits, blocks);
  std::vector<WeightRounding> grid;
  const auto add = [&](const WeightRounding& rounding) {
    if (std::ranges::find(grid, rounding) == grid.end()) grid.push_back(rounding);
  };
  for (const int b : bits) {
    if (b == 16) {
      add({DataType::kSixteenBit, 16, 0, 0});
      continue;
    }
    for (const DataType type : types) {
      if (!has_width(type, b)) continue;
      for (const std::int64_t block : blocks) {
        if (type != DataType::kFloat) add({type, b, 0, block});
        if (type != DataType::kFloat) continue;
        for (int exponent = 1; exponent < b; ++exponent) add({type, b, exponent, block});
      }
    }
  }
  return grid;
}

Levels levels_of(const WeightRounding& rounding) {
  switch (rounding.type) {
    case DataType::kInt: {
      const int top = (1 << (rounding.bits - 1)) - 1;
      Levels levels{{}, static_cast<double>(top)};
      for (int q = -top; q <= top; ++q) levels.values.push_back(q);
      return levels;
    }
    case DataType::kFloat: {
      constexpr FloatKind kKind = FloatKind::kAllFinite;
      return levels_of_table(table_of({rounding.exponent, rounding.bits - 1 - rounding.exponent,
                                       default_bias(rounding.exponent, kKind), kKind, true}));
    }
    case DataType::kNormalFloat:
      return levels_of_table(table_of(rounding.bits == 2   ? Codebook::kNf2
                                      : rounding.bits == 3 ? Codebook::kNf3
                                                           : Codebook::kNf4));
    default:
      fail(ErrorKind::kInternal, "{} has no levels of its own", to_string(rounding.type));
  }
}

Levels quantile_levels(std::span<const float> sorted, int bits) {
  NIBBLE_CHECK(!sorted.empty() && bits >= 2 && bits <= 8);
  const int count = 1 << bits;
  std::vector<double> quantiles;
  double largest = 0;
  for (int i = 0; i < count; ++i) {
    const double position = (i + 0.5) / count * static_cast<double>(sorted.size() - 1);
    const auto below = static_cast<std::size_t>(position);
    const auto low = static_cast<double>(sorted[below]);
    const auto high = static_cast<double>(sorted[std::min(below + 1, sorted.size() - 1)]);
    quantiles.push_back(low + (position - static_cast<double>(below)) * (high - low));
    largest = std::max(largest, std::abs(quantiles.back()));
  }
  Levels levels;
  for (const double q : quantiles) {
    const float level = largest > 0 ? static_cast<float>(q / largest) : 0;
    levels.values.push_back(static_cast<double>(to_float(to_f16(level))));
  }
  return levels;
}

void round_blocks(const Levels& levels, std::int64_t block, std::span<float> values,
                  ThreadPool& pool) {
  NIBBLE_CHECK(block > 0);
  constexpr std::int64_t kValuesAtOnce = 1 << 14;
  const Rounder rounder(levels);
  const auto size = static_cast<std::int64_t>(values.size());
  pool.parallel_for(
      (size + block - 1) / block, std::max<std::int64_t>(1, kValuesAtOnce / block),
      [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t b = begin; b < end; ++b) {
          const std::int64_t at = b * block;
          rounder.round(values.subspan(static_cast<std::size_t>(at),
                                       static_cast<std::size_t>(std::min(block, size - at))));
        }
      });
}

void round_to_16_bits(std::span<float> values) {
  const auto kept_by = [&](auto to_half) {
    return std::ranges::all_of(values, [&](float v) { return to_float(to_half(v)) == v; });
  };
  if (kept_by([](float v) { return to_bf16(v); }) || kept_by([](float v) { return to_f16(v); })) {
    return;
  }
  for (float& v : values) v = to_float(to_bf16(v));
}

std::int64_t stored_bits(const WeightRounding& rounding, std::int64_t rows, std::int64_t cols) {
  constexpr std::int64_t kScaleBits = 16, kEntryBits = 16;
  const std::int64_t weights = rows * cols;
  if (rounding.type == DataType::kSixteenBit) return 16 * weights;
  const std::int64_t block = rounding.block == 0 ? cols : rounding.block;
  const std::int64_t scales = (weights + block - 1) / block;
  const std::int64_t entries = rounding.type == DataType::kQuantile ? 1 << rounding.bits : 0;
  return rounding.bits * weights + kScaleBits * scales + kEntryBits * entries;
}

}  // namespace nibble
