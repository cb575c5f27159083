// Sums in double: what the results of linear ops are held against.
#pragma once

#include <cstdint>
#include <vector>

namespace nibble::test {

class ExactSums {
 public:
  // w is [rows, cols], row-major.
  ExactSums(const std::vector<float>& w, std::int64_t rows, std::int64_t cols);

  // The products of x [cols] with every row of w are added to `sums` [rows], their absolute values
  // to `magnitudes` [rows].
  void add(const float* x, std::vector<double>& sums, std::vector<double>& magnitudes) const;

 private:
  std::int64_t rows_, cols_;
  std::vector<double> columns_;  // [cols, rows]: sums of a column of results fill vectors
};

}  // namespace nibble::test
