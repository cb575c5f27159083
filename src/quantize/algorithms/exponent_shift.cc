// Pre-shifted exponent biases (LLM-FP4, arXiv 2310.16836): each channel of a layer's input gets an
// exponent bias of its own, a whole number above that of all, so that small channels use the bits
// that large ones need. The shift 2^k is folded into what makes the channel, and 2^-k into the
// weights that read it: powers of two, so that nothing is rounded.
#include <algorithm>
#include <cmath>

#include "quantize/algorithm.h"
#include "quantize/math/smoothing.h"
#include "quantize/smooth_site.h"

namespace nibble {
namespace {

// Whole steps that the exponent of a rounded input can express; 0 where nothing is rounded.
int steps_of(const TransformBlock& block, const Site& site) {
  int steps = 0;
  for (const Linear* linear : site.consumers) {
    const ActivationFormatPtr format = block.activations_of(*linear);
    if (format == nullptr) continue;
    const Element& element = format->descriptor().element;
    steps = std::max(steps, element.kind == ElementKind::kFloatBits
                                ? (1 << element.float_bits.exponent) - 1
                                : 1);
  }
  return steps;
}

// Over all inputs of a site; empty when none was seen.
std::vector<float> largest_magnitudes(const TransformBlock& block, const Site& site) {
  std::vector<float> largest;
  for (const auto& [name, statistics] : block.statistics) {
    if (name != site.name && !name.starts_with(site.name + ".")) continue;
    largest.resize(statistics.max_abs.size());
    for (std::size_t j = 0; j < largest.size(); ++j) {
      largest[j] = std::max(largest[j], statistics.max_abs[j]);
    }
  }
  return largest;
}

void transform(TransformBlock& block, const Parameters& parameters, const SearchSpace&,
               const Choice&) {
  for (Site& site : block.sites) {
    int most = steps_of(block, site);
    if (const double limit = number(parameters, "max_shift"); limit > 0) {
      most = std::min(most, static_cast<int>(limit));
    }
    if (most == 0 || site.producer.kind == Producer::Kind::kNone) continue;
    std::vector<float> largest = largest_magnitudes(block, site);
    if (largest.empty()) continue;
    if (site.producer.kind == Producer::Kind::kLinear) tie_by_max(largest, site.producer.rows);
    const std::vector<float> s = power_of_two_shifts(largest, most);
    if (std::ranges::all_of(s, [](float v) { return v == 1; })) continue;
    divide_site(block, site, s);
  }
}

}  // namespace

Algorithm make_exponent_shift() {
  Algorithm algorithm;
  algorithm.name = "exponent_shift";
  algorithm.summary = "raise small channels of rounded inputs by powers of two, folded exactly";
  algorithm.kind = StepKind::kTransform;
  algorithm.needs = {CalibrationNeed::kStatistics, Scope::kBlock};
  algorithm.parameters = {
      {.name = "max_shift",
       .value = 0.0,
       .help = "largest power of two; 0: what the exponent of the input's format can say",
       .min = 0,
       .max = 30,
       .integer = true,
       .choices = {}},
  };
  algorithm.transform = transform;
  return algorithm;
}

}  // namespace nibble
