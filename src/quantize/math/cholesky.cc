#include "quantize/math/cholesky.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "quantize/math/axpy.h"

namespace nibble {
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

}  // namespace

bool cholesky(std::span<double> a, std::int64_t n, ThreadPool& pool) {
  NIBBLE_CHECK(static_cast<std::int64_t>(a.size()) == n * n);
  double* data = a.data();
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

void invert_lower(std::span<const double> l, std::int64_t n, std::span<double> inverse,
                  ThreadPool& pool) {
  NIBBLE_CHECK(static_cast<std::int64_t>(l.size()) == n * n && inverse.size() == l.size());
  std::ranges::fill(inverse, 0.0);
  const std::int64_t blocks = (n + kBlock - 1) / kBlock;
  pool.parallel_for(blocks, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t begin = first * kBlock; begin < std::min(n, last * kBlock); begin += kBlock) {
      const std::int64_t end = std::min(begin + kBlock, n);
      for (std::int64_t i = begin; i < n; ++i) {
        const std::int64_t count = std::min(end, i + 1) - begin;
        double* row = inverse.data() + i * n + begin;
        if (i < end) row[i - begin] = 1;
        subtract_products(row, count, l.data() + i * n + begin, inverse.data() + begin * n + begin,
                          n, i - begin);
        for (std::int64_t j = 0; j < count; ++j) row[j] /= l[static_cast<std::size_t>(i * n + i)];
      }
    }
  });
}

}  // namespace nibble
