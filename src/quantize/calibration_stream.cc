#include "quantize/calibration_stream.h"

#include <algorithm>

#include "quantize/calibration.h"
#include "quantize/hessian_observer.h"

namespace nibble {
namespace {

std::string stream_name(std::int64_t layer) { return fmt::format("stream.{}", layer); }
std::string full_name(std::int64_t layer) { return fmt::format("stream_full.{}", layer); }

}  // namespace

CalibrationStream::CalibrationStream(const Job& job, std::int64_t layer, bool with_full)
    : job_(job) {
  const auto rows = static_cast<std::int64_t>(job.windows.statistics.size());
  hidden_ = Tensor::allocate(DType::kF32, {rows, job.spec.hidden});
  if (with_full) full_ = Tensor::allocate(DType::kF32, {rows, job.spec.hidden});
  if (layer > 0) {
    job.journal.get_floats(stream_name(layer - 1), values(hidden_));
    if (with_full) job.journal.get_floats(full_name(layer - 1), values(full_));
    return;
  }
  const EmbeddingWeights weights = load_embedding(job.spec, job.source, job.backend);
  embed_windows(job.spec, weights, job.windows.statistics, job.windows.context, job.backend,
                hidden_.mutable_data<float>());
  if (with_full) std::ranges::copy(values(hidden_), full_.mutable_data<float>());
}

std::span<float> CalibrationStream::values(Tensor& hidden) const {
  return {hidden.mutable_data<float>(), static_cast<std::size_t>(hidden.elements())};
}

LayerHessians CalibrationStream::observe(std::int64_t layer, const LayerWeights& weights,
                                         const LayerWeights* full,
                                         const std::set<std::string>& sites) {
  const std::int64_t width = job_.spec.hidden;
  HessianObserver observer(layer, sites, job_.backend);
  for_each_chunk(
      job_.windows.statistics, job_.windows.context, [&](std::int64_t begin, const Batch& batch) {
        const auto copy = [&](Tensor& hidden) {
          const float* at = hidden.data<float>() + begin * width;
          return std::vector<float>(at, at + batch.rows() * width);
        };
        InputRecorder recorder(sites);
        if (full != nullptr) {
          std::vector<float> states = copy(full_);
          run_layer(job_.spec, layer, *full, batch, job_.backend, states.data(), &recorder);
        }
        observer.expect(full != nullptr ? &recorder : nullptr);
        std::vector<float> states = copy(hidden_);
        run_layer(job_.spec, layer, weights, batch, job_.backend, states.data(), &observer);
      });
  return observer.take();
}

void CalibrationStream::advance(std::int64_t layer, const LayerWeights& weights,
                                const LayerWeights* full) {
  run_windows(job_.spec, layer, weights, job_.windows.statistics, job_.windows.context,
              job_.backend, hidden_.mutable_data<float>());
  if (full != nullptr) {
    run_windows(job_.spec, layer, *full, job_.windows.statistics, job_.windows.context,
                job_.backend, full_.mutable_data<float>());
    job_.journal.put_floats(full_name(layer), values(full_));
  }
  job_.journal.put_floats(stream_name(layer), values(hidden_));
}

void CalibrationStream::discard(std::int64_t layer) {
  job_.journal.remove(stream_name(layer - 1));
  job_.journal.remove(full_name(layer - 1));
}

}  // namespace nibble
