#include "quantize/smooth_site.h"

#include "base/error.h"
#include "quantize/math/smoothing.h"

namespace nibble {

std::vector<float> column_magnitudes(const Site& site, ThreadPool& pool) {
  std::vector<float> result(static_cast<std::size_t>(site.channels), 0.0f);
  for (const Linear* linear : site.consumers) {
    const QuantTensor& weight = linear->weight.canonical;
    column_max_abs(weight.planes[0].data<float>(), weight.rows, weight.cols, result, pool);
  }
  if (site.producer.kind == Producer::Kind::kLinear) tie_by_max(result, site.producer.rows);
  return result;
}

namespace {

// The same of a block, whose readers nothing has scaled yet where that is deferred.
std::vector<float> reader_magnitudes(const TransformBlock& block, const Site& site) {
  if (block.deferred == nullptr) return column_magnitudes(site, block.pool);
  for (const Linear* linear : site.consumers) {
    NIBBLE_CHECK(!block.deferred->scalings.contains(linear));
  }
  const auto [found, first] = block.deferred->magnitudes.try_emplace(site.name);
  if (first) found->second = column_magnitudes(site, block.pool);
  return found->second;
}

}  // namespace

std::vector<float> snap_to_producer(const TransformBlock& block, const Site& site,
                                    std::vector<float> s) {
  if (site.producer.kind != Producer::Kind::kNorm) return s;
  const Tensor& gain = site.producer.norm->weight;
  return snap_to_stored_norm(s, {gain.data<float>(), s.size()}, block.spec.norm.weight_offset,
                             block.norm_type);
}

void divide_site(TransformBlock& block, Site& site, std::span<const float> s) {
  apply_smoothing(block.spec, site, s, block.pool,
                  block.deferred != nullptr ? &block.deferred->scalings : nullptr);
  // Behind a router each expert has statistics of its own for the same channels.
  for (auto& [name, statistics] : block.statistics) {
    if (name == site.name || name.starts_with(site.name + ".")) divide_channels(statistics, s);
  }
}

void smooth_site(TransformBlock& block, Site& site, bool root_mean_square, double alpha) {
  const ChannelStatistics* seen = find_statistics(block.statistics, site.name);
  if (seen == nullptr) return;  // no token came here: nothing is known to smooth by
  std::vector<float> activation = root_mean_square ? seen->root_mean_square() : seen->max_abs;
  if (site.producer.kind == Producer::Kind::kLinear) tie_by_max(activation, site.producer.rows);
  const std::vector<float> weight = reader_magnitudes(block, site);
  divide_site(block, site,
              snap_to_producer(block, site, smoothing_scales(activation, weight, alpha)));
}

}  // namespace nibble
