// Sites and smoothing pairs of every architecture: which exist, and that folding preserves the
// function.
#include <cmath>
#include <map>
#include <random>

#include "model/oracles.h"
#include "model/sites.h"
#include "support/tolerance.h"

namespace nibble {
namespace {

using test::Oracle;
using testing::ElementsAre;
using testing::HasSubstr;

// All parts of a model, with layers that can be changed.
struct Parts {
  explicit Parts(const Oracle& oracle)
      : spec(oracle.spec),
        backend(*oracle.backend),
        embedding(load_embedding(spec, *oracle.checkpoint, backend)),
        head(load_head(spec, embedding, *oracle.checkpoint, backend)) {
    for (std::int64_t i = 0; i < spec.layers; ++i) {
      layers.push_back(load_layer_f32(spec, i, *oracle.checkpoint, backend));
    }
  }

  Tensor run(const Batch& batch) const {
    Tensor hidden = Tensor::allocate(DType::kF32, {batch.rows(), spec.hidden});
    float* h = hidden.mutable_data<float>();
    run_embedding(spec, embedding, batch, backend, h);
    for (std::size_t i = 0; i < layers.size(); ++i) {
      run_layer(spec, static_cast<std::int64_t>(i), layers[i], batch, backend, h);
    }
    if (!spec.decoder) return hidden;
    Tensor logits = Tensor::allocate(DType::kF32, {batch.rows(), spec.vocab});
    run_head(spec, head, h, batch.rows(), backend, logits.mutable_data<float>());
    return logits;
  }

  const ModelSpec& spec;
  Backend& backend;
  EmbeddingWeights embedding;
  HeadWeights head;
  std::vector<LayerWeights> layers;
};

// Scales in [0.1, 10], equal for channels that share a row.
std::vector<float> random_scales(const Site& site, std::mt19937& random) {
  std::uniform_real_distribution<float> exponent(-1, 1);
  std::map<std::int64_t, float> by_row;
  std::vector<float> s;
  for (std::int64_t j = 0; j < site.channels; ++j) {
    const float scale = std::pow(10.0f, exponent(random));
    const std::int64_t row =
        site.producer.rows.empty() ? j : site.producer.rows[static_cast<std::size_t>(j)];
    s.push_back(by_row.try_emplace(row, scale).first->second);
  }
  return s;
}

class SmoothingTest : public testing::TestWithParam<std::filesystem::path> {};

TEST_P(SmoothingTest, EveryFoldKeepsTheFunction) {
  const Oracle oracle(GetParam());
  const Batch batch = Batch::windows(oracle.all_ids(), oracle.length());
  Parts parts(oracle);
  const Tensor before = parts.run(batch);
  std::mt19937 random(7);
  int folds = 0;
  for (LayerWeights& layer : parts.layers) {
    for (Site& site : sites(parts.spec, layer)) {
      if (site.producer.kind == Producer::Kind::kNone) {
        EXPECT_FALSE(site.producer.why_not.empty()) << site.name;
        continue;
      }
      apply_smoothing(parts.spec, site, random_scales(site, random), parts.backend.pool());
      prepare_layer(layer, parts.backend);
      ++folds;
      // Folds add up; each rounds the weights once more.
      const double error =
          test::relative_error(test::floats(parts.run(batch)), test::floats(before));
      ASSERT_LE(error, 2e-6 * folds) << site.name;
    }
  }
  EXPECT_GE(folds, parts.spec.layers);  // v -> o exists everywhere
}

std::vector<float> values(const Tensor& tensor) {
  if (tensor.empty()) return {};
  const std::span<const float> all = test::floats(tensor);
  return {all.begin(), all.end()};
}

TEST_P(SmoothingTest, DeferredScalingsGiveTheSameBits) {
  const Oracle oracle(GetParam());
  Parts now(oracle), deferred(oracle);
  for (std::size_t i = 0; i < now.layers.size(); ++i) {
    LayerWeights& layer = now.layers[i];
    LayerWeights& kept = deferred.layers[i];
    std::vector<Site> here = sites(now.spec, layer), there = sites(now.spec, kept);
    Scalings scalings;
    std::mt19937 random(7);
    for (std::size_t site = 0; site < here.size(); ++site) {
      if (here[site].producer.kind == Producer::Kind::kNone) continue;
      const std::vector<float> s = random_scales(here[site], random);
      apply_smoothing(now.spec, here[site], s, now.backend.pool());
      apply_smoothing(now.spec, there[site], s, now.backend.pool(), &scalings);
    }
    const std::vector<Linear*> changed = layer.linears(), unchanged = kept.linears();
    for (std::size_t l = 0; l < changed.size(); ++l) {
      const QuantTensor& weight = unchanged[l]->weight.canonical;
      const Scaling& scaling = scalings[unchanged[l]];
      std::vector<float> scaled(static_cast<std::size_t>(weight.rows * weight.cols));
      now.backend.run(ScaleArgs{
          .x = weight.planes[0].data<float>(),
          .rows = weight.rows,
          .cols = weight.cols,
          .factors = scaling.factors.empty() ? nullptr : scaling.factors.data(),
          .divisors = scaling.divisors.empty() ? nullptr : scaling.divisors.data(),
          .y = scaled.data(),
      });
      EXPECT_EQ(scaled, values(changed[l]->weight.canonical.planes[0])) << changed[l]->module;
      EXPECT_EQ(values(unchanged[l]->bias), values(changed[l]->bias)) << changed[l]->module;
    }
    const std::vector<Norm*> norms = layer.norms(), kept_norms = kept.norms();
    for (std::size_t n = 0; n < norms.size(); ++n) {
      EXPECT_EQ(values(kept_norms[n]->weight), values(norms[n]->weight)) << norms[n]->module;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, SmoothingTest, testing::ValuesIn(test::oracle_directories()),
                         [](const auto& test) { return test::oracle_name(test.param); });

// Names of the sites of the first layer that can be smoothed.
std::vector<std::string> foldable(const std::string& golden) {
  const Oracle oracle(test::source_dir() / "tests/golden/archs" / golden);
  LayerWeights layer = load_layer(oracle.spec, 0, *oracle.checkpoint, *oracle.backend);
  std::vector<std::string> names;
  for (const Site& site : sites(oracle.spec, layer)) {
    if (site.producer.kind != Producer::Kind::kNone) names.push_back(site.name);
  }
  return names;
}

TEST(Sites, FoldableOnesFollowFromTheBlock) {
  const auto all = ElementsAre("attn_in", "attn_out", "mlp_in", "mlp_down");
  const auto not_gated = ElementsAre("attn_in", "attn_out", "mlp_in");
  const auto values_only = ElementsAre("attn_out");
  EXPECT_THAT(foldable("llama_mqa_bias_headdim"), all);
  EXPECT_THAT(foldable("gemma2_old"), all);
  EXPECT_THAT(foldable("qwen3_mqa_old"), all);
  EXPECT_THAT(foldable("phi3_window_old"), all);
  EXPECT_THAT(foldable("gpt_neox_odd_rotary"), not_gated);
  EXPECT_THAT(foldable("gpt2_inverse_layer_scale"), not_gated);
  EXPECT_THAT(foldable("opt_no_final_norm"), not_gated);
  EXPECT_THAT(foldable("bloom_three_heads_old"), not_gated);
  EXPECT_THAT(foldable("bloom_post_layernorm"), values_only);
  EXPECT_THAT(foldable("opt_post_norm_projection"), values_only);
  EXPECT_THAT(foldable("opt_plain_norm_no_bias"), values_only);
  EXPECT_THAT(foldable("bert_gelu_new_old"), values_only);
}

TEST(Sites, ExpertsShareOneInputAndTheRouterIsCompensated) {
  const Oracle oracle(test::source_dir() / "tests/golden/archs/mixtral_window_old");
  LayerWeights layer = load_layer(oracle.spec, 0, *oracle.checkpoint, *oracle.backend);
  const std::vector<Site> all = sites(oracle.spec, layer);
  ASSERT_EQ(all.size(), 3u + 4u);
  EXPECT_EQ(all[2].name, "mlp_in");
  EXPECT_EQ(all[2].consumers.size(), 2u * 4u);
  EXPECT_THAT(all[2].compensated, ElementsAre(&layer.router));
  EXPECT_EQ(all[5].name, "mlp_down.2");
  EXPECT_EQ(all[5].producer.linear, &layer.experts[2].up);
}

TEST(Sites, BadScalesAreRefused) {
  ThreadPool pool(1);
  const Oracle oracle(test::source_dir() / "tests/golden/archs/llama_mqa_bias_headdim");
  LayerWeights layer = load_layer_f32(oracle.spec, 0, *oracle.checkpoint, *oracle.backend);
  std::vector<Site> all = sites(oracle.spec, layer);
  std::vector<float> s(static_cast<std::size_t>(all[1].channels), 1.0f);
  s.back() = 2;  // one key-value head: all heads' last channels share a row
  EXPECT_ERROR(apply_smoothing(oracle.spec, all[1], s, pool), ErrorKind::kUsage, "share row");
  s.back() = 0;
  EXPECT_ERROR(apply_smoothing(oracle.spec, all[1], s, pool), ErrorKind::kUsage, "scale of 0");
  s.pop_back();
  EXPECT_ERROR(apply_smoothing(oracle.spec, all[1], s, pool), ErrorKind::kUsage, "channels");

  const Oracle post(test::source_dir() / "tests/golden/archs/opt_post_norm_projection");
  LayerWeights post_layer = load_layer_f32(post.spec, 0, *post.checkpoint, *post.backend);
  Site site = sites(post.spec, post_layer)[0];
  EXPECT_ERROR(apply_smoothing(post.spec, site, s, pool), ErrorKind::kUsage, "feeds the residual");
}

// Adds up what it is shown, by site.
class Recorder : public SiteObserver {
 public:
  void on_input(const std::string& site, const float* x, std::int64_t rows,
                std::int64_t cols) override {
    rows_[site] += rows;
    cols_[site] = cols;
    EXPECT_TRUE(std::isfinite(x[rows * cols - 1]));
  }
  std::map<std::string, std::int64_t> rows_, cols_;
};

TEST(Observers, SeeTheInputOfEverySite) {
  for (const auto& path : test::oracle_directories()) {
    SCOPED_TRACE(path.filename());
    const Oracle oracle(path);
    Parts parts(oracle);
    const Batch batch = Batch::windows(oracle.all_ids(), oracle.length());
    Tensor hidden = Tensor::allocate(DType::kF32, {batch.rows(), parts.spec.hidden});
    run_embedding(parts.spec, parts.embedding, batch, parts.backend, hidden.mutable_data<float>());
    Recorder recorder;
    run_layer(parts.spec, 0, parts.layers[0], batch, parts.backend, hidden.mutable_data<float>(),
              &recorder);
    std::int64_t expert_rows = 0;
    for (const Site& site : sites(parts.spec, parts.layers[0])) {
      if (site.name.starts_with("mlp_down.") && site.name != "mlp_down.shared") {
        expert_rows += recorder.rows_[site.name];
      } else {
        EXPECT_EQ(recorder.rows_[site.name], batch.rows()) << site.name;
      }
      if (recorder.rows_[site.name] > 0) {
        EXPECT_EQ(recorder.cols_[site.name], site.channels) << site.name;
      }
    }
    const bool has_experts = !parts.layers[0].experts.empty();
    EXPECT_EQ(expert_rows, has_experts ? batch.rows() * parts.spec.mlp.top_k : 0);
  }
}

}  // namespace
}  // namespace nibble
