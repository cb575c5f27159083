#include "study/distribution.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include "base/error.h"

namespace nibble {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// A distribution symmetric about 0, by the moments of its upper half above x >= 0.
class Symmetric : public Distribution {
 public:
  using UpperTail = std::function<Moments(double x)>;
  Symmetric(UpperTail tail, double largest)
      : tail_(std::move(tail)), half_(tail_(0)), largest_(largest) {}

  Moments above(double x) const override {
    if (x >= 0) return x < kInfinity ? tail_(x) : Moments{};
    const Moments beyond = x > -kInfinity ? tail_(-x) : Moments{};
    return {2 * half_.mass - beyond.mass, beyond.first, 2 * half_.second - beyond.second};
  }
  double largest() const override { return largest_; }

 private:
  UpperTail tail_;
  Moments half_;
  double largest_;
};

// Upper tails of Student's t. With x = sqrt(nu) sinh(s) both the mass and the second moment are
// integrals of smooth functions of s for every nu > 0 (the incomplete beta function that gives the
// mass covers the second moment for nu > 2 only). They are tabulated at knots of s and completed by
// Gauss-Legendre quadrature on the part of a panel that is left, to machine precision.
class StudentTail {
 public:
  StudentTail(double nu, double limit) : nu_(nu), limit_(limit), end_(to_s(limit)) {
    constant_ =
        std::exp(std::lgamma((nu + 1) / 2) - std::lgamma(nu / 2)) / std::sqrt(std::numbers::pi);
    panels_ = static_cast<std::size_t>(std::ceil(end_ / kPanel));
    // From `limit` on: mass only, and it lies at `limit`.
    const double beyond = mass_beyond_limit();
    knots_.resize(panels_ + 1);
    knots_[panels_] = {beyond, 0, limit * limit * beyond};
    for (std::size_t i = panels_; i-- > 0;) {
      knots_[i] = knots_[i + 1] + integrate(knot(i), std::min(knot(i + 1), end_));
    }
    first_at_limit_ = limit * beyond;
  }

  Moments operator()(double x) const {
    if (x >= limit_) return {};
    const double s = to_s(x);
    const std::size_t panel = std::min(static_cast<std::size_t>(s / kPanel), panels_ - 1);
    Moments tail = knots_[panel + 1] + integrate(s, std::min(knot(panel + 1), end_));
    tail.first = first_at_limit_ + first_between(x, limit_);
    return tail;
  }

 private:
  static constexpr double kPanel = 1.0 / 32;

  static double knot(std::size_t i) { return kPanel * static_cast<double>(i); }
  double to_s(double x) const { return std::asinh(x / std::sqrt(nu_)); }

  // Mass and second moment of sinh(s) sqrt(nu) over [a, b].
  Moments integrate(double a, double b) const {
    constexpr double kNode[] = {0.1252334085114689, 0.3678314989981802, 0.5873179542866175,
                                0.7699026741943047, 0.9041172563704749, 0.9815606342467193};
    constexpr double kWeight[] = {0.2491470458134028, 0.2334925365383548, 0.2031674267230659,
                                  0.1600783285433462, 0.1069393259953184, 0.0471753363865118};
    const double middle = (a + b) / 2, half = (b - a) / 2;
    Moments sum;
    for (std::size_t i = 0; i < std::size(kNode); ++i) {
      for (const double sign : {-1.0, 1.0}) {
        const double c = std::cosh(middle + sign * half * kNode[i]);
        const double p = kWeight[i] * half * constant_ * std::pow(c, -nu_);
        sum.mass += p;
        sum.second += p * nu_ * (c * c - 1);
      }
    }
    return sum;
  }

  // The integral of x p over [a, b], in closed form.
  double first_between(double a, double b) const {
    const double u = std::log1p(a * a / nu_), v = std::log1p(b * b / nu_);
    const double k = (1 - nu_) / 2;
    const double scale = constant_ * std::sqrt(nu_) / 2;
    if (std::abs(k) < 1e-12) return scale * (v - u);
    return scale * (std::exp(k * v) - std::exp(k * u)) / k;
  }

  // In s the integrand falls like exp(-nu s): panels that grow with s until nothing is left.
  double mass_beyond_limit() const {
    double mass = 0;
    const double step = std::min(0.5, 1 / nu_);
    for (double s = end_; nu_ * (s - end_) < 45; s += step) mass += integrate(s, s + step).mass;
    return mass;
  }

  double nu_, limit_, end_;
  double constant_ = 0;
  double first_at_limit_ = 0;
  std::size_t panels_ = 0;
  std::vector<Moments> knots_;
};

class Empirical : public Distribution {
 public:
  Empirical(std::span<const float> values, double largest) : sorted_(values.begin(), values.end()) {
    if (values.empty()) fail(ErrorKind::kUsage, "study: a tensor without values");
    for (const float v : sorted_) {
      if (!std::isfinite(v)) fail(ErrorKind::kCorrupt, "study: a tensor holds NaN or infinity");
    }
    std::sort(sorted_.begin(), sorted_.end());
    largest_ = std::max({largest, std::abs(static_cast<double>(sorted_.front())),
                         std::abs(static_cast<double>(sorted_.back()))});
    make_buckets();
    above_.resize(sorted_.size() + 1);
    for (std::size_t i = sorted_.size(); i-- > 0;) {
      const double v = static_cast<double>(sorted_[i]);
      above_[i] = above_[i + 1] + Moments{1, v, v * v};
    }
  }

  Moments above(double x) const override {
    const auto from = sorted_.begin() + bucket_begin(x), to = sorted_.begin() + bucket_end(x);
    const auto first =
        std::upper_bound(from, to, x, [](double a, float b) { return a < static_cast<double>(b); });
    return 1 / static_cast<double>(sorted_.size()) *
           above_[static_cast<std::size_t>(first - sorted_.begin())];
  }
  double largest() const override { return largest_; }
  double least() const override { return end(sorted_.front(), sorted_.back()); }
  double greatest() const override { return end(sorted_.back(), sorted_.front()); }

 private:
  // One end of the values, at the largest magnitude if it is the one further from 0.
  double end(float value, float other) const {
    if (std::abs(value) < std::abs(other)) return static_cast<double>(value);
    return std::copysign(largest_, static_cast<double>(value));
  }

  static constexpr std::size_t kBuckets = 8192;

  // Equal parts of the range of the values, so that a search looks at few of them.
  std::size_t bucket(double x) const {
    const double at = (x - static_cast<double>(sorted_.front())) * per_bucket_;
    return static_cast<std::size_t>(std::clamp(at, 0.0, static_cast<double>(kBuckets - 1)));
  }
  // Values before the bucket of x are not above x; those from bucket_end(x) on are.
  std::ptrdiff_t bucket_begin(double x) const { return starts_[bucket(x)]; }
  std::ptrdiff_t bucket_end(double x) const { return starts_[bucket(x) + 1]; }

  void make_buckets() {
    const double range = static_cast<double>(sorted_.back()) - static_cast<double>(sorted_.front());
    per_bucket_ = range > 0 ? static_cast<double>(kBuckets) / range : 0;
    starts_.assign(kBuckets + 1, 0);
    for (const float v : sorted_) ++starts_[bucket(static_cast<double>(v)) + 1];
    std::partial_sum(starts_.begin(), starts_.end(), starts_.begin());
  }

  std::vector<float> sorted_;
  std::vector<std::ptrdiff_t> starts_;  // of buckets in sorted_, and its size
  double per_bucket_ = 0;
  double largest_ = 0;
  std::vector<Moments> above_;  // sums over sorted_[i], sorted_[i + 1], ...
};

}  // namespace

double deviation(const Distribution& distribution) {
  const Moments all = distribution.above(-kInfinity);
  const double mean = all.first / all.mass;
  return std::sqrt(std::max(0.0, all.second / all.mass - mean * mean));
}

DistributionPtr uniform_distribution(double limit) {
  NIBBLE_CHECK(limit > 0);
  const auto tail = [limit](double x) -> Moments {
    if (x >= limit) return {};
    return {(limit - x) / (2 * limit), (limit * limit - x * x) / (4 * limit),
            (limit * limit * limit - x * x * x) / (6 * limit)};
  };
  return std::make_shared<Symmetric>(tail, limit);
}

DistributionPtr normal_distribution(double largest) {
  const auto tail = [](double x) -> Moments {
    const double mass = std::erfc(x / std::numbers::sqrt2) / 2;
    const double density = std::exp(-x * x / 2) * std::numbers::inv_sqrtpi / std::numbers::sqrt2;
    return {mass, density, x * density + mass};
  };
  return std::make_shared<Symmetric>(tail, largest);
}

DistributionPtr laplace_distribution(double largest) {
  const auto tail = [](double x) -> Moments {
    const double mass = std::exp(-x) / 2;
    return {mass, mass * (x + 1), mass * (x * x + 2 * x + 2)};
  };
  return std::make_shared<Symmetric>(tail, largest);
}

DistributionPtr student_t_distribution(double nu, double limit) {
  if (!(nu > 0 && nu <= 1000 && limit > 0)) {
    fail(ErrorKind::kUsage, "study: Student's t needs 0 < nu <= 1000, not {}", nu);
  }
  return std::make_shared<Symmetric>(StudentTail(nu, limit), limit);
}

DistributionPtr mixture_distribution(DistributionPtr base, DistributionPtr outliers, double share) {
  NIBBLE_CHECK(share >= 0 && share <= 1);
  const double largest = std::max(base->largest(), outliers->largest());
  const auto tail = [base = std::move(base), outliers = std::move(outliers), share](double x) {
    return (1 - share) * base->above(x) + share * outliers->above(x);
  };
  return std::make_shared<Symmetric>(tail, largest);
}

DistributionPtr empirical_distribution(std::span<const float> values, double largest) {
  return std::make_shared<Empirical>(values, largest);
}

}  // namespace nibble
