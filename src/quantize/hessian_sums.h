// The sums of a Hessian, gathered where a backend's ops find them.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "backends/rows.h"
#include "quantize/column_totals.h"
#include "quantize/math/hessian.h"

namespace nibble {

// sum[i, j] = sum over rows r of a[r, i] b[r, j]. Products of some thousand rows are float32; their
// sum is float64 in the host's memory and float32 on a device. Does not depend on the number of
// threads.
class ProductSum {
 public:
  ProductSum(Backend& backend, std::int64_t left, std::int64_t right);

  // Adds rows that are given as columns: a^T [left, rows], b^T [right, rows].
  void add(const Rows& a, const Rows& b);
  // The same for b = a, which leaves what is above the diagonal to mirrored().
  void add_square(const Rows& a) { add_from(a, a, true); }

  std::vector<double> sums() const;
  // Of add_square() alone: both sides of the diagonal.
  std::vector<double> mirrored() const;

 private:
  void add_from(const Rows& a, const Rows& b, bool lower);
  void add_on_host(const LinearArgs& product, std::int64_t first, std::int64_t begin);

  Backend* backend_;
  std::int64_t left_, right_;
  std::vector<double> sum_;  // [left, right]; in the host's memory
  Tensor device_sum_;        // the same on a device, F32
};

// Not thread-safe. The backend must outlive it.
class HessianSums {
 public:
  HessianSums(Backend& backend, std::int64_t channels);

  // Adds rows x [rows, channels] of the input. `full`: the same rows in the unquantized model, or
  // null: no drift. Pointers into the backend's memory, as below.
  void add(const float* x, const float* full, std::int64_t rows);
  // Adds rows of what is missing from the residual stream [rows, outputs], and of x.
  void add_residual(const float* missing, std::int64_t outputs, const float* x, std::int64_t rows);

  std::int64_t channels() const { return channels_; }
  Hessian hessian() const;

 private:
  Backend* backend_;
  std::int64_t channels_;
  ColumnTotals totals_;
  ProductSum moments_;
  std::optional<ProductSum> drift_, residual_;
};

}  // namespace nibble
