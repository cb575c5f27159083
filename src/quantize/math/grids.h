// The values that the weights of a matrix may take, group by group, whatever the format: integers
// between a scale and a zero point, small floats, codebooks. Solvers choose grids, then round.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "formats/affine.h"
#include "formats/format.h"

namespace nibble {

// Immutable but for take_group(); thread-safe for reading.
class WeightGrids {
 public:
  // Those that cover the full range of every group of w [rows, cols]. Errors as Format::encode().
  WeightGrids(const FormatPtr& format, const float* w, std::int64_t rows, std::int64_t cols);
  WeightGrids(WeightGrids&&) = default;  // a copy would share planes that take_group() changes
  WeightGrids& operator=(WeightGrids&&) = default;

  std::int64_t rows() const { return rows_; }
  std::int64_t cols() const { return cols_; }
  // Columns that share a grid within a row (all columns by channel and by tensor).
  std::int64_t group_length() const { return length_; }
  std::int64_t groups_per_row() const { return cols_ / length_; }

  // The nearest values for `count` weights of one row from column `begin` on; they lie in one
  // group. out may alias w.
  void round(std::int64_t row, std::int64_t begin, std::int64_t count, const float* w,
             float* out) const;
  float round(std::int64_t row, std::int64_t col, float w) const {
    round(row, col, 1, &w, &w);
    return w;
  }

  // Integers whose scales may be changed group by group. A new scale is rounded to the type in
  // which it is stored, and must be positive.
  bool has_scales() const;
  float scale(std::int64_t row, std::int64_t group) const {
    return params_[index(row, group * length_)].scale;
  }
  void set_scale(std::int64_t row, std::int64_t group, float scale);

  // Gives group `group` of row `row` the only grid of row `from_row` of `from` (one group wide).
  // Both in a format whose groups are independent.
  void take_group(std::int64_t row, std::int64_t group, const WeightGrids& from,
                  std::int64_t from_row);

  // The stored matrix whose codes are nearest to w under these grids.
  QuantTensor encode(const float* w) const;

 private:
  std::size_t index(std::int64_t row, std::int64_t begin) const;

  FormatPtr format_;
  std::int64_t rows_, cols_, length_;
  std::vector<AffineParams> params_;  // affine formats
  QuantTensor like_;                  // others: a matrix under the scales
  std::vector<float> scales_;         // others: those scales
};

// True when the grid of a group depends on nothing but the weights of the group, so that rows and
// groups may be solved apart.
bool groups_are_independent(const Scheme& scheme);

}  // namespace nibble
