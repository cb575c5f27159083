#include "study/tensors.h"

#include <algorithm>
#include <map>

#include "eval/layer_walk.h"

namespace nibble {
namespace {

// Rows at this distance are kept of [rows, cols].
std::int64_t row_stride(std::int64_t rows, std::int64_t cols) {
  const std::int64_t most = std::max<std::int64_t>(1, TensorSample::kMostValues / cols);
  return (rows + most - 1) / most;
}

TensorSample sample_matrix(const std::string& module, const QuantTensor& weight) {
  std::vector<float> all(static_cast<std::size_t>(weight.rows * weight.cols));
  decode_all(weight, all.data());
  TensorSample sample;
  sample.name = module;
  sample.group = module.substr(module.rfind('.') + 1);
  sample.cols = weight.cols;
  sample.histogram.add(all);
  const std::int64_t stride = row_stride(weight.rows, weight.cols);
  for (std::int64_t r = 0; r < weight.rows; r += stride) {
    const auto row = all.begin() + r * weight.cols;
    sample.values.insert(sample.values.end(), row, row + weight.cols);
  }
  return sample;
}

// Samples of the sites of one block.
class SiteSampler : public SiteObserver {
 public:
  SiteSampler(std::int64_t layer, std::int64_t total_rows, std::int64_t window)
      : layer_(layer), total_rows_(total_rows), window_(window) {}

  void on_input(const std::string& site, const float* x, std::int64_t rows,
                std::int64_t cols) override {
    TensorSample& sample = samples_[site];
    std::int64_t& seen = rows_seen_[site];
    sample.name = fmt::format("layers.{}.{}", layer_, site);
    sample.group = site.substr(0, site.find('.'));  // experts together
    sample.cols = cols;
    for (std::int64_t r = 0; r < rows; r += window_) {
      const std::int64_t count = std::min(window_, rows - r);
      sample.histogram.add({x + r * cols, static_cast<std::size_t>(count * cols)});
    }
    const std::int64_t stride = row_stride(total_rows_, cols);
    for (std::int64_t r = 0; r < rows; ++r, ++seen) {
      if (seen % stride != 0) continue;
      sample.values.insert(sample.values.end(), x + r * cols, x + (r + 1) * cols);
    }
  }

  std::vector<TensorSample> take() {
    std::vector<TensorSample> result;
    for (auto& [site, sample] : samples_) result.push_back(std::move(sample));
    return result;
  }

 private:
  std::int64_t layer_, total_rows_, window_;
  std::map<std::string, TensorSample> samples_;
  std::map<std::string, std::int64_t> rows_seen_;
};

}  // namespace

void sample_weights(const ModelSpec& spec, const WeightSource& source, Backend& backend,
                    const TensorSink& sink) {
  for (std::int64_t layer = 0; layer < spec.layers; ++layer) {
    LayerWeights weights = load_layer(spec, layer, source, backend);
    std::vector<TensorSample> samples;
    for (const Linear* linear : weights.linears()) {
      samples.push_back(sample_matrix(linear->module, linear->weight.canonical));
    }
    sink(std::move(samples));
  }
}

void sample_activations(const ModelSpec& spec, const WeightSource& source, Backend& backend,
                        std::span<const std::int32_t> ids, std::int64_t context,
                        const TensorSink& sink) {
  LayerWalk walk(spec, source, backend, ids, context, "study activations");
  for (std::int64_t layer = 0; layer < spec.layers; ++layer) {
    SiteSampler sampler(layer, walk.rows(), walk.window());
    walk.run_next(sampler);
    sink(sampler.take());
  }
}

}  // namespace nibble
