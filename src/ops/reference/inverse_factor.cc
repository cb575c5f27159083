// With P the reversal of rows and columns and P h P = L L^T: U = P L^-1 P is upper, and U^T U =
// h^-1.
#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/axpy.h"
#include "ops/reference/reference.h"

namespace nibble::reference {
namespace {

constexpr std::int64_t kBlock = 64;  // columns that are factored at once
constexpr std::int64_t kTile = 512;  // columns of the trailing matrix that stay in cache
constexpr std::int64_t kGrain = 16;

// Factors the diagonal block [begin, end) in place.
bool factor_block(double* a, std::int64_t n, std::int64_t begin, std::int64_t end) {
  for (std::int64_t j = begin; j < end; ++j) {
    double* row = a + j * n;
    for (std::int64_t k = begin; k < j; ++k) row[j] -= row[k] * row[k];
    if (!(row[j] > 0) || !std::isfinite(row[j])) return false;
    row[j] = std::sqrt(row[j]);
    for (std::int64_t i = j + 1; i < end; ++i) {
      double* below = a + i * n;
      for (std::int64_t k = begin; k < j; ++k) below[j] -= below[k] * row[k];
      below[j] /= row[j];
    }
  }
  return true;
}

// x L^T = row for the columns [begin, end) of one row below the diagonal block.
void solve_row(const double* a, std::int64_t n, std::int64_t begin, std::int64_t end, double* row) {
  for (std::int64_t j = begin; j < end; ++j) {
    const double* l = a + j * n;
    for (std::int64_t k = begin; k < j; ++k) row[j] -= row[k] * l[k];
    row[j] /= l[j];
  }
}

// The lower triangle of data [n, n] = L L^T is replaced by L; what lies above the diagonal is
// neither read nor changed. False, with it in no particular state, when a pivot is not positive or
// not finite.
bool cholesky(double* data, std::int64_t n, ThreadPool& pool) {
  std::vector<double> panel(static_cast<std::size_t>(kBlock * n));  // transposed: [kBlock, n]
  for (std::int64_t begin = 0; begin < n; begin += kBlock) {
    const std::int64_t end = std::min(begin + kBlock, n);
    if (!factor_block(data, n, begin, end)) return false;
    pool.parallel_for(n - end, kGrain, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = end + first; i < end + last; ++i) {
        double* row = data + i * n;
        solve_row(data, n, begin, end, row);
        for (std::int64_t k = begin; k < end; ++k) {
          panel[static_cast<std::size_t>((k - begin) * n + i)] = row[k];
        }
      }
    });
    pool.parallel_for(n - end, kGrain, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t tile = end; tile < end + last; tile += kTile) {
        for (std::int64_t i = std::max(tile, end + first); i < end + last; ++i) {
          double* row = data + i * n;
          subtract_products(row + tile, std::min(tile + kTile, i + 1) - tile, row + begin,
                            panel.data() + tile, n, end - begin);
        }
      }
    });
  }
  return true;
}

// `inverse` [n, n] gets l^-1 in its lower triangle; above it zeros within diagonal blocks, and else
// what was there.
void invert_lower(const double* l, std::int64_t n, double* inverse, ThreadPool& pool) {
  const std::int64_t blocks = (n + kBlock - 1) / kBlock;
  pool.parallel_for(blocks, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t begin = first * kBlock; begin < std::min(n, last * kBlock); begin += kBlock) {
      const std::int64_t end = std::min(begin + kBlock, n);
      for (std::int64_t i = begin; i < n; ++i) {
        const std::int64_t count = std::min(end, i + 1) - begin;
        double* row = inverse + i * n + begin;
        std::fill(row, inverse + i * n + end, 0.0);
        if (i < end) row[i - begin] = 1;
        subtract_products(row, count, l + i * n + begin, inverse + begin * n + begin, n, i - begin);
        for (std::int64_t j = 0; j < count; ++j) row[j] /= l[i * n + i];
      }
    }
  });
}

}  // namespace

void inverse_factor(const InverseFactorArgs& args, ExecContext& context) {
  const std::int64_t n = args.n;
  std::reverse(args.h, args.h + n * n);
  *args.definite = cholesky(args.h, n, context.pool);
  if (!*args.definite) return;
  const auto inverse = std::make_unique_for_overwrite<double[]>(static_cast<std::size_t>(n * n));
  invert_lower(args.h, n, inverse.get(), context.pool);
  context.pool.parallel_for(n, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      float* const row = args.upper + i * n;
      const double* const reversed = inverse.get() + (n - 1 - i) * n;
      for (std::int64_t j = 0; j < n; ++j) {
        row[j] = j < i ? 0.0f : static_cast<float>(reversed[n - 1 - j]);
      }
    }
  });
}

}  // namespace nibble::reference
