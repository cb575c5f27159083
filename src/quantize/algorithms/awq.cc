// AWQ (arXiv 2306.00978): smoothing whose strength is chosen for every site of every block by the
// error that it leaves in the output of the site's linears.
#include <algorithm>

#include "formats/affine.h"
#include "quantize/algorithm.h"
#include "quantize/math/clip.h"
#include "quantize/math/row_chunks.h"
#include "quantize/math/smoothing.h"
#include "quantize/smooth_site.h"

namespace nibble {
namespace {

// What is known of a site's inputs, over all experts that read it.
struct SiteInputs {
  std::vector<const Hessian*> of_consumer;  // as site.consumers; null when no token came
  std::vector<float> mean_abs;              // empty when no token came
};

SiteInputs inputs_of(const TransformBlock& block, const Site& site) {
  SiteInputs inputs;
  std::vector<double> sum(static_cast<std::size_t>(site.channels), 0.0);
  std::int64_t rows = 0;
  std::vector<std::string> counted;
  for (const std::string& name : site.inputs) {
    const auto found = block.hessians.find(name);
    inputs.of_consumer.push_back(found == block.hessians.end() ? nullptr : &found->second);
    if (found == block.hessians.end() || std::ranges::count(counted, found->first) > 0) continue;
    counted.push_back(found->first);
    rows += found->second.rows;
    for (std::size_t j = 0; j < sum.size(); ++j) sum[j] += found->second.sum_abs[j];
  }
  if (rows == 0) return inputs;
  for (const double value : sum) {
    inputs.mean_abs.push_back(static_cast<float>(value / static_cast<double>(rows)));
  }
  return inputs;
}

std::vector<float> relative_weights(const TransformBlock& block, const Site& site) {
  std::vector<double> sum(static_cast<std::size_t>(site.channels), 0.0);
  for (const Linear* linear : site.consumers) {
    const QuantTensor& weight = linear->weight.canonical;
    const FormatPtr format = block.format_of(*linear);
    const std::int64_t groups =
        format->is_float() ? 1 : groups_per_row(format->descriptor().scheme, weight.cols);
    add_relative_magnitudes(weight.planes[0].data<float>(), weight.rows, weight.cols,
                            weight.cols / groups, sum);
  }
  return {sum.begin(), sum.end()};
}

// The error of one linear's output when its columns are multiplied by s, rounded, and divided.
double scaled_error(const TransformBlock& block, const Linear& linear, const Hessian& hessian,
                    std::span<const float> s, int clip_steps) {
  const FormatPtr format = block.format_of(linear);
  const QuantTensor& weight = linear.weight.canonical;
  if (format->is_float()) return 0;
  const float* w = weight.planes[0].data<float>();
  std::vector<float> scaled(static_cast<std::size_t>(weight.rows * weight.cols));
  for (std::size_t i = 0; i < scaled.size(); ++i) scaled[i] = w[i] * s[i % s.size()];
  std::vector<float> moments = hessian.second_moment();
  for (std::size_t j = 0; j < moments.size(); ++j) moments[j] /= s[j] * s[j];
  const QuantTensor stored = encode_by_rows(
      format, weight.rows, weight.cols, block.pool, [&](std::int64_t begin, std::int64_t end) {
        const float* part = scaled.data() + begin * weight.cols;
        if (clip_steps == 0) return format->encode(part, end - begin, weight.cols);
        return clipped_grids(format, part, end - begin, weight.cols, {moments, nullptr},
                             {clip_steps, 0.5, false})
            .encode(part);
      });
  decode_all(stored, scaled.data());
  for (std::size_t i = 0; i < scaled.size(); ++i) scaled[i] = scaled[i] / s[i % s.size()] - w[i];
  return output_error(hessian, scaled, block.pool);
}

double site_error(const TransformBlock& block, const Site& site, const SiteInputs& inputs,
                  std::span<const float> s, int clip_steps) {
  double total = 0;
  for (std::size_t i = 0; i < site.consumers.size(); ++i) {
    const Hessian* hessian = inputs.of_consumer[i];
    if (hessian == nullptr) continue;
    total += static_cast<double>(hessian->rows) *
             scaled_error(block, *site.consumers[i], *hessian, s, clip_steps);
  }
  return total;
}

// Scales that the producer can take: one for channels of one row, and none that a stored norm would
// round away.
std::vector<float> fit_to_producer(const TransformBlock& block, const Site& site,
                                   std::vector<float> s) {
  if (site.producer.kind == Producer::Kind::kLinear) tie_by_max(s, site.producer.rows);
  return snap_to_producer(block, site, std::move(s));
}

void smooth(TransformBlock& block, Site& site, const SiteInputs& inputs,
            const Parameters& parameters) {
  const int steps = static_cast<int>(number(parameters, "steps"));
  const int clip_steps = static_cast<int>(number(parameters, "clip_steps"));
  const std::vector<float> weight = relative_weights(block, site);
  std::vector<float> best(static_cast<std::size_t>(site.channels), 1.0f);
  double least = site_error(block, site, inputs, best, clip_steps);
  for (int k = 1; k <= steps; ++k) {
    std::vector<float> s =
        fit_to_producer(block, site,
                        awq_scales(inputs.mean_abs, weight, static_cast<double>(k) / steps,
                                   flag(parameters, "weights")));
    const double error = site_error(block, site, inputs, s, clip_steps);
    if (!(error < least)) continue;
    least = error;
    best = std::move(s);
  }
  if (std::ranges::all_of(best, [](float v) { return v == 1; })) return;
  divide_site(block, site, best);
}

void transform(TransformBlock& block, const Parameters& parameters, const SearchSpace&,
               const Choice&) {
  for (Site& site : block.sites) {
    if (site.producer.kind == Producer::Kind::kNone) continue;
    const SiteInputs inputs = inputs_of(block, site);
    if (!inputs.mean_abs.empty()) smooth(block, site, inputs, parameters);
  }
}

}  // namespace

Algorithm make_awq() {
  Algorithm algorithm;
  algorithm.name = "awq";
  algorithm.summary = "smooth every site of a block by the error of its output";
  algorithm.kind = StepKind::kTransform;
  algorithm.needs = {CalibrationNeed::kHessian, Scope::kBlock};
  algorithm.parameters = {
      {.name = "steps",
       .value = 20.0,
       .help = "strengths tried, from 0 to 1; no smoothing is always one more",
       .min = 1,
       .max = 100,
       .integer = true,
       .choices = {}},
      {.name = "weights",
       .value = true,
       .help = "large weights lower the scale of their channel, too",
       .choices = {}},
      {.name = "clip_steps",
       .value = 0.0,
       .help = "ranges tried for each group when an error is measured; 0: the full range",
       .min = 0,
       .max = 100,
       .integer = true,
       .choices = {}},
  };
  algorithm.transform = transform;
  return algorithm;
}

}  // namespace nibble
