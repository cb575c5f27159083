#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "quantize/passes.h"

namespace nibble {
namespace {

// Hidden states of the statistics windows, then of the search windows, in one matrix.
class CalibrationRun {
 public:
  explicit CalibrationRun(const Job& job)
      : job_(job), hidden_(job.runner, job.windows.tokens(), job.spec.hidden) {}

  Calibration run() {
    Calibration result;
    for (std::int64_t layer = resume(result); layer < job_.spec.layers; ++layer) {
      progress(job_.options.progress, "calibrate", layer, job_.spec.layers);
      StatisticsObserver observer(layer, job_.runner);
      const LayerWeights weights = load_layer(job_.spec, layer, job_.source, job_.runner);
      advance(layer, weights, job_.windows.statistics, 0, &observer);
      advance(layer, weights, job_.windows.search, statistics_rows(), nullptr);
      LayerStatistics statistics = observer.statistics();
      job_.journal.put(statistics_name(layer), serialize(statistics));
      if (job_.journal.due() || layer + 1 == job_.spec.layers) save(layer);
      result.layers.push_back(std::move(statistics));
    }
    progress(job_.options.progress, "calibrate", job_.spec.layers, job_.spec.layers);
    if (!job_.windows.search.empty()) {
      const std::int64_t rows = hidden_.rows() - statistics_rows();
      auto reference = std::make_shared<HiddenStates>(job_.runner, rows, job_.spec.hidden);
      reference->copy(hidden_, statistics_rows(), rows, 0);
      result.reference = std::move(reference);
    }
    return result;
  }

 private:
  static std::string statistics_name(std::int64_t layer) {
    return fmt::format("statistics.{}", layer);
  }
  static std::string hidden_name(std::int64_t layer) { return fmt::format("calibrate.{}", layer); }

  std::int64_t statistics_rows() const {
    return static_cast<std::int64_t>(job_.windows.statistics.size());
  }

  void save(std::int64_t layer) {
    hidden_.save(job_.journal, hidden_name(layer));
    if (saved_ >= 0) job_.journal.remove(hidden_name(saved_));
    saved_ = layer;
  }

  // The layer to go on with; what came before it is in `result` and hidden_.
  std::int64_t resume(Calibration& result) {
    std::int64_t layer = job_.spec.layers - 1;
    while (layer >= 0 && !job_.journal.has(hidden_name(layer))) --layer;
    if (layer < 0) {
      embed();
      return 0;
    }
    for (std::int64_t done = 0; done <= layer; ++done) {
      result.layers.push_back(deserialize_statistics(job_.journal.get(statistics_name(done))));
    }
    hidden_.restore(job_.journal, hidden_name(layer));
    saved_ = layer;
    return layer + 1;
  }

  void embed() {
    const EmbeddingWeights weights = load_embedding(job_.spec, job_.source, job_.runner);
    const std::int64_t context = job_.windows.context;
    embed_windows(job_.spec, weights, job_.windows.statistics, context, job_.runner,
                  hidden_.row(0));
    embed_windows(job_.spec, weights, job_.windows.search, context, job_.runner,
                  hidden_.row(statistics_rows()));
  }

  void advance(std::int64_t layer, const LayerWeights& weights, std::span<const std::int32_t> ids,
               std::int64_t first_row, SiteObserver* observer) {
    run_windows(job_.spec, layer, weights, ids, job_.windows.context, job_.runner,
                hidden_.row(first_row), observer);
  }

  const Job& job_;
  HiddenStates hidden_;
  std::int64_t saved_ = -1;  // the layer after which they were saved last
};

void note_unseen_experts(const Job& job, const Calibration& calibration) {
  std::int64_t unseen = 0;
  for (std::size_t layer = 0; layer < calibration.layers.size(); ++layer) {
    if (!job.spec.mlp.has_experts(static_cast<std::int64_t>(layer))) continue;
    for (std::int64_t e = 0; e < job.spec.mlp.experts; ++e) {
      unseen += calibration.layers[layer].contains(fmt::format("mlp_in.{}", e)) ? 0 : 1;
    }
  }
  if (unseen > 0) {
    job.note(
        fmt::format("{} expert{} saw no calibration token; their weights are quantized by "
                    "themselves alone",
                    unseen, unseen == 1 ? "" : "s"));
  }
}

}  // namespace

Calibration run_statistics_pass(const Job& job) {
  Calibration calibration = CalibrationRun(job).run();
  note_unseen_experts(job, calibration);
  return calibration;
}

}  // namespace nibble
