// Cross-layer equalization (Nagel et al., arXiv 1906.04721, eq. 11; AIMET): where one linear makes
// the channels that another reads, each channel is scaled so that the row that makes it and the
// column that reads it have the same range. A norm's gain is the row of a layer of one weight a
// channel. Needs no text: the scales are those of the weights alone.
#include <algorithm>
#include <cmath>

#include "quantize/algorithm.h"
#include "quantize/math/smoothing.h"
#include "quantize/smooth_site.h"

namespace nibble {
namespace {

// max |w| of the row that makes each channel of the site.
std::vector<float> produced_ranges(const TransformBlock& block, const Site& site) {
  std::vector<float> ranges(static_cast<std::size_t>(site.channels));
  if (site.producer.kind == Producer::Kind::kNorm) {
    const float* gain = site.producer.norm->weight.data<float>();
    for (std::size_t j = 0; j < ranges.size(); ++j) {
      ranges[j] = std::abs(block.spec.norm.weight_offset + gain[j]);
    }
    return ranges;
  }
  const QuantTensor& weight = site.producer.linear->weight.canonical;
  const float* w = weight.planes[0].data<float>();
  for (std::size_t j = 0; j < ranges.size(); ++j) {
    const float* row = w + site.producer.rows[j] * weight.cols;
    for (std::int64_t c = 0; c < weight.cols; ++c)
      ranges[j] = std::max(ranges[j], std::abs(row[c]));
  }
  return ranges;
}

void transform(TransformBlock& block, const Parameters& parameters, const SearchSpace&,
               const Choice&) {
  const std::string& wanted = text(parameters, "pairs");
  for (Site& site : block.sites) {
    const bool norm = site.producer.kind == Producer::Kind::kNorm;
    if (site.producer.kind == Producer::Kind::kNone) continue;
    if ((wanted == "linears" && norm) || (wanted == "norms" && !norm)) continue;
    std::vector<float> s =
        equalizing_scales(produced_ranges(block, site), column_magnitudes(site, block.pool));
    divide_site(block, site, snap_to_producer(block, site, std::move(s)));
  }
}

}  // namespace

Algorithm make_cross_layer_equalization() {
  Algorithm algorithm;
  algorithm.name = "cross_layer_equalization";
  algorithm.summary = "give the row that makes a channel and the columns that read it one range";
  algorithm.kind = StepKind::kTransform;
  algorithm.needs = {CalibrationNeed::kNone, Scope::kBlock};
  algorithm.parameters = {
      {.name = "pairs",
       .value = std::string("linears"),
       .help = "what makes the channels: linears, norms, or both (all)",
       .choices = {"linears", "norms", "all"}},
  };
  algorithm.transform = transform;
  return algorithm;
}

}  // namespace nibble
