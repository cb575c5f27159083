// Bias correction of whole models, against outputs that are summed up row by row.
#include "quantize/math/bias_correction.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "model/arch.h"
#include "quantize/block.h"
#include "quantize/calibration.h"
#include "quantize/small_model.h"
#include "quantize/texts.h"
#include "runtime/session.h"
#include "support/exact_backend.h"
#include "support/tolerance.h"

namespace nibble::test {
namespace {

// A small model whose config gives biases to its attention, or to every linear layer, stored in
// `type`.
void write_biased_model(const std::filesystem::path& target, const std::filesystem::path& plain,
                        bool everywhere, DType type = DType::kF32) {
  write_small_model(plain, 2);
  const auto source = open_checkpoint(plain);
  std::vector<StoredTensor> plan;
  std::vector<StoredTensor> biases;
  for (const std::string& name : source->names()) {
    const Tensor tensor = source->tensor(name);
    plan.push_back({name, tensor.dtype(), tensor.shape()});
    const bool attention = name.find("self_attn") != std::string::npos;
    if (!attention && !(everywhere && name.find(".mlp.") != std::string::npos)) continue;
    const std::string bias = name.substr(0, name.rfind('.')) + ".bias";
    biases.push_back({bias, type, {tensor.dim(0)}});
  }
  for (const StoredTensor& bias : biases) plan.push_back(bias);
  std::filesystem::create_directory(target);
  ShardedWriter writer(target, plan);
  for (const StoredTensor& stored : plan) {
    if (source->has(stored.name)) {
      writer.write(stored.name, source->tensor(stored.name));
      continue;
    }
    std::vector<float> values(static_cast<std::size_t>(stored.shape[0]));
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = 0.01f * static_cast<float>(i % 7) - 0.02f;
    }
    writer.write(stored.name, from_float(values.data(), type, stored.shape));
  }
  writer.finish();
  copy_companions(*source, target);
  Json config = source->config();
  config["attention_bias"] = true;
  config["mlp_bias"] = everywhere;
  write_config(target, config, nullptr);
}

// Sums the outputs of every linear of a layer, row by row of its inputs.
class OutputObserver : public SiteObserver {
 public:
  OutputObserver(const ModelSpec& spec, LayerWeights& weights)
      : names_(statistics_names(sites(spec, weights))) {}

  void on_input(const std::string& site, const float* x, std::int64_t rows,
                std::int64_t cols) override {
    for (const auto& [linear, name] : names_) {
      if (name != site) continue;
      std::vector<float> inputs(x, x + rows * cols);
      if (linear->activations != nullptr) {
        linear->activations->round(x, cols, rows, cols, inputs.data(), cols);
      }
      for (std::int64_t row = 0; row < rows; ++row) add(*linear, inputs.data() + row * cols);
    }
  }

  std::vector<double> mean(const std::string& module) const {
    std::vector<double> result = sums_.at(module);
    for (double& value : result) value /= static_cast<double>(counts_.at(module));
    return result;
  }

 private:
  void add(const Linear& linear, const float* x) {
    const QuantTensor& w = linear.weight.canonical;
    std::vector<double>& sums = sums_[linear.module];
    sums.resize(static_cast<std::size_t>(w.rows));
    ++counts_[linear.module];
    const float* row = w.planes[0].data<float>();
    for (std::int64_t r = 0; r < w.rows; ++r, row += w.cols) {
      double y = linear.bias.empty() ? 0 : static_cast<double>(linear.bias.data<float>()[r]);
      for (std::int64_t c = 0; c < w.cols; ++c) {
        y += static_cast<double>(row[c]) * static_cast<double>(x[c]);
      }
      sums[static_cast<std::size_t>(r)] += y;
    }
  }

  std::map<const Linear*, std::string> names_;
  std::map<std::string, std::vector<double>> sums_;
  std::map<std::string, std::int64_t> counts_;
};

using MeanOutputs = std::map<std::string, std::vector<double>>;

// Mean outputs of every linear of the blocks on the windows of a run.
MeanOutputs mean_outputs(const std::filesystem::path& path, const CalibrationWindows& windows,
                         Backend& backend) {
  const auto source = open_checkpoint(path);
  const ModelSpec spec = build_spec(source->config());
  std::vector<float> hidden(windows.statistics.size() * static_cast<std::size_t>(spec.hidden));
  embed_windows(spec, load_embedding(spec, *source, backend), windows.statistics, windows.context,
                backend, hidden.data());
  MeanOutputs result;
  for (std::int64_t layer = 0; layer < spec.layers; ++layer) {
    LayerWeights weights = load_layer_f32(spec, layer, *source, backend);
    for (Linear* linear : weights.linears()) {
      linear->activations = source->activations(linear->module);
    }
    prepare_layer(weights, backend);
    OutputObserver observer(spec, weights);
    run_windows(spec, layer, weights, windows.statistics, windows.context, backend, hidden.data(),
                &observer);
    for (const Linear* linear : weights.linears()) {
      result[linear->module] = observer.mean(linear->module);
    }
  }
  return result;
}

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
}

class BiasCorrection : public ::testing::Test {
 protected:
  BiasCorrection() : backend_(exact_backend(2)) {}

  QuantizeReport run(const std::string& steps, const std::string& format) {
    std::filesystem::remove_all(dir_ / "out");
    QuantizeOptions options =
        small_options(dir_ / "model", dir_ / "out", R"({"steps": [)" + steps + "]}");
    options.format = parse_model_format(format);
    return quantize(options, *backend_);
  }

  CalibrationWindows windows() const {
    const auto ids = require_tokenizer(*open_checkpoint(dir_ / "model"))
                         ->encode(std::string(bundled_calibration_text()));
    return cut_windows(ids, small_options("", "", "rtn").calibration, false);
  }

  TempDir dir_;
  std::unique_ptr<Backend> backend_;
};

TEST_F(BiasCorrection, MeanOutputsAreThoseOfTheSource) {
  write_biased_model(dir_ / "model", dir_ / "plain", true);
  const CalibrationWindows text = windows();
  const MeanOutputs wanted = mean_outputs(dir_ / "model", text, *backend_);
  for (const std::string format : {"w3a16_g128", "w=int4_channel_sym,a=int8_token"}) {
    SCOPED_TRACE(format);
    run(R"({"algorithm": "rtn"})", format);
    const MeanOutputs rounded = mean_outputs(dir_ / "out", text, *backend_);
    for (const char* solver :
         {R"({"algorithm": "rtn"})", R"({"algorithm": "gptq", "true_sequential": true})"}) {
      SCOPED_TRACE(solver);
      run(std::string(solver) + R"(, {"algorithm": "bias_correction"})", format);
      const MeanOutputs corrected = mean_outputs(dir_ / "out", text, *backend_);
      for (const auto& [module, mean] : wanted) {
        SCOPED_TRACE(module);
        // Sums of some hundred products of values about 1 in float32.
        EXPECT_LT(largest_difference(corrected.at(module), mean), 1e-4);
        EXPECT_GT(largest_difference(rounded.at(module), mean), 2e-3);
      }
    }
  }
}

TEST_F(BiasCorrection, FollowsWhatTheStoredTypeOfBiasesRounds) {
  write_biased_model(dir_ / "model", dir_ / "plain", true, DType::kBF16);
  run(R"({"algorithm": "rtn"}, {"algorithm": "bias_correction"})", "w3a16_g128");
  const CalibrationWindows text = windows();
  const MeanOutputs wanted = mean_outputs(dir_ / "model", text, *backend_);
  const MeanOutputs corrected = mean_outputs(dir_ / "out", text, *backend_);
  const auto result = open_checkpoint(dir_ / "out");
  for (const auto& [module, mean] : wanted) {
    const Tensor stored = result->tensor(module + ".bias");
    ASSERT_EQ(stored.dtype(), DType::kBF16);
    const Tensor bias = to_float(stored);
    for (std::size_t i = 0; i < mean.size(); ++i) {
      const double rounding =
          unit_roundoff(DType::kBF16) * std::abs(static_cast<double>(bias.data<float>()[i]));
      ASSERT_NEAR(corrected.at(module)[i], mean[i], 1.01 * rounding + 1e-4) << module;
    }
  }
}

TEST_F(BiasCorrection, SaysWhatItCannotCorrect) {
  write_biased_model(dir_ / "model", dir_ / "plain", false);
  const QuantizeReport report =
      run(R"({"algorithm": "rtn"}, {"algorithm": "bias_correction"})", "w4a16_g64");
  EXPECT_THAT(report.notes,
              testing::Contains(testing::HasSubstr("6 of the 14 linear layers have no bias")));
  const char* steps = R"({"steps": [{"algorithm": "rtn"}, {"algorithm": "bias_correction"}]})";
  EXPECT_ERROR(quantize(small_options(dir_ / "plain", dir_ / "none", steps), *backend_),
               ErrorKind::kUnsupported, "no linear layer of this model has one");
}

TEST_F(BiasCorrection, AddedBiasesAreThoseOfTheConfig) {
  write_small_model(dir_ / "model", 2);
  const CalibrationWindows text = windows();
  const MeanOutputs wanted = mean_outputs(dir_ / "model", text, *backend_);
  const QuantizeReport report =
      run(R"({"algorithm": "add_biases"}, {"algorithm": "rtn"})", "w=bf16");
  EXPECT_THAT(report.notes, testing::Contains(testing::HasSubstr(
                                "14 linear layers are given a bias, which takes 10240 bytes")));
  const auto result = open_checkpoint(dir_ / "out");
  EXPECT_EQ(result->config().at("attention_bias"), true);
  EXPECT_EQ(result->config().at("mlp_bias"), true);
  EXPECT_EQ(mean_outputs(dir_ / "out", text, *backend_), wanted);
  for (const auto& [module, mean] : wanted) {
    EXPECT_EQ(result->tensor(module + ".bias").elements(), static_cast<std::int64_t>(mean.size()));
  }

  std::filesystem::remove_all(dir_ / "out");
  quantize(small_options(dir_ / "model", dir_ / "out", "bias_correction"), *backend_);
  const MeanOutputs corrected = mean_outputs(dir_ / "out", text, *backend_);
  for (const auto& [module, mean] : wanted) {
    EXPECT_LT(largest_difference(corrected.at(module), mean), 0.02) << module;  // bf16 of up to 4
  }
}

TEST_F(BiasCorrection, ModelsWithoutAKeyForBiasesStayAsTheyAre) {
  const std::filesystem::path source = source_dir() / "tests/golden/archs/mixtral_window_old";
  const std::string steps = R"({"steps": [{"algorithm": "add_biases"}, {"algorithm": "rtn"}]})";
  const QuantizeReport report = quantize(small_options(source, dir_ / "out", steps), *backend_);
  EXPECT_THAT(report.notes, testing::Contains(testing::HasSubstr("no linear layer is given")));
  EXPECT_FALSE(open_checkpoint(dir_ / "out")->config().contains("mlp_bias"));
}

TEST(MeanOutputError, IsWhatTheMeansOfBothProductsDifferBy) {
  ThreadPool pool(2);
  const std::vector<float> w = {1, 2, 3, 4, 5, 6}, q = {1, 1, 3, 4, 4, 7};
  const std::vector<double> wanted = {0.5, -1, 2}, mean = {1, 0.25, -3};
  const auto error = mean_output_error(w.data(), q.data(), 2, wanted, mean, pool);
  EXPECT_THAT(error, testing::ElementsAre(4.5 - (1 + 0.25 - 9), 9 - (4 + 1 - 21)));
}

}  // namespace
}  // namespace nibble::test
