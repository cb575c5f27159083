#include "quantize/correct_biases.h"

#include <algorithm>

#include "base/error.h"

namespace nibble {
namespace {

// Means of the inputs of some linears, by module; each as the linear rounds it. Does not depend on
// the number of threads.
class MeanObserver : public SiteObserver {
 public:
  explicit MeanObserver(std::map<const Linear*, std::string> sites) : sites_(std::move(sites)) {}

  void on_input(const std::string& site, const float* x, std::int64_t rows,
                std::int64_t cols) override {
    if (rows == 0) return;
    for (const auto& [linear, name] : sites_) {
      if (name == site) add(*linear, x, rows, cols);
    }
  }

  // [cols]; empty when no row was seen.
  std::vector<double> mean(const std::string& module) const {
    const auto found = sums_.find(module);
    if (found == sums_.end()) return {};
    std::vector<double> result = found->second.values;
    for (double& value : result) value /= static_cast<double>(found->second.rows);
    return result;
  }

 private:
  struct Sum {
    std::vector<double> values;
    std::int64_t rows = 0;
  };

  void add(const Linear& linear, const float* x, std::int64_t rows, std::int64_t cols) {
    std::vector<float> rounded;
    if (linear.activations != nullptr) {
      rounded.resize(static_cast<std::size_t>(rows * cols));
      linear.activations->round(x, cols, rows, cols, rounded.data(), cols);
      x = rounded.data();
    }
    Sum& sum = sums_[linear.module];
    sum.values.resize(static_cast<std::size_t>(cols));
    sum.rows += rows;
    for (std::int64_t row = 0; row < rows; ++row) {
      for (double& value : sum.values) value += static_cast<double>(*x++);
    }
  }

  std::map<const Linear*, std::string> sites_;
  std::map<std::string, Sum> sums_;
};

// What every correction of the recipe adds to the bias of a linear, and the rounding to the type
// that it is stored in.
void add_corrections(const Job& job, const Linear& original, std::span<const double> wanted_mean,
                     std::span<const double> mean, Linear& linear) {
  const QuantTensor& w = original.weight.canonical;
  float* bias = linear.bias.mutable_data<float>();
  for (const RecipeStep& step : job.options.recipe.steps) {
    if (step.algorithm->correct == nullptr) continue;
    const std::vector<float> added = step.algorithm->correct(
        {w.planes[0].data<float>(), linear.weight.canonical.planes[0].data<float>(), w.rows,
         wanted_mean, mean, job.backend.pool()},
        step.parameters);
    for (std::size_t i = 0; i < added.size(); ++i) bias[i] += added[i];
  }
  const DType type = job.plan.stored_type(linear.module + ".bias");
  linear.bias = to_float(from_float(bias, type, linear.bias.shape()));
}

}  // namespace

void correct_biases(const Job& job, std::int64_t layer, LayerWeights& full,
                    CalibrationStream& stream, LayerWeights& weights) {
  std::map<std::string, const Linear*> originals;
  for (const Linear* linear : full.linears()) originals[linear->module] = linear;
  const auto names = statistics_names(sites(job.spec, weights));
  MeanObserver wanted(statistics_names(sites(job.spec, full)));
  stream.watch(layer, full, wanted, true);
  for (const Stage& stage : stages_by_site(job.spec, weights)) {
    std::map<const Linear*, std::string> corrected;
    for (const Linear* linear : stage) {
      if (!linear->bias.empty()) corrected[linear] = names.at(linear);
    }
    if (corrected.empty()) continue;
    MeanObserver present(corrected);
    stream.watch(layer, weights, present);
    for (Linear* linear : stage) {
      if (!corrected.contains(linear)) continue;
      const std::vector<double> mean = present.mean(linear->module);
      if (mean.empty()) continue;
      const std::vector<double> other = wanted.mean(linear->module);
      const bool comparable = !other.empty() && !is_routed(corrected.at(linear));
      add_corrections(job, *originals.at(linear->module), comparable ? other : mean, mean, *linear);
    }
  }
}

std::string uncorrected_linears(const Recipe& recipe, const ModelSpec& spec,
                                const Checkpoint& source, Backend& backend) {
  if (!recipe.corrects()) return "";
  std::int64_t all = 0, without = 0;
  for (std::int64_t layer = 0; layer < spec.layers; ++layer) {
    LayerWeights weights = load_layer(spec, layer, source, backend);
    for (const Linear* linear : weights.linears()) {
      ++all;
      without += linear->bias.empty() ? 1 : 0;
    }
  }
  if (without == all) {
    fail(ErrorKind::kUnsupported,
         "recipe '{}': its step '{}' changes biases, and no linear layer of this model has one; "
         "leave the step out",
         recipe.name, recipe.steps.back().algorithm->name);
  }
  if (without == 0) return "";
  return fmt::format(
      "{} of the {} linear layers have no bias; what rounding shifts their outputs "
      "by stays",
      without, all);
}

}  // namespace nibble
