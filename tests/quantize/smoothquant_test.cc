// Smoothing for rounded activations: what a search sees of them and of its solver, and the recipes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "quantize/small_model.h"
#include "support/exact_backend.h"

namespace nibble::test {
namespace {

class SmoothQuant : public ::testing::Test {
 protected:
  SmoothQuant() : backend_(exact_backend(2)) { write_small_model(dir_ / "model", 2); }

  QuantizeReport run(const std::string& output, const std::string& recipe,
                     const std::string& format = "") {
    QuantizeOptions options = small_options(dir_ / "model", dir_ / output, recipe);
    if (!format.empty()) options.format = parse_model_format(format);
    options.calibration = calibration_;
    return quantize(options, *backend_);
  }

  TempDir dir_;
  std::unique_ptr<Backend> backend_;
  CalibrationOptions calibration_ = {256, 128, 64};
};

TEST_F(SmoothQuant, RecipesAreTheThreeSettings) {
  const std::tuple<const char*, const char*, const char*> cases[] = {
      {"smoothquant_o1", "compressed-tensors", "int8_token"},
      {"smoothquant_o2", "nibble", "int8_tensor"},
      {"smoothquant_o3", "compressed-tensors", "int8_tensor_static"}};
  for (const auto& [recipe, convention, activations] : cases) {
    SCOPED_TRACE(recipe);
    EXPECT_EQ(run(recipe, recipe).convention, convention);
    const auto result = open_checkpoint(dir_ / recipe);
    EXPECT_EQ(result->activations("model.layers.1.mlp.down_proj")->name(), activations);
    const auto norm = [&](const Checkpoint& checkpoint, const char* name) {
      const Tensor values = to_float(checkpoint.tensor(name));
      return std::vector<float>(values.data<float>(), values.data<float>() + values.elements());
    };
    const auto source = open_checkpoint(dir_ / "model");
    for (const char* name : {"model.layers.0.input_layernorm.weight",
                             "model.layers.1.post_attention_layernorm.weight"}) {
      EXPECT_NE(norm(*result, name), norm(*source, name));
    }
  }
}

constexpr const char* kSearch = R"({
    "steps": [{"algorithm": "smoothquant_plus", "step": 1, "sites": "all"},
              {"algorithm": "rtn"}]})";

// The loss of the unsmoothed model: with inputs rounded to 4 bits it is another than without.
TEST_F(SmoothQuant, SearchRoundsActivations) {
  const double weights_alone = run("a", kSearch, "w=int8_channel_sym").search->identity_loss;
  for (const char* activations :
       {"int4_token", "int4_tensor", "int4_tensor_static", "int4_token_ow"}) {
    SCOPED_TRACE(activations);
    const std::string weights =
        std::string(activations).ends_with("_ow") ? "w=int8_channel_sym_x16" : "w=int8_channel_sym";
    const QuantizeReport report =
        run(std::string("b_") + activations, kSearch, weights + ",a=" + activations);
    EXPECT_GT(report.search->identity_loss, 5 * weights_alone);
    EXPECT_LE(report.search->loss, report.search->identity_loss);
  }
}

std::string judged_by(const std::string& judge, const std::string& solver) {
  return R"({"steps": [
      {"algorithm": "smoothquant_plus", "step": 1, "sites": "all", "judge": ")" +
         judge + R"("}, )" + solver + "]}";
}

// With correlations GPTQ is better than its grids, and a search that sees them says so; a solver
// that uses none gives the same either way.
TEST_F(SmoothQuant, SearchSeesTheSolver) {
  const std::string gptq = R"({"algorithm": "gptq"})";
  calibration_.tokens = 2048;  // enough for what correlations say to hold on other text
  const SearchReport grids = *run("grids", judged_by("grids", gptq), "int3_g64_asym").search;
  const SearchReport solver = *run("solver", judged_by("solver", gptq), "int3_g64_asym").search;
  EXPECT_LT(solver.identity_loss, 0.95 * grids.identity_loss);
  const std::string clip = R"({"algorithm": "clip_search", "steps": 3})";
  EXPECT_NEAR(run("c", judged_by("grids", clip)).search->loss,
              run("d", judged_by("solver", clip)).search->loss, 1e-4);
}

// A smoothed candidate's moments follow from the source's: the same model, smoothed beforehand, has
// the same loss as it stands.
TEST_F(SmoothQuant, ScaledMomentsAreThoseOfTheSmoothedModel) {
  const std::string search = R"({"steps": [{"algorithm": "smoothquant_plus", "step": 0.5,
      "sites": "norms", "judge": "solver"}, {"algorithm": "gptq"}]})";
  const SearchReport searched = *run("searched", search, "int3_g64_asym").search;
  const std::string alpha = searched.chosen.front().second;
  ASSERT_NE(alpha, "identity");
  run("smoothed", R"({"format": "w=bf16", "steps": [{"algorithm": "smoothquant", "alpha": )" +
                      alpha + R"(, "sites": "norms"}, {"algorithm": "rtn"}]})");
  QuantizeOptions options = small_options(dir_ / "smoothed", dir_ / "again", search);
  options.format = parse_model_format("int3_g64_asym");
  const SearchReport again = *quantize(options, *backend_).search;
  EXPECT_NEAR(again.identity_loss, searched.loss, 0.05 * searched.loss);
}

}  // namespace
}  // namespace nibble::test
