#include "quantize/smooth_site.h"

#include "quantize/math/smoothing.h"

namespace nibble {
namespace {

std::vector<float> weight_magnitude(const Site& site, ThreadPool& pool) {
  std::vector<float> result(static_cast<std::size_t>(site.channels), 0.0f);
  for (const Linear* linear : site.consumers) {
    const QuantTensor& weight = linear->weight.canonical;
    column_max_abs(weight.planes[0].data<float>(), weight.rows, weight.cols, result, pool);
  }
  return result;
}

}  // namespace

void smooth_site(TransformBlock& block, Site& site, bool root_mean_square, double alpha) {
  const ChannelStatistics* seen = find_statistics(block.statistics, site.name);
  if (seen == nullptr) return;  // no token came here: nothing is known to smooth by
  std::vector<float> activation = root_mean_square ? seen->root_mean_square() : seen->max_abs;
  std::vector<float> weight = weight_magnitude(site, block.pool);
  if (site.producer.kind == Producer::Kind::kLinear) {
    tie_by_max(activation, site.producer.rows);
    tie_by_max(weight, site.producer.rows);
  }
  std::vector<float> s = smoothing_scales(activation, weight, alpha);
  if (site.producer.kind == Producer::Kind::kNorm) {
    const Tensor& gain = site.producer.norm->weight;
    s = snap_to_stored_norm(s, {gain.data<float>(), s.size()}, block.spec.norm.weight_offset,
                            block.norm_type);
  }
  apply_smoothing(block.spec, site, s, block.pool);
  // Behind a router each expert has statistics of its own for the same channels.
  for (auto& [name, statistics] : block.statistics) {
    if (name == site.name || name.starts_with(site.name + ".")) divide_channels(statistics, s);
  }
}

}  // namespace nibble
