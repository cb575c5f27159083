#include "quantize/plan.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "quantize/block.h"
#include "quantize/screening.h"
#include "quantize/setup.h"

namespace nibble {
namespace {

constexpr double kBaseBytes = 64e6;    // program, tokenizer, texts
constexpr double kLogitBytes = 128e6;  // two models' logits during verification

// Multiply-adds a second, twice: of a float32 linear of middling size, as calibration runs it.
double measure_flops(Backend& backend) {
  constexpr std::int64_t kRows = 256, kSize = 1024;
  const std::vector<float> x(static_cast<std::size_t>(kRows * kSize), 0.5f);
  std::vector<float> y(x.size());
  Tensor w = Tensor::allocate(DType::kF32, {kSize, kSize});
  std::fill_n(w.mutable_data<float>(), w.elements(), 0.25f);
  const LinearWeight weight = backend.prepare(dense(w));
  LinearArgs args;
  args.x = x.data();
  args.x_stride = kSize;
  args.m = kRows;
  args.w = &weight;
  args.y = y.data();
  args.y_stride = kSize;
  backend.run(args);  // the first call picks an implementation and wakes the threads
  const auto start = std::chrono::steady_clock::now();
  double seconds = 0;
  int runs = 0;
  while (seconds < 0.1) {
    backend.run(args);
    ++runs;
    seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  return 2.0 * kRows * kSize * kSize * runs / seconds;
}

struct Sizes {
  double block_weights = 0;  // of all blocks
  double largest_layer = 0;  // weights of one block
  double head_weights = 0;
};

Sizes sizes_of(const Setup& setup) {
  Sizes sizes;
  std::vector<double> layers(static_cast<std::size_t>(setup.spec().layers), 0.0);
  for (const PlannedModule& module : setup.plan().modules) {
    if (module.layer < 0) continue;
    layers[static_cast<std::size_t>(module.layer)] +=
        static_cast<double>(module.rows) * static_cast<double>(module.cols);
  }
  for (const double layer : layers) {
    sizes.block_weights += layer;
    sizes.largest_layer = std::max(sizes.largest_layer, layer);
  }
  sizes.head_weights =
      static_cast<double>(setup.spec().vocab) * static_cast<double>(setup.spec().hidden);
  return sizes;
}

// What a search takes at most: its starts, then every other option of every coordinate in each
// round.
struct SearchCost {
  std::int64_t candidates = 0;
  std::int64_t tokens = 0;  // over all candidates
  std::int64_t tokens_at_once = 0;
};

SearchCost search_cost(const Setup& setup, const QuantizeOptions& options, Backend& backend) {
  const std::vector<SiteKind> kinds = smoothable_kinds(setup.spec(), setup.source(), backend);
  const Screening screening(setup.windows());
  SearchCost cost;
  for (const RecipeStep& step : options.recipe.steps) {
    if (step.algorithm->space == nullptr) continue;
    const SearchSpace space = step.algorithm->space(step.parameters, kinds);
    const auto compare = [&](std::size_t choices, std::size_t fresh, int times) {
      cost.candidates += times * static_cast<std::int64_t>(fresh);
      cost.tokens += times * screening.tokens(choices);
      cost.tokens_at_once = std::max(cost.tokens_at_once, screening.tokens_at_once(choices));
    };
    compare(space.starts.size(), space.starts.size(), 1);
    if (!space.descend) continue;
    for (const auto& choices : space.options) {
      compare(choices.size(), choices.size() - 1, space.max_rounds);
    }
  }
  return cost;
}

// What steps take that see the model while it is quantized: passes over the text beside those for
// statistics, and sums of products.
struct StreamCost {
  double passes = 0;          // of the text through all blocks
  double flops = 0;           // of the sums, a token
  double bytes_of_layer = 0;  // of the sums of one block, and of factoring the largest
  double states = 0;          // copies of the hidden states
  double trained_tokens = 0;  // run forward and backward through each block
};

StreamCost stream_cost(const Setup& setup, const Recipe& recipe, Backend& backend) {
  StreamCost cost;
  const Needs solver = recipe.solver().needs();
  const bool both = solver.drift || recipe.corrects();
  if (recipe.corrects()) cost.passes = 5;  // the inputs in the source, and those of each site
  if (solver.calibration == CalibrationNeed::kActivations) {
    // The text through both models twice; of what is trained forward, and twice as much backward.
    cost.states = 3;
    cost.passes += 3;
    cost.trained_tokens = static_cast<double>(solver.trained_windows * setup.windows().context);
    return cost;
  }
  if (!recipe.needs_stream()) return cost;
  double observing = 0;
  for (const RecipeStep& step : recipe.steps) {
    if (step.needs().calibration != CalibrationNeed::kHessian) continue;
    observing += step.needs().by_site ? 4 : 1;
  }
  cost.states = both ? 2 : 1;
  cost.passes += observing * (solver.drift ? 2 : 1) + cost.states;
  if (!recipe.needs_hessians()) return cost;
  LayerWeights weights = load_layer(setup.spec(), 0, setup.source(), backend);
  double largest = 0;
  for (const Site& site : sites(setup.spec(), weights)) {
    const double square = static_cast<double>(site.channels) * static_cast<double>(site.channels);
    largest = std::max(largest, square);
    cost.bytes_of_layer += 8 * square * (solver.drift ? 2 : 1);
    cost.flops += observing * square * (solver.drift ? 3 : 1);
  }
  cost.flops *= static_cast<double>(setup.spec().layers);
  cost.bytes_of_layer += (8 + 8 + 4) * largest;
  return cost;
}

}  // namespace

QuantizationPlan plan_quantization(const QuantizeOptions& options, Backend& backend) {
  const Setup setup(options, backend, backend);
  const OutputPlan& output = setup.plan();
  QuantizationPlan plan;
  plan.format = output.format;
  plan.convention = output.encoding != nullptr ? output.encoding->convention() : "hf";
  plan.bits_per_weight = output.bits_per_weight;
  plan.bits_per_weight_total = output.bits_per_weight_total;
  plan.output_bytes = output.bytes;
  for (const std::string& name : setup.source().names()) {
    plan.source_bytes += static_cast<std::int64_t>(setup.source().tensor(name).byte_size());
  }
  plan.calibration_tokens = setup.windows().tokens();
  const SearchCost search = search_cost(setup, options, backend);
  plan.candidates = search.candidates;
  plan.notes = setup.notes();

  const Sizes sizes = sizes_of(setup);
  const auto search_tokens = static_cast<double>(setup.windows().search.size());
  const auto all_tokens = static_cast<double>(plan.calibration_tokens);
  const auto searched_tokens = static_cast<double>(search.tokens);
  const auto hidden = static_cast<double>(setup.spec().hidden);
  const double verified = setup.verifies() ? static_cast<double>(options.verify.tokens) : 0.0;

  const double states = 4 * hidden * all_tokens;
  const double searched =
      std::min(4 * hidden * static_cast<double>(search.tokens_at_once), 512.0 * (1 << 20));
  const StreamCost stream = stream_cost(setup, options.recipe, backend);
  const auto statistics_tokens = all_tokens - search_tokens;
  const double calibrating = states + 4 * hidden * search_tokens;
  const double searching = searched + 2 * 4 * sizes.largest_layer;
  const double writing = 2 * 4 * sizes.largest_layer * std::max(1.0, stream.states) +
                         stream.bytes_of_layer + 4 * hidden * statistics_tokens * stream.states;
  plan.peak_anon_bytes = static_cast<std::int64_t>(kBaseBytes + kLogitBytes +
                                                   std::max({calibrating, searching, writing}));
  plan.state_bytes =
      static_cast<std::int64_t>(2 * std::max(states * std::max(1.0, stream.states), searched));
  const double observed = options.recipe.needs_statistics() ? all_tokens : 0.0;
  plan.flops = 2 * sizes.block_weights *
                   (observed + searched_tokens + stream.passes * statistics_tokens +
                    3 * stream.trained_tokens) +
               stream.flops * statistics_tokens +
               2 * sizes.head_weights * (searched_tokens + search_tokens) +
               2 * 2 * (sizes.block_weights + sizes.head_weights) * verified;
  plan.seconds = plan.flops / measure_flops(backend);
  return plan;
}

}  // namespace nibble
