#include "quantize/calibration_stream.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "backends/rows.h"
#include "base/error.h"
#include "quantize/calibration.h"
#include "quantize/hessian_observer.h"

namespace nibble {
namespace {

std::string stream_name(std::int64_t layer) { return fmt::format("stream.{}", layer); }

// One observer for two that look at the device.
class BothObservers : public SiteObserver {
 public:
  BothObservers(SiteObserver& first, SiteObserver& second) : first_(first), second_(second) {}
  bool on_device() const override { return true; }
  void on_input(const std::string& site, const float* x, std::int64_t rows,
                std::int64_t cols) override {
    first_.on_input(site, x, rows, cols);
    second_.on_input(site, x, rows, cols);
  }

 private:
  SiteObserver& first_;
  SiteObserver& second_;
};

constexpr std::int64_t kSamples = 2048;  // rows of a site that every token reaches

constexpr const char* kAttnOut = "attn_out";
constexpr const char* kMlpDown = "mlp_down";

// Sites whose linear is added to the residual stream as it is, among those wanted.
std::set<std::string> residual_sites(const ModelSpec& spec, const std::set<std::string>& wanted) {
  std::set<std::string> sites;
  if (spec.residual != ResidualForm::kPre && spec.residual != ResidualForm::kParallel) return sites;
  if (wanted.contains(kAttnOut)) sites.insert(kAttnOut);
  if (wanted.contains(kMlpDown)) sites.insert(kMlpDown);
  return sites;
}

Rows copy_of(const float* x, std::int64_t rows, std::int64_t cols, Backend& backend) {
  Rows result(backend, rows, cols);
  backend.memory().copy(x, static_cast<std::size_t>(rows * cols) * sizeof(float), result.data());
  return result;
}

void subtract(Rows& from, const Rows& x, Backend& backend) {
  backend.run(
      AddArgs{.x = x.data(), .y = from.data(), .count = from.rows() * from.cols(), .scale = -1});
}

// One model's chunk: hidden states before and after a layer, and the inputs of some sites.
struct ChunkStates {
  ChunkStates(const float* hidden, const Job& job, std::int64_t rows,
              const std::set<std::string>& sites)
      : before(copy_of(hidden, rows, job.spec.hidden, job.runner)),
        after(copy_of(hidden, rows, job.spec.hidden, job.runner)),
        inputs(sites, job.runner) {}

  Rows before, after;
  InputRecorder inputs;
};

// What the result of the down projection was added to: `after` without it.
Rows before_mlp(const ChunkStates& chunk, const Linear& down, Backend& backend) {
  const Rows& x = *chunk.inputs.find(kMlpDown);
  Rows y(backend, x.rows(), chunk.after.cols());
  LinearArgs args;
  args.x = x.data();
  args.x_stride = x.cols();
  args.m = x.rows();
  args.w = &down.weight;
  args.bias = down.bias.empty() ? nullptr : down.bias.data<float>();
  args.y = y.data();
  args.y_stride = y.cols();
  backend.run(args);
  Rows result = copy_of(chunk.after.data(), y.rows(), y.cols(), backend);
  subtract(result, y, backend);
  return result;
}

// Tells the observer what is missing from the quantized model's residual stream at each site.
void observe_residual(const ChunkStates& full, const LayerWeights& full_weights,
                      const ChunkStates& quantized, const LayerWeights& weights, Backend& backend,
                      HessianObserver& observer) {
  const auto add = [&](const char* site, Rows missing, const Rows& present) {
    subtract(missing, present, backend);
    observer.add_residual(site, *quantized.inputs.find(site), missing);
  };
  if (quantized.inputs.find(kAttnOut) != nullptr) {
    const Rows& before = full.before;
    add(kAttnOut, copy_of(before.data(), before.rows(), before.cols(), backend), quantized.before);
  }
  if (quantized.inputs.find(kMlpDown) != nullptr) {
    add(kMlpDown, before_mlp(full, full_weights.mlp.down, backend),
        before_mlp(quantized, weights.mlp.down, backend));
  }
}

}  // namespace

CalibrationStream::CalibrationStream(const Job& job, std::int64_t layer, bool with_full)
    : job_(job),
      rows_(static_cast<std::int64_t>(job.windows.statistics.size())),
      states_(job.runner, with_full ? 2 * rows_ : rows_, job.spec.hidden) {
  if (layer > 0) {
    states_.restore(job.journal, stream_name(layer - 1));
    return;
  }
  const EmbeddingWeights weights = load_embedding(job.spec, job.source, job.runner);
  embed_windows(job.spec, weights, job.windows.statistics, job.windows.context, job.runner,
                states_.row(0));
  if (with_full) states_.copy(states_, 0, rows_, rows_);
}

LayerHessians CalibrationStream::observe(std::int64_t layer, const LayerWeights& weights,
                                         const LayerWeights* full,
                                         const std::set<std::string>& sites,
                                         const ObservedExtras& extras) {
  Backend& runner = job_.runner;
  const std::set<std::string> added = extras.residual && full != nullptr
                                          ? residual_sites(job_.spec, sites)
                                          : std::set<std::string>();
  const LayerWeights placed = place_layer(weights, runner);
  std::optional<LayerWeights> placed_full;
  if (full != nullptr) placed_full = place_layer(*full, runner);
  const std::int64_t stride = extras.samples ? std::max<std::int64_t>(1, rows_ / kSamples) : 0;
  HessianObserver observer(layer, sites, runner, stride);
  for_each_chunk(
      job_.windows.statistics, job_.windows.context, [&](std::int64_t begin, const Batch& batch) {
        std::optional<ChunkStates> unquantized;
        if (placed_full) {
          unquantized.emplace(states_.row(rows_ + begin), job_, batch.rows(), sites);
          run_layer(job_.spec, layer, *placed_full, batch, runner, unquantized->after.data(),
                    &unquantized->inputs);
        }
        observer.expect(unquantized ? &unquantized->inputs : nullptr);
        ChunkStates quantized(states_.row(begin), job_, batch.rows(), added);
        BothObservers both(observer, quantized.inputs);
        run_layer(job_.spec, layer, placed, batch, runner, quantized.after.data(), &both);
        if (!added.empty()) {
          observe_residual(*unquantized, *placed_full, quantized, placed, runner, observer);
        }
      });
  return observer.take();
}

std::vector<float> CalibrationStream::to_host(const float* states) const {
  std::vector<float> result(static_cast<std::size_t>(rows_ * job_.spec.hidden));
  job_.runner.memory().copy_out(states, result.size() * sizeof(float), result.data());
  return result;
}

std::vector<float> CalibrationStream::inputs() const { return to_host(states_.row(0)); }

std::vector<float> CalibrationStream::targets(std::int64_t layer, const LayerWeights& full) const {
  NIBBLE_CHECK(states_.rows() == 2 * rows_);
  Rows states = copy_of(states_.row(rows_), rows_, job_.spec.hidden, job_.runner);
  run_windows(job_.spec, layer, place_layer(full, job_.runner), job_.windows.statistics,
              job_.windows.context, job_.runner, states.data());
  return to_host(states.data());
}

void CalibrationStream::watch(std::int64_t layer, const LayerWeights& weights,
                              SiteObserver& observer, bool unquantized) {
  if (unquantized) NIBBLE_CHECK(states_.rows() == 2 * rows_);
  const std::int64_t first = unquantized ? rows_ : 0;
  const LayerWeights placed = place_layer(weights, job_.runner);
  for_each_chunk(
      job_.windows.statistics, job_.windows.context, [&](std::int64_t begin, const Batch& batch) {
        Rows states =
            copy_of(states_.row(first + begin), batch.rows(), job_.spec.hidden, job_.runner);
        run_layer(job_.spec, layer, placed, batch, job_.runner, states.data(), &observer);
      });
}

void CalibrationStream::advance(std::int64_t layer, const LayerWeights& weights,
                                const LayerWeights* full) {
  const auto run = [&](const LayerWeights& layer_weights, float* states) {
    run_windows(job_.spec, layer, place_layer(layer_weights, job_.runner), job_.windows.statistics,
                job_.windows.context, job_.runner, states);
  };
  run(weights, states_.row(0));
  if (full != nullptr) run(*full, states_.row(rows_));
}

void CalibrationStream::save(std::int64_t layer) {
  states_.save(job_.journal, stream_name(layer));
  while (layer-- > 0) job_.journal.remove(stream_name(layer));
}

std::int64_t CalibrationStream::saved(const Job& job) {
  std::int64_t layer = job.spec.layers;
  while (layer > 0 && !job.journal.has(stream_name(layer - 1))) --layer;
  return layer;
}

}  // namespace nibble
