// Gradients of whole blocks against finite differences of the ordinary forward pass, for every
// architecture that there is a checkpoint of.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "checkpoint/checkpoint.h"
#include "model/arch.h"
#include "model/grad/block_gradient.h"
#include "support/exact_backend.h"
#include "support/test_data.h"
#include "support/tolerance.h"

namespace nibble {
namespace {

std::vector<float> random_values(std::size_t count, unsigned seed, float size) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, size);
  std::vector<float> values(count);
  for (float& v : values) v = normal(random);
  return values;
}

// A layer of a checkpoint over two windows, and the sum of products of its output with a direction.
class Layer {
 public:
  Layer(const std::filesystem::path& path, std::int64_t layer)
      : backend_(test::exact_backend(1)),
        source_(open_checkpoint(path)),
        spec_(build_spec(source_->config())),
        layer_(layer),
        weights_(load_layer_f32(spec_, layer, *source_, *backend_)),
        hidden_(random_values(static_cast<std::size_t>(2 * kLength * spec_.hidden), 1, 1)),
        direction_(random_values(hidden_.size(), 2, 1)) {}

  std::int64_t layers() const { return spec_.layers; }

  // By run_layer().
  std::vector<float> output() {
    prepare_layer(weights_, *backend_);
    std::vector<float> h = hidden_;
    const std::vector<std::int32_t> ids(static_cast<std::size_t>(2 * kLength), 1);
    run_layer(spec_, layer_, weights_, Batch::windows(ids, kLength), *backend_, h.data());
    return h;
  }
  double along(const std::vector<float>& output) const {
    double sum = 0;
    for (std::size_t i = 0; i < output.size(); ++i) {
      sum += static_cast<double>(output[i]) * static_cast<double>(direction_[i]);
    }
    return sum;
  }

  std::vector<float> differentiate(WeightGradients& gradients) {
    prepare_layer(weights_, *backend_);
    for (Linear* linear : weights_.linears()) {
      const QuantTensor& w = linear->weight.canonical;
      gradients[linear].resize(static_cast<std::size_t>(w.rows * w.cols));
    }
    Tape tape;
    GradContext context{tape, *backend_, gradients};
    GradNode& y = differentiable_block(context, spec_, layer_, weights_, hidden_, kLength);
    tape.backward(y, direction_);
    return y.value;
  }

  LayerWeights& weights() { return weights_; }

 private:
  static constexpr std::int64_t kLength = 9;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Checkpoint> source_;
  ModelSpec spec_;
  std::int64_t layer_;
  LayerWeights weights_;
  std::vector<float> hidden_, direction_;
};

// The change of the output along a direction when the weights of one linear move along their own,
// by differences and by the gradient.
void check_linear(Layer& layer, Linear& linear, const std::vector<float>& gradient) {
  float* w = linear.weight.canonical.planes[0].mutable_data<float>();
  const std::vector<float> before(w, w + gradient.size());
  double norm = 0;
  for (const float v : before) norm += static_cast<double>(v) * static_cast<double>(v);
  const auto size = static_cast<float>(std::sqrt(norm / static_cast<double>(before.size())));
  const std::vector<float> move = random_values(before.size(), 3, size + 1e-3f);
  double expected = 0, squares = 0;
  for (std::size_t i = 0; i < move.size(); ++i) {
    expected += static_cast<double>(gradient[i]) * static_cast<double>(move[i]);
    squares += static_cast<double>(gradient[i]) * static_cast<double>(gradient[i]);
  }
  const double typical = std::sqrt(squares) * static_cast<double>(size + 1e-3f);  // of a direction
  const auto at = [&](float step) {
    for (std::size_t i = 0; i < move.size(); ++i) w[i] = before[i] + step * move[i];
    return layer.along(layer.output());
  };
  // The error of a central difference falls with the square of the step until rounding, kinks and
  // other choices of experts within the step show: where that is differs, so the best step counts.
  double error = INFINITY, measured = 0;
  for (const float step : {1.0f / 4096, 1.0f / 1024, 1.0f / 256, 1.0f / 64}) {
    const double found = (at(step) - at(-step)) / (2 * static_cast<double>(step));
    if (std::abs(found - expected) > error) continue;
    error = std::abs(found - expected);
    measured = found;
  }
  std::copy(before.begin(), before.end(), w);
  EXPECT_NEAR(expected, measured, 0.01 * typical + 1e-4) << linear.module;
}

void check_checkpoint(const std::filesystem::path& path) {
  SCOPED_TRACE(path.filename().string());
  const std::int64_t layers = Layer(path, 0).layers();
  for (std::int64_t index = 0; index < std::min<std::int64_t>(layers, 2); ++index) {
    Layer layer(path, index);
    WeightGradients gradients;
    const std::vector<float> value = layer.differentiate(gradients);
    EXPECT_LE(test::relative_error(value, layer.output()), 1e-5);
    for (Linear* linear : layer.weights().linears()) {
      check_linear(layer, *linear, gradients.at(linear));
    }
  }
}

TEST(BlockGradient, AgreesWithDifferencesOfTheForwardPass) { check_checkpoint(test::tiny_novel()); }

TEST(BlockGradient, OfEveryGoldenArchitecture) {
  const auto folder = test::source_dir() / "tests/golden/archs";
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.is_directory()) check_checkpoint(entry.path());
  }
}

TEST(BlockGradient, OfEveryOracle) {
  NIBBLE_NEEDS_DATA("oracles");
  for (const auto& entry : std::filesystem::directory_iterator(test::data_dir() / "oracles")) {
    check_checkpoint(entry.path());
  }
}

}  // namespace
}  // namespace nibble
