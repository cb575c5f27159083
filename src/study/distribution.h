// Distributions whose quantization error is integrated exactly: analytic ones and those of real
// tensors.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace nibble {

// Integrals of p, x p and x^2 p over a part of the real line.
struct Moments {
  double mass = 0;
  double first = 0;
  double second = 0;
};
inline Moments operator+(const Moments& a, const Moments& b) {
  return {a.mass + b.mass, a.first + b.first, a.second + b.second};
}
inline Moments operator-(const Moments& a, const Moments& b) {
  return {a.mass - b.mass, a.first - b.first, a.second - b.second};
}
inline Moments operator*(double factor, const Moments& m) {
  return {factor * m.mass, factor * m.first, factor * m.second};
}

// Immutable and thread-safe.
class Distribution {
 public:
  virtual ~Distribution() = default;
  // Moments of the values above x; above(-infinity) are those of the whole.
  virtual Moments above(double x) const = 0;
  // The largest magnitude: what a range by minimum and maximum covers.
  virtual double largest() const = 0;
  // The same by its two ends: what a range with a zero point covers.
  virtual double least() const { return -largest(); }
  virtual double greatest() const { return largest(); }
};
using DistributionPtr = std::shared_ptr<const Distribution>;

// Standard deviation.
double deviation(const Distribution& distribution);

// The analytic ones are symmetric about 0. Where the support has no end, `largest` stands for the
// largest of the samples that one would draw.
DistributionPtr uniform_distribution(double limit);
DistributionPtr normal_distribution(double largest = 10);   // unit variance
DistributionPtr laplace_distribution(double largest = 16);  // density exp(-|x|) / 2
// Student's t with `nu` > 0 degrees of freedom and unit scale; values beyond +-limit are moved to
// +-limit.
DistributionPtr student_t_distribution(double nu, double limit = 100);
// (1 - share) * base + share * outliers, both symmetric.
DistributionPtr mixture_distribution(DistributionPtr base, DistributionPtr outliers, double share);
// The values themselves, each with the same weight. kUsage when there are none, kCorrupt for NaN
// and infinity. `largest` stands for the largest magnitude where the values are a sample of more;
// it counts when it is above theirs, for the end of theirs that is further from 0.
DistributionPtr empirical_distribution(std::span<const float> values, double largest = 0);

}  // namespace nibble
