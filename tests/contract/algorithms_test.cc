// Every registered algorithm is what its data says: solvers give parameters that can be stored,
// transforms leave the function of a block as it was.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <set>

#include "checkpoint/checkpoint.h"
#include "formats/registry.h"
#include "model/arch.h"
#include "quantize/algorithm.h"
#include "quantize/block.h"
#include "quantize/hessian_observer.h"
#include "quantize/math/clip.h"
#include "support/exact_backend.h"
#include "support/test_data.h"
#include "support/tolerance.h"

namespace nibble {
namespace {

Parameters defaults(const Algorithm& algorithm) {
  Parameters parameters;
  for (const ParameterSpec& spec : algorithm.parameters) parameters[spec.name] = spec.value;
  return parameters;
}

std::vector<float> random_values(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::student_t_distribution<float> heavy(4);
  std::vector<float> values(count);
  for (float& v : values) v = heavy(random) * 0.05f;
  return values;
}

TEST(AlgorithmContract, ReleasedNamesStay) {
  for (const char* name : {"rtn", "clip_search", "gptq", "sequential_mse", "llm_fp4", "autoround",
                           "smoothquant_plus", "awq", "exponent_shift", "cross_layer_equalization",
                           "rotate", "smoothquant", "bias_correction", "add_biases"}) {
    EXPECT_NE(find_algorithm(name), nullptr) << name;
  }
  std::set<std::string> names;
  for (const Algorithm& algorithm : algorithms()) {
    EXPECT_TRUE(names.insert(algorithm.name).second) << algorithm.name;
  }
}

TEST(AlgorithmContract, FunctionsFollowTheKind) {
  for (const Algorithm& algorithm : algorithms()) {
    SCOPED_TRACE(algorithm.name);
    EXPECT_FALSE(algorithm.summary.empty());
    EXPECT_EQ(algorithm.solve != nullptr, algorithm.kind == StepKind::kSolver);
    EXPECT_EQ(algorithm.space != nullptr, algorithm.kind == StepKind::kSearch);
    const bool rewrites = algorithm.kind == StepKind::kRewrite;
    EXPECT_EQ(algorithm.rewrite != nullptr, rewrites);
    EXPECT_EQ(algorithm.transform != nullptr,
              algorithm.kind == StepKind::kTransform || algorithm.kind == StepKind::kSearch);
    EXPECT_EQ(algorithm.correct != nullptr, algorithm.kind == StepKind::kCorrection);
    EXPECT_EQ(algorithm.needs.scope == Scope::kModel,
              rewrites || algorithm.kind == StepKind::kSearch);
  }
}

TEST(AlgorithmContract, DefaultsLieInTheirRanges) {
  for (const Algorithm& algorithm : algorithms()) {
    for (const ParameterSpec& spec : algorithm.parameters) {
      SCOPED_TRACE(algorithm.name + " " + spec.name);
      EXPECT_NE(spec.name, "algorithm");
      EXPECT_FALSE(spec.help.empty());
      if (const double* value = std::get_if<double>(&spec.value)) {
        EXPECT_LT(spec.min, spec.max);
        EXPECT_GE(*value, spec.min);
        EXPECT_LE(*value, spec.max);
      }
      if (const std::string* value = std::get_if<std::string>(&spec.value)) {
        EXPECT_THAT(spec.choices, testing::Contains(*value));
      }
    }
  }
}

// A symmetric positive definite sum over rows of correlated activations.
Hessian random_hessian(std::int64_t channels, unsigned seed) {
  Hessian hessian;
  hessian.channels = channels;
  hessian.rows = 4 * channels;
  hessian.moments.resize(static_cast<std::size_t>(channels * channels));
  hessian.sum_abs.resize(static_cast<std::size_t>(channels));
  const auto x = random_values(static_cast<std::size_t>(hessian.rows * channels), seed);
  for (std::int64_t t = 0; t < hessian.rows; ++t) {
    const float* row = x.data() + t * channels;
    for (std::int64_t i = 0; i < channels; ++i) {
      hessian.sum_abs[static_cast<std::size_t>(i)] += std::abs(row[i]);
      for (std::int64_t j = 0; j < channels; ++j) {
        // Each channel repeats half of the one before it.
        const double a = row[i] + (i > 0 ? 0.5 * row[i - 1] : 0.0);
        const double b = row[j] + (j > 0 ? 0.5 * row[j - 1] : 0.0);
        hessian.moments[static_cast<std::size_t>(i * channels + j)] += a * b;
      }
    }
  }
  return hessian;
}

std::vector<float> solve(const Algorithm& algorithm, const FormatPtr& format,
                         const std::vector<float>& w, std::int64_t rows,
                         std::span<const float> second_moment, const Hessian* hessian,
                         Backend& backend) {
  const auto cols = static_cast<std::int64_t>(w.size()) / rows;
  const Solution solution = algorithm.solve(
      {format, w.data(), rows, cols, second_moment, hessian, backend.pool(), backend},
      defaults(algorithm));
  EXPECT_EQ(solution.note, "");
  validate(solution.stored);
  if (algorithm.chooses_formats) {
    const auto shapes = [&](const Format& f) {
      std::vector<Shape> result;
      for (const PlaneSpec& plane : f.planes(rows, cols)) result.push_back(plane.shape);
      return result;
    };
    EXPECT_EQ(shapes(*solution.stored.format), shapes(*format));
  } else {
    EXPECT_TRUE(solution.stored.format->descriptor() == format->descriptor());
  }
  std::vector<float> decoded(w.size());
  decode_all(solution.stored, decoded.data());
  return decoded;
}

// Every solver stores every format, whatever is known of the inputs, and the same on any number of
// threads.
TEST(AlgorithmContract, SolversStoreEveryFormat) {
  const Hessian hessian = random_hessian(96, 5);
  const std::vector<float> moments = hessian.second_moment();
  const auto one = test::exact_backend(1), three = test::exact_backend(3);
  for (const Algorithm& algorithm : algorithms()) {
    if (algorithm.kind != StepKind::kSolver) continue;
    for (const char* name :
         {"int4_g32_asym", "int2_g16_sym_sbf16", "int8_channel_sym_sf32", "int3_tensor_asym",
          "int5_g96_asym", "nf4_g32", "fp4_e2m1_g32_se8m0", "fp4_e2m1_g16_se4m3_4over6",
          "nf4_g32_sdq8", "fp8_e4m3fn_channel", "fp6_e2m3_tensor"}) {
      SCOPED_TRACE(algorithm.name + std::string(" ") + name);
      const FormatPtr format = parse_weight_format(name);
      std::vector<float> w = random_values(96 * 40, 1);
      std::fill_n(w.begin(), 96, 0.0f);  // a row of zeros
      for (const Hessian* used : {static_cast<const Hessian*>(nullptr), &hessian}) {
        const auto second_moment = used == nullptr ? std::span<const float>() : moments;
        const auto found = solve(algorithm, format, w, 40, second_moment, used, *one);
        EXPECT_EQ(found, solve(algorithm, format, w, 40, second_moment, used, *three));
        EXPECT_TRUE(std::ranges::all_of(found, [](float v) { return std::isfinite(v); }));
        EXPECT_TRUE(std::all_of(found.begin(), found.begin() + 96, [](float v) { return v == 0; }));
      }
    }
  }
}

// No solver may be worse than round to nearest by what it minimises: the error of the output.
TEST(AlgorithmContract, SolversAreNotWorseThanRoundToNearest) {
  const Hessian correlated = random_hessian(64, 7);
  Hessian alone = correlated;
  for (std::int64_t i = 0; i < 64 * 64; ++i) {
    if (i % 65 != 0) alone.moments[static_cast<std::size_t>(i)] = 0;
  }
  const auto backend = test::exact_backend(2);
  const std::vector<float> w = random_values(64 * 64, 2);
  for (const char* name : {"int3_g32_asym", "nf4_g32", "fp4_e2m1_g32_se8m0"}) {
    const FormatPtr format = parse_weight_format(name);
    for (const Algorithm& algorithm : algorithms()) {
      if (algorithm.kind != StepKind::kSolver) continue;
      SCOPED_TRACE(algorithm.name + std::string(" ") + name);
      const bool correlates = algorithm.needs.calibration == CalibrationNeed::kHessian;
      const Hessian& hessian = correlates ? correlated : alone;
      const std::vector<float> moments = hessian.second_moment();
      const auto rtn = solve(*find_algorithm("rtn"), format, w, 64, moments, &hessian, *backend);
      const auto found = solve(algorithm, format, w, 64, moments, &hessian, *backend);
      const auto error_of = [&](std::vector<float> q) {
        for (std::size_t i = 0; i < q.size(); ++i) q[i] -= w[i];
        return output_error(hessian, q, backend->pool());
      };
      const double bound = error_of(rtn);
      EXPECT_LE(error_of(found), bound * (1 + 1e-6));
    }
  }
}

TEST(AlgorithmContract, SearchesBeginWithTheIdentity) {
  const std::vector<SiteKind> kinds = {SiteKind::kAttnIn, SiteKind::kMlpDown};
  for (const Algorithm& algorithm : algorithms()) {
    if (algorithm.kind != StepKind::kSearch) continue;
    const SearchSpace space = algorithm.space(defaults(algorithm), kinds);
    ASSERT_EQ(space.coordinates.size(), space.options.size());
    for (const Choice& start : space.starts) {
      ASSERT_EQ(start.size(), space.coordinates.size());
      for (std::size_t i = 0; i < start.size(); ++i) {
        EXPECT_LT(static_cast<std::size_t>(start[i]), space.options[i].size());
      }
    }
    EXPECT_EQ(space.starts.front(), Choice(space.coordinates.size(), 0));
    const std::set<Choice> distinct(space.starts.begin(), space.starts.end());
    EXPECT_EQ(distinct.size(), space.starts.size());
  }
}

// The first layer of a checkpoint with the statistics of some tokens.
class Block {
 public:
  explicit Block(const std::filesystem::path& path)
      : backend_(make_cpu_backend()),
        source_(open_checkpoint(path)),
        spec_(build_spec(source_->config())),
        weights_(load_layer_f32(spec_, 0, *source_, *backend_)),
        batch_(Batch::single({3, 14, 15, 9, 26, 5, 35, 8, 9, 7, 9, 3})) {
    hidden_.resize(static_cast<std::size_t>(batch_.rows() * spec_.hidden));
    run_embedding(spec_, load_embedding(spec_, *source_, *backend_), batch_, *backend_,
                  hidden_.data());
    StatisticsObserver observer(0, *backend_);
    before_ = run(weights_, &observer);
    statistics_ = observer.statistics();
    std::set<std::string> names;
    for (const auto& [linear, name] : statistics_names(sites(spec_, weights_))) {
      names.insert(name);
    }
    HessianObserver hessians(0, names, *backend_);
    run(weights_, &hessians);
    hessians_ = hessians.take();
  }

  std::vector<SiteKind> kinds() {
    std::vector<SiteKind> kinds;
    for (const Site& site : sites(spec_, weights_)) {
      if (site.producer.kind != Producer::Kind::kNone) kinds.push_back(site.kind);
    }
    kinds.erase(std::unique(kinds.begin(), kinds.end()), kinds.end());
    return kinds;
  }

  // What a transform did to the layer, its norms rounded to the type in which they are stored.
  struct Change {
    double output = 0;   // distance of the output from that before
    double weights = 0;  // of the weights from those before
    double statistics =
        0;  // largest distance of the claimed statistics from those of the new block
  };
  Change change(const Algorithm& algorithm, const SearchSpace& space, const Choice& choice,
                DType norm_type) {
    LayerWeights weights = clone_layer(weights_, backend_->pool());
    LayerStatistics statistics = statistics_;
    std::vector<Site> layer_sites = sites(spec_, weights);
    const std::function<FormatPtr(const Linear&)> format_of = [](const Linear&) {
      return parse_weight_format("int4_g16_asym");
    };
    const std::function<ActivationFormatPtr(const Linear&)> activations_of = [](const Linear&) {
      return parse_activation_format("fp4_e2m1_tensor_static");
    };
    TransformBlock block{spec_,     layer_sites,    statistics,       hessians_,
                         format_of, activations_of, backend_->pool(), norm_type};
    algorithm.transform(block, defaults(algorithm), space, choice);
    for (Norm* norm : {&weights.attn_norm, &weights.mlp_norm}) {
      if (norm->weight.empty()) continue;
      norm->weight =
          to_float(from_float(norm->weight.data<float>(), norm_type, norm->weight.shape()));
    }
    prepare_layer(weights, *backend_);
    StatisticsObserver observer(0, *backend_);
    const std::vector<float> after = run(weights, &observer);
    Change result{test::relative_error(after, before_), 0, 0};
    std::vector<Linear*> old = weights_.linears(), changed = weights.linears();
    for (std::size_t i = 0; i < old.size(); ++i) {
      const auto values = [](const Linear& linear) {
        const Tensor& plane = linear.weight.canonical.planes[0];
        return std::span(plane.data<float>(), static_cast<std::size_t>(plane.elements()));
      };
      result.weights =
          std::max(result.weights, test::relative_error(values(*changed[i]), values(*old[i])));
    }
    for (const auto& [name, seen] : observer.statistics()) {
      const std::vector<float>& claimed = statistics.at(name).max_abs;
      result.statistics = std::max(result.statistics, test::relative_error(claimed, seen.max_abs));
    }
    return result;
  }

 private:
  std::vector<float> run(const LayerWeights& weights, SiteObserver* observer) {
    std::vector<float> hidden = hidden_;
    run_layer(spec_, 0, weights, batch_, *backend_, hidden.data(), observer);
    return hidden;
  }

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Checkpoint> source_;
  ModelSpec spec_;
  LayerWeights weights_;
  Batch batch_;
  std::vector<float> hidden_, before_;
  LayerStatistics statistics_;
  LayerHessians hessians_;
};

// Relative error that float32 rounding of dot products of some hundred terms may leave.
constexpr double kFloatRounding = 2e-5;

void expect_function_kept(const std::filesystem::path& path, DType norm_type) {
  SCOPED_TRACE(path.filename().string());
  Block block(path);
  for (const Algorithm& algorithm : algorithms()) {
    if (algorithm.transform == nullptr) continue;
    if (algorithm.kind == StepKind::kTransform) {
      SCOPED_TRACE(algorithm.name);
      const Block::Change change = block.change(algorithm, {}, {}, norm_type);
      EXPECT_GT(change.weights, 0);
      EXPECT_LE(change.output, kFloatRounding);
      EXPECT_LE(change.statistics, 10 * kFloatRounding);
      continue;
    }
    const SearchSpace space = algorithm.space(defaults(algorithm), block.kinds());
    for (std::size_t i = 0; i < space.starts.size(); i += 5) {
      SCOPED_TRACE(algorithm.name + " start " + std::to_string(i));
      const Block::Change change = block.change(algorithm, space, space.starts[i], norm_type);
      EXPECT_LE(change.output, kFloatRounding);
      EXPECT_LE(change.statistics, 10 * kFloatRounding);
    }
    EXPECT_EQ(block.change(algorithm, space, space.starts[0], norm_type).output, 0);
  }
}

TEST(AlgorithmContract, TransformsKeepTheFunctionAlthoughNormsAreStoredIn16Bits) {
  expect_function_kept(test::tiny_novel(), DType::kBF16);
}

TEST(AlgorithmContract, TransformsKeepTheFunctionOfEveryArchitecture) {
  NIBBLE_NEEDS_DATA("oracles");
  for (const auto& entry : std::filesystem::directory_iterator(test::data_dir() / "oracles")) {
    expect_function_kept(entry.path(), DType::kF32);
  }
}

// A transform that forgets to fold its scale must be noticed.
TEST(AlgorithmContract, CheckNoticesATransformThatDoesNotFold) {
  Block block(test::tiny_novel());
  Algorithm mutant = *find_algorithm("smoothquant_plus");
  mutant.transform = [](TransformBlock& b, const Parameters&, const SearchSpace&, const Choice&) {
    Linear& linear = *b.sites[0].consumers[0];
    float* w = linear.weight.canonical.planes[0].mutable_data<float>();
    for (std::int64_t i = 0; i < 1000; ++i) w[i] *= 1.01f;
  };
  const Block::Change change = block.change(mutant, {}, {}, DType::kBF16);
  EXPECT_GT(change.output, kFloatRounding);
  EXPECT_GT(change.statistics, 10 * kFloatRounding);
}

}  // namespace
}  // namespace nibble
