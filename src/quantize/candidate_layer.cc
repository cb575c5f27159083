#include "quantize/candidate_layer.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace nibble {
namespace {

// The same of inputs whose channels were divided as the statistics say: a smoothed candidate's.
LayerHessians of_scaled_inputs(const LayerHessians& hessians, const LayerStatistics& before,
                               const LayerStatistics& after) {
  LayerHessians result = hessians;
  for (auto& [site, hessian] : result) {
    const ChannelStatistics* from = find_statistics(before, site);
    const ChannelStatistics* to = find_statistics(after, site);
    NIBBLE_CHECK(from != nullptr && to != nullptr);
    std::vector<double> factor;
    for (std::size_t j = 0; j < from->max_abs.size(); ++j) {
      const auto was = static_cast<double>(from->max_abs[j]);
      factor.push_back(was > 0 ? static_cast<double>(to->max_abs[j]) / was : 1.0);
    }
    for (std::size_t i = 0; i < factor.size(); ++i) {
      hessian.sum_abs[i] *= factor[i];
      double* row = hessian.moments.data() + i * factor.size();
      for (std::size_t j = 0; j < factor.size(); ++j) row[j] *= factor[i] * factor[j];
    }
  }
  return result;
}

// Every matrix that smoothing may change.
std::vector<Linear*> matrices_of(LayerWeights& weights) {
  std::vector<Linear*> all = weights.linears();
  if (weights.router.exists()) all.push_back(&weights.router);
  return all;
}

// The format that a module is rounded to; null for none.
FormatPtr rounded_format(const OutputPlan& plan, const Linear& linear,
                         const LayerWeights& weights) {
  if (&linear == &weights.router) return nullptr;
  const FormatPtr& format = plan.find(linear.module).format;
  return format->is_float() ? nullptr : format;
}

// Vectors in a backend's memory.
Tensor placed(const std::vector<float>& values, DeviceMemory& memory) {
  if (values.empty()) return {};
  Tensor tensor = memory.allocate(DType::kF32, {static_cast<std::int64_t>(values.size())});
  memory.copy_in(values.data(), values.size() * sizeof(float), tensor.address());
  return tensor;
}

const float* values_or_null(const Tensor& tensor) {
  return tensor.empty() ? nullptr : tensor.data<float>();
}

}  // namespace

ScaledMatrices::ScaledMatrices(Backend& backend, const std::vector<Linear*>& originals)
    : backend_(backend) {
  for (const Linear* linear : originals) {
    originals_.push_back(backend.memory().upload(linear->weight.canonical.planes[0]));
  }
  scaled_.resize(originals_.size());
}

const Tensor& ScaledMatrices::scaled(std::size_t place, const Scaling& scaling) {
  DeviceMemory& memory = backend_.memory();
  const Tensor& original = originals_[place];
  Tensor& out = scaled_[place];
  if (out.empty()) out = memory.allocate(DType::kF32, original.shape());
  const Tensor factors = placed(scaling.factors, memory);
  const Tensor divisors = placed(scaling.divisors, memory);
  backend_.run(ScaleArgs{.x = original.data<float>(),
                         .rows = original.dim(0),
                         .cols = original.dim(1),
                         .factors = values_or_null(factors),
                         .divisors = values_or_null(divisors),
                         .y = out.mutable_data<float>()});
  return out;
}

CandidateLayer::CandidateLayer(const Job& job, std::int64_t layer)
    : job_(job), original_(load_layer_f32(job.spec, layer, job.source, job.backend)) {
  check_finite(original_, job.backend.pool());
  if (!only_smooths(job.options.recipe)) return;
  on_runner_ = encodes_on_runner();
  matrices_ = std::make_unique<ScaledMatrices>(on_runner_ ? job.runner : job.backend,
                                               matrices_of(original_));
}

// Whether all that becomes of a candidate is scaled and encoded, which the runner can do, and has
// memory for: originals, scaled ones, and codes of at most their size.
bool CandidateLayer::encodes_on_runner() {
  DeviceMemory& memory = job_.runner.memory();
  const RecipeStep& solver = job_.options.recipe.solver();
  const Algorithm& algorithm = *solver.algorithm;
  if (memory.is_host() || algorithm.only_encodes == nullptr ||
      !algorithm.only_encodes(solver.parameters)) {
    return false;
  }
  std::size_t bytes = 0;
  for (const Linear* linear : matrices_of(original_)) {
    const QuantTensor& weight = linear->weight.canonical;
    bytes += 3 * weight.planes[0].byte_size();
    const FormatPtr format = rounded_format(job_.plan, *linear, original_);
    if (format == nullptr) continue;
    const ActivationFormatPtr& activations = job_.plan.find(linear->module).activations;
    if (activations != nullptr && activations->descriptor().weight_outliers) return false;
    if (!job_.runner.encodes(*format, weight.rows, weight.cols)) return false;
  }
  return bytes < memory.available();
}

LayerWeights CandidateLayer::rounded(const RecipePoint& point, const LayerStatistics& seen,
                                     const LayerHessians& hessians) {
  ThreadPool& pool = job_.backend.pool();
  const bool scales = matrices_ != nullptr;
  LayerWeights weights = scales ? clone_vectors(original_, pool) : clone_layer(original_, pool);
  LayerStatistics statistics = seen;
  Deferred deferred{{}, magnitudes_};
  transform_layer(transform_context(job_), point, {}, weights, statistics,
                  scales ? &deferred : nullptr);
  if (scales) {
    const std::vector<Linear*> all = matrices_of(weights);
    for (std::size_t place = 0; place < all.size(); ++place) {
      all[place]->weight = {dense(matrices_->scaled(place, deferred.scalings[all[place]])),
                            nullptr};
    }
  }
  if (on_runner_) {
    encode_on_runner(statistics, weights);
  } else {
    round_layer(job_.options.recipe, job_.plan, job_.spec, statistics,
                of_scaled_inputs(hessians, seen, statistics), weights, {job_.backend, job_.runner},
                !job_.runner.memory().is_host());
  }
  return place_layer(std::move(weights), job_.runner);
}

// As round_layer() does.
void CandidateLayer::encode_on_runner(const LayerStatistics& statistics, LayerWeights& weights) {
  round_inputs(job_.spec, job_.plan, {statistics, job_.backend.pool()}, weights);
  DeviceMemory& memory = job_.runner.memory();
  for (Linear* linear : weights.linears()) {
    const FormatPtr format = rounded_format(job_.plan, *linear, weights);
    if (format == nullptr) continue;
    const QuantTensor& scaled = linear->weight.canonical;
    QuantTensor& codes = codes_[linear->module];
    if (codes.format == nullptr) {
      codes = {format, scaled.rows, scaled.cols, {}};
      for (const PlaneSpec& plane : format->planes(scaled.rows, scaled.cols)) {
        codes.planes.push_back(memory.allocate(plane.dtype, plane.shape));
      }
    }
    EncodeArgs encode;
    encode.w = scaled.planes[0].data<float>();
    encode.out = &codes;
    job_.runner.run(encode);
    linear->weight = {codes, nullptr};
  }
}

}  // namespace nibble
