// Data types of the scaling study: levels for the weights of one matrix under one scale a block.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/thread_pool.h"

namespace nibble {

enum class DataType { kInt, kFloat, kQuantile, kNormalFloat, kSixteenBit };
inline constexpr DataType kLowBitTypes[] = {DataType::kInt, DataType::kFloat, DataType::kQuantile,
                                            DataType::kNormalFloat};
std::string to_string(DataType type);  // "int", "float", "quantile", "nf", "16-bit"
// kUsage, naming the known ones.
DataType parse_data_type(const std::string& name);

// How all linear layers of the blocks are rounded.
struct WeightRounding {
  DataType type = DataType::kInt;
  int bits = 0;
  int exponent = 0;        // bits of the exponent; kFloat only
  std::int64_t block = 0;  // weights that share a scale; 0: a channel (an output row)

  bool operator==(const WeightRounding&) const = default;
};
// "int4", "e2m1", "quantile3", "nf4", "16-bit"
std::string element_name(const WeightRounding& rounding);
std::string block_name(std::int64_t block);  // "64", "channel"

// Every setting of a grid, the 16-bit one once when 16 is among the bits. Floats of b bits have a
// sign and every split of the rest that leaves an exponent bit (without one they are integers);
// nf exists at 2, 3 and 4 bits. kUsage for bits or blocks out of range.
std::vector<WeightRounding> rounding_grid(std::span<const int> bits,
                                          std::span<const DataType> types,
                                          std::span<const std::int64_t> blocks);

// What a data type can represent under a scale s: values[i] * s / top, sorted. They are whole or
// have few bits, so that which of two levels is nearer is decided exactly.
struct Levels {
  std::vector<double> values;
  double top = 1;  // the largest magnitude that the type can have
};

// Of kInt, kFloat and kNormalFloat.
Levels levels_of(const WeightRounding& rounding);
// 2^bits levels at the quantiles (i + 1/2) / 2^bits of the values, interpolated linearly and
// divided by the largest magnitude, each an f16 number (bitsandbytes' quantile map). `sorted` is
// the values in ascending order.
Levels quantile_levels(std::span<const float> sorted, int bits);

// Rounds each run of `block` values (the last may be shorter) to the nearest level times a scale:
// the largest magnitude of the run, stored as f16. Of two equally near levels the one is taken that
// is an even number of levels away from 0, as integers and floats round ties to even.
void round_blocks(const Levels& levels, std::int64_t block, std::span<float> values,
                  ThreadPool& pool);

// Values that 16 bits hold (all bf16, or all f16) stay; others become bf16.
void round_to_16_bits(std::span<float> values);

// Everything stored for a matrix of `rows` by `cols`: codes, 16 bits a scale, 16 bits for each
// entry of a codebook of its own.
std::int64_t stored_bits(const WeightRounding& rounding, std::int64_t rows, std::int64_t cols);

}  // namespace nibble
