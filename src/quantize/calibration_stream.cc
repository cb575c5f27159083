#include "quantize/calibration_stream.h"

#include <algorithm>

#include "quantize/calibration.h"
#include "quantize/hessian_observer.h"

namespace nibble {
namespace {

std::string stream_name(std::int64_t layer) { return fmt::format("stream.{}", layer); }

}  // namespace

CalibrationStream::CalibrationStream(const Job& job, std::int64_t layer, bool with_full,
                                     Saves saves)
    : job_(job), saves_(saves) {
  const auto rows = static_cast<std::int64_t>(job.windows.statistics.size());
  states_ = Tensor::allocate(DType::kF32, {with_full ? 2 : 1, rows, job.spec.hidden});
  if (layer > 0) {
    job.journal.get_floats(stream_name(layer - 1), values());
    return;
  }
  const EmbeddingWeights weights = load_embedding(job.spec, job.source, job.backend);
  embed_windows(job.spec, weights, job.windows.statistics, job.windows.context, job.backend,
                hidden());
  if (with_full) std::copy_n(hidden(), rows * job.spec.hidden, full());
}

std::span<float> CalibrationStream::values() {
  return {hidden(), static_cast<std::size_t>(states_.elements())};
}

LayerHessians CalibrationStream::observe(std::int64_t layer, const LayerWeights& weights,
                                         const LayerWeights* full,
                                         const std::set<std::string>& sites) {
  const std::int64_t width = job_.spec.hidden;
  HessianObserver observer(layer, sites, job_.backend);
  for_each_chunk(
      job_.windows.statistics, job_.windows.context, [&](std::int64_t begin, const Batch& batch) {
        const auto copy = [&](const float* hidden) {
          const float* at = hidden + begin * width;
          return std::vector<float>(at, at + batch.rows() * width);
        };
        InputRecorder recorder(sites);
        if (full != nullptr) {
          std::vector<float> states = copy(this->full());
          run_layer(job_.spec, layer, *full, batch, job_.backend, states.data(), &recorder);
        }
        observer.expect(full != nullptr ? &recorder : nullptr);
        std::vector<float> states = copy(hidden());
        run_layer(job_.spec, layer, weights, batch, job_.backend, states.data(), &observer);
      });
  return observer.take();
}

void CalibrationStream::watch(std::int64_t layer, const LayerWeights& weights,
                              SiteObserver& observer) {
  const std::int64_t width = job_.spec.hidden;
  for_each_chunk(
      job_.windows.statistics, job_.windows.context, [&](std::int64_t begin, const Batch& batch) {
        const float* at = hidden() + begin * width;
        std::vector<float> states(at, at + batch.rows() * width);
        run_layer(job_.spec, layer, weights, batch, job_.backend, states.data(), &observer);
      });
}

void CalibrationStream::advance(std::int64_t layer, const LayerWeights& weights,
                                const LayerWeights* full) {
  const auto run = [&](const LayerWeights& layer_weights, float* states) {
    run_windows(job_.spec, layer, layer_weights, job_.windows.statistics, job_.windows.context,
                job_.backend, states);
  };
  run(weights, hidden());
  if (full != nullptr) run(*full, this->full());
  if (saves_ == Saves::kEveryLayer) job_.journal.put_floats(stream_name(layer), values());
}

void CalibrationStream::discard(std::int64_t layer) { job_.journal.remove(stream_name(layer - 1)); }

}  // namespace nibble
