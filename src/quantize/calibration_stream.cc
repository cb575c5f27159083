#include "quantize/calibration_stream.h"

#include <algorithm>

#include "quantize/calibration.h"
#include "quantize/hessian_observer.h"

namespace nibble {
namespace {

std::string stream_name(std::int64_t layer) { return fmt::format("stream.{}", layer); }

// One observer for two.
class BothObservers : public SiteObserver {
 public:
  BothObservers(SiteObserver& first, SiteObserver& second) : first_(first), second_(second) {}
  void on_input(const std::string& site, const float* x, std::int64_t rows,
                std::int64_t cols) override {
    first_.on_input(site, x, rows, cols);
    second_.on_input(site, x, rows, cols);
  }

 private:
  SiteObserver& first_;
  SiteObserver& second_;
};

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

// One model's chunk: hidden states before and after the layer, and the inputs of those sites.
struct ChunkStates {
  std::vector<float> before, after;
  InputRecorder inputs;
};

// What the result of the down projection was added to: `after` without it.
std::vector<float> before_mlp(const ChunkStates& chunk, const Linear& down, Backend& backend) {
  const std::vector<float>& x = *chunk.inputs.find(kMlpDown);
  const QuantTensor& weight = down.weight.canonical;
  std::vector<float> y(chunk.after.size());
  LinearArgs args;
  args.x = x.data();
  args.x_stride = weight.cols;
  args.m = static_cast<std::int64_t>(x.size()) / weight.cols;
  args.w = &down.weight;
  args.bias = down.bias.empty() ? nullptr : down.bias.data<float>();
  args.y = y.data();
  args.y_stride = weight.rows;
  backend.run(args);
  for (std::size_t i = 0; i < y.size(); ++i) y[i] = chunk.after[i] - y[i];
  return y;
}

// Tells the observer what is missing from the quantized model's residual stream at each site.
void observe_residual(const ChunkStates& full, const LayerWeights& full_weights,
                      const ChunkStates& quantized, const LayerWeights& weights, std::int64_t width,
                      Backend& backend, HessianObserver& observer) {
  const auto add = [&](const char* site, std::vector<float> missing,
                       const std::vector<float>& present) {
    for (std::size_t i = 0; i < missing.size(); ++i) missing[i] -= present[i];
    observer.add_residual(site, *quantized.inputs.find(site), missing, width);
  };
  if (quantized.inputs.find(kAttnOut) != nullptr) add(kAttnOut, full.before, quantized.before);
  if (quantized.inputs.find(kMlpDown) != nullptr) {
    add(kMlpDown, before_mlp(full, full_weights.mlp.down, backend),
        before_mlp(quantized, weights.mlp.down, backend));
  }
}

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
                                         const std::set<std::string>& sites, bool residual) {
  const std::int64_t width = job_.spec.hidden;
  const std::set<std::string> added =
      residual && full != nullptr ? residual_sites(job_.spec, sites) : std::set<std::string>();
  HessianObserver observer(layer, sites, job_.backend);
  for_each_chunk(
      job_.windows.statistics, job_.windows.context, [&](std::int64_t begin, const Batch& batch) {
        const auto copy = [&](const float* hidden) {
          const float* at = hidden + begin * width;
          return std::vector<float>(at, at + batch.rows() * width);
        };
        ChunkStates unquantized{{}, {}, InputRecorder(sites)};
        if (full != nullptr) {
          unquantized.before = unquantized.after = copy(this->full());
          run_layer(job_.spec, layer, *full, batch, job_.backend, unquantized.after.data(),
                    &unquantized.inputs);
        }
        observer.expect(full != nullptr ? &unquantized.inputs : nullptr);
        ChunkStates quantized{copy(hidden()), {}, InputRecorder(added)};
        quantized.after = quantized.before;
        BothObservers both(observer, quantized.inputs);
        run_layer(job_.spec, layer, weights, batch, job_.backend, quantized.after.data(), &both);
        if (!added.empty()) {
          observe_residual(unquantized, *full, quantized, weights, width, job_.backend, observer);
        }
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
