// The two calibrators by least KL divergence.
#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "quantize/calibrators/calibrators.h"

namespace nibble {
namespace {

// Cuts of a histogram and how far the cut histogram is from its coarse copy.
class Cuts {
 public:
  Cuts(std::vector<double> counts, std::size_t levels)
      : counts_(std::move(counts)), levels_(levels), beyond_(counts_.size() + 1) {
    for (std::size_t i = counts_.size(); i-- > 0;) beyond_[i] = beyond_[i + 1] + counts_[i];
  }

  std::size_t bins() const { return counts_.size(); }

  // KL(P || Q) in nats of the first `kept` bins. first_bin(level) is where a level begins,
  // first_bin(levels) = kept.
  template <class FirstBin>
  double divergence(std::size_t kept, const FirstBin& first_bin) const {
    const double p_total = beyond_[0], q_total = beyond_[0] - beyond_[kept];
    if (p_total == 0 || q_total == 0) return std::numeric_limits<double>::infinity();
    double sum = 0;
    for (std::size_t level = 0; level < levels_; ++level) {
      const std::size_t begin = first_bin(level), end = first_bin(level + 1);
      const double q = mean_of_nonzero(begin, end) / q_total;
      for (std::size_t i = begin; i < end; ++i) {
        const double tail = i + 1 == kept ? beyond_[kept] : 0;
        const double p = (counts_[i] + tail) / p_total;
        if (p == 0) continue;
        // Only the tail makes P where Q has nothing.
        if (counts_[i] == 0) return std::numeric_limits<double>::infinity();
        sum += p * std::log(p / q);
      }
    }
    return sum;
  }

 private:
  double mean_of_nonzero(std::size_t begin, std::size_t end) const {
    double total = 0, nonzero = 0;
    for (std::size_t i = begin; i < end; ++i) {
      total += counts_[i];
      nonzero += counts_[i] != 0 ? 1 : 0;
    }
    return nonzero > 0 ? total / nonzero : 0;
  }

  std::vector<double> counts_;
  std::size_t levels_;
  std::vector<double> beyond_;  // counts from a bin on
};

std::size_t levels_of(const CalibratorOptions& options) {
  return std::size_t{1} << (options.bits - 1);
}

constexpr std::size_t kFirstCut = 128;

// Range of a histogram that needs no search: none, or too few bins to cut.
bool trivial(const Histogram& histogram, const CalibratorOptions& options, double* range) {
  *range = calibrate_minmax(histogram, options);
  return histogram.counts().size() <= kFirstCut;
}

}  // namespace

double calibrate_entropy(const Histogram& histogram, const CalibratorOptions& options) {
  double range = 0;
  if (trivial(histogram, options, &range)) return range;
  std::vector<double> counts(histogram.counts().begin(), histogram.counts().end());
  counts[0] = counts[1];  // zeros would outweigh everything
  const std::size_t levels = levels_of(options);
  const Cuts cuts(std::move(counts), levels);
  double least = std::numeric_limits<double>::infinity();
  for (std::size_t kept = kFirstCut; kept <= cuts.bins(); ++kept) {
    // Bins belong to the level whose real border is at or below them.
    const auto first_bin = [&](std::size_t level) { return (level * kept + levels - 1) / levels; };
    const double divergence = cuts.divergence(kept, first_bin);
    if (divergence <= least && divergence < std::numeric_limits<double>::infinity()) {
      least = divergence;
      range = histogram.edge(kept);
    }
  }
  return range;
}

double calibrate_entropy_migacz(const Histogram& histogram, const CalibratorOptions& options) {
  double range = 0;
  if (trivial(histogram, options, &range)) return range;
  const std::size_t levels = levels_of(options);
  const Cuts cuts({histogram.counts().begin(), histogram.counts().end()}, levels);
  double least = std::numeric_limits<double>::infinity();
  for (std::size_t kept = kFirstCut; kept < cuts.bins(); ++kept) {
    const std::size_t merged = kept / levels;
    const auto first_bin = [&](std::size_t level) {
      return level == levels ? kept : level * merged;
    };
    const double divergence = cuts.divergence(kept, first_bin);
    if (divergence < least) {
      least = divergence;
      range = histogram.center(kept);
    }
  }
  return range;
}

}  // namespace nibble
