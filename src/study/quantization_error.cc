#include "study/quantization_error.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "base/error.h"
#include "study/grid.h"

namespace nibble {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// E[(x - level)^2] over the values that `cell` holds.
double cell_error(const Moments& cell, double level) {
  return cell.second - 2 * level * cell.first + level * level * cell.mass;
}

// Minimum of a function that has one between lo and hi.
template <class F>
double golden_section(double lo, double hi, const F& f) {
  constexpr double kRatio = 1 / std::numbers::phi;
  double a = hi - kRatio * (hi - lo), b = lo + kRatio * (hi - lo);
  double fa = f(a), fb = f(b);
  while (hi - lo > 1e-7 * hi) {
    if (fa < fb) {
      hi = b, b = a, fb = fa;
      a = hi - kRatio * (hi - lo);
      fa = f(a);
    } else {
      lo = a, a = b, fa = fb;
      b = lo + kRatio * (hi - lo);
      fb = f(b);
    }
  }
  return (lo + hi) / 2;
}

// Levels at equal steps of the integral of density^(1/3).
std::vector<double> companded_levels(const Distribution& distribution, int count) {
  constexpr int kCells = 4096;
  const double largest = distribution.largest();
  std::vector<double> edges, cumulative = {0};
  double above = distribution.above(-kInfinity).mass;
  for (int i = 0; i <= kCells; ++i) edges.push_back(largest * (2.0 * i / kCells - 1));
  for (std::size_t i = 1; i < edges.size(); ++i) {
    const double next = distribution.above(edges[i]).mass;
    cumulative.push_back(cumulative.back() + std::cbrt(std::max(0.0, above - next)));
    above = next;
  }
  std::vector<double> levels;
  for (int k = 0; k < count; ++k) {
    const double wanted = cumulative.back() * (k + 0.5) / count;
    const auto at = std::upper_bound(cumulative.begin(), cumulative.end(), wanted);
    const auto i = static_cast<std::size_t>(at - cumulative.begin());
    const double part = (wanted - cumulative[i - 1]) / (cumulative[i] - cumulative[i - 1]);
    levels.push_back(edges[i - 1] + part * (edges[i] - edges[i - 1]));
  }
  return levels;
}

// One sweep: every level moves to the mean of its cell, and `omega` - 1 of that way beyond it.
void lloyd_sweep(const Distribution& distribution, double omega, std::vector<double>& levels) {
  std::vector<double> moved = levels;
  Moments above = distribution.above(-kInfinity);
  for (std::size_t i = 0; i < levels.size(); ++i) {
    const bool last = i + 1 == levels.size();
    const Moments next = last ? Moments{} : distribution.above((levels[i] + levels[i + 1]) / 2);
    const Moments cell = above - next;
    if (cell.mass > 0) moved[i] += omega * (cell.first / cell.mass - levels[i]);
    above = next;
  }
  if (std::is_sorted(moved.begin(), moved.end())) levels = std::move(moved);
}

}  // namespace

double mean_squared_error(const Distribution& distribution, std::span<const double> levels,
                          double scale) {
  double error = 0;
  Moments above = distribution.above(-kInfinity);
  for (std::size_t i = 0; i < levels.size(); ++i) {
    const bool last = i + 1 == levels.size();
    const Moments next =
        last ? Moments{} : distribution.above(scale * (levels[i] + levels[i + 1]) / 2);
    error += cell_error(above - next, scale * levels[i]);
    above = next;
  }
  return std::max(0.0, error);
}

double bits_of_accuracy(const Distribution& distribution, double mean_squared_error) {
  return std::log2(deviation(distribution) / std::sqrt(mean_squared_error));
}

Clip best_clip(const Distribution& distribution, std::span<const double> levels) {
  constexpr int kCandidates = 200;
  const double sigma = deviation(distribution);
  const double hi = std::max(distribution.largest(), 1e-30);
  const double lo = std::clamp(0.05 * sigma, 1e-6 * hi, 0.5 * hi);
  const double step = std::pow(hi / lo, 1.0 / kCandidates);
  const auto error = [&](double clip) { return mean_squared_error(distribution, levels, clip); };
  Clip best{hi, error(hi)};
  for (int k = 1; k <= kCandidates; ++k) {
    const double clip = hi * std::pow(step, -k);
    const double e = error(clip);
    if (e < best.mean_squared_error) best = {clip, e};
  }
  const double clip = golden_section(best.clip / step, std::min(hi, best.clip * step), error);
  const double refined = error(clip);
  return refined < best.mean_squared_error ? Clip{clip, refined} : best;
}

Clip min_max_clip(const Distribution& distribution, std::span<const double> levels) {
  const double clip = distribution.largest();
  return {clip, mean_squared_error(distribution, levels, clip)};
}

Clip best_zero_point_clip(const Distribution& distribution, int bits) {
  const int top = (1 << bits) - 1;
  int best_zero = top / 2;
  Clip best = best_clip(distribution, integer_grid_around(bits, best_zero).levels);
  int first = 0, last = top;
  for (int stride = std::max(1, top / 17);; stride = (stride + 3) / 4) {
    for (int zero = first; zero <= last; zero += stride) {
      const Clip clip = best_clip(distribution, integer_grid_around(bits, zero).levels);
      if (clip.mean_squared_error < best.mean_squared_error) best = clip, best_zero = zero;
    }
    if (stride == 1) return best;
    first = std::max(0, best_zero - stride), last = std::min(top, best_zero + stride);
  }
}

Clip min_max_zero_point_clip(const Distribution& distribution, int bits) {
  const int top = (1 << bits) - 1;
  const double least = std::min(0.0, distribution.least());
  const double step = (std::max(0.0, distribution.greatest()) - least) / top;
  const int zero = static_cast<int>(std::lround(-least / step));
  const double clip = step * std::max(zero, top - zero);
  return {clip, mean_squared_error(distribution, integer_grid_around(bits, zero).levels, clip)};
}

std::vector<double> lloyd_max_levels(const Distribution& distribution, int count) {
  NIBBLE_CHECK(count >= 2);
  constexpr int kRounds = 400, kSweeps = 50;
  std::vector<double> levels = companded_levels(distribution, count);
  double error = mean_squared_error(distribution, levels, 1);
  for (int round = 0; round < kRounds; ++round) {
    for (int i = 0; i < kSweeps; ++i) lloyd_sweep(distribution, 1.9, levels);
    lloyd_sweep(distribution, 1, levels);  // damps what the over-relaxed sweeps stir up
    const double now = mean_squared_error(distribution, levels, 1);
    if (std::abs(error - now) <= 1e-6 * error) break;
    error = now;
  }
  return levels;
}

}  // namespace nibble
