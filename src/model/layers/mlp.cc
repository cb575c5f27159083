#include "model/layers/mlp.h"

#include <algorithm>

namespace nibble {
namespace {

// `chain` makes x. `suffix` tells the sites of one expert from those of the others: "" or ".3".
void run_network(const LayerContext& context, OpChain& chain, const MlpWeights& weights,
                 const std::string& suffix, const float* x, std::int64_t rows, Output out) {
  const MlpSpec& spec = context.spec.mlp;
  const std::int64_t cols = weights.down.weight.canonical.cols;
  Rows buffer(context.backend, rows, spec.gated ? 2 * cols : cols);
  Rows activated(context.backend, rows, cols);
  ActivationArgs args;
  args.kind = spec.activation;
  args.limit = spec.limit;
  args.multiplier_offset = spec.up_offset;
  args.rows = rows;
  args.cols = cols;
  args.y = activated.data();
  args.y_stride = cols;
  args.x = buffer.data();
  args.x_stride = cols;
  if (spec.gated && !spec.concat_gate_up) {
    float* const up = buffer.data() + rows * cols;
    args.multiplier = up;
    args.multiplier_stride = cols;
    chain.add({{weights.gate, {buffer.data()}}, {weights.up, {up}}}, x, rows);
  } else {
    if (spec.concat_gate_up) {
      args.x_stride = args.multiplier_stride = 2 * cols;
      args.multiplier = buffer.data() + cols;
    }
    chain.add({{spec.concat_gate_up ? weights.gate_up : weights.up, {buffer.data()}}}, x, rows);
  }
  chain.add(args);
  mix_input(chain, weights.down, activated.data(), rows, context.backend);
  context.observe(chain, "mlp_down" + suffix, activated.data(), rows, cols);
  chain.add({{weights.down, out}}, activated.data(), rows);
  chain.run();
}

// Rows that were sent to one expert, with their weights.
struct Routed {
  std::vector<std::int32_t> rows;
  std::vector<float> weights;
};

std::vector<Routed> route(const LayerContext& context, const float* x, std::int64_t rows) {
  const MlpSpec& spec = context.spec.mlp;
  Rows logits(context.backend, rows, spec.experts);
  run_linear(context.weights.router, x, rows, {logits.data()}, context.backend);
  std::vector<std::int32_t> chosen(static_cast<std::size_t>(rows * spec.top_k));
  std::vector<float> weights(chosen.size());
  MoeRouteArgs args = route_args(spec, context.weights.choice_bias, logits.data(), rows);
  args.chosen = chosen.data();
  args.weights = weights.data();
  context.backend.run(args);

  std::vector<Routed> routed(static_cast<std::size_t>(spec.experts));
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    Routed& expert = routed[static_cast<std::size_t>(chosen[i])];
    expert.rows.push_back(static_cast<std::int32_t>(static_cast<std::int64_t>(i) / spec.top_k));
    expert.weights.push_back(weights[i]);
  }
  return routed;
}

void run_experts(const LayerContext& context, const float* x, std::int64_t rows, Output out) {
  const std::int64_t hidden = context.spec.hidden;
  OpChain chain(context.backend);
  const std::vector<Routed> routed = route(context, x, rows);
  // When out is x, no expert may add to it before the last one has read it.
  Rows apart(context.backend, out.accumulate ? rows : 0, hidden);
  float* const sum = out.accumulate ? apart.data() : out.data;
  if (context.weights.shared.down.exists()) {
    run_network(context, chain, context.weights.shared, ".shared", x, rows, {sum});
  } else {
    context.backend.memory().zero(sum, static_cast<std::size_t>(rows * hidden) * sizeof(float));
  }
  for (std::size_t e = 0; e < routed.size(); ++e) {
    const auto count = static_cast<std::int64_t>(routed[e].rows.size());
    if (count == 0) continue;
    Rows input(context.backend, count, hidden);
    Rows output(context.backend, count, hidden);
    GatherRowsArgs gather;
    gather.x = x;
    gather.index = routed[e].rows;
    gather.cols = hidden;
    gather.out = input.data();
    context.backend.run(gather);
    const std::string suffix = "." + std::to_string(e);
    context.observe(chain, "mlp_in" + suffix, input.data(), count, hidden);
    run_network(context, chain, context.weights.experts[e], suffix, input.data(), count,
                {output.data()});
    ScatterAddRowsArgs scatter;
    scatter.x = output.data();
    scatter.index = routed[e].rows;
    scatter.weights = routed[e].weights;
    scatter.cols = hidden;
    scatter.y = sum;
    context.backend.run(scatter);
  }
  if (out.accumulate) run_add(sum, rows * hidden, out.data, context.backend);
}

}  // namespace

MoeRouteArgs route_args(const MlpSpec& spec, std::span<const float> choice_bias,
                        const float* logits, std::int64_t rows) {
  MoeRouteArgs args;
  args.logits = logits;
  args.rows = rows;
  args.experts = spec.experts;
  args.top_k = spec.top_k;
  args.score = spec.score;
  args.renormalize = spec.renormalize;
  args.scale = spec.route_scale;
  args.choice_bias = choice_bias;
  args.groups = spec.groups;
  args.top_groups = spec.top_groups;
  return args;
}

void run_mlp(const LayerContext& context, OpChain& chain, const float* x, std::int64_t rows,
             Output out) {
  context.observe(chain, "mlp_in", x, rows, context.spec.hidden);
  if (context.weights.experts.empty()) {
    run_network(context, chain, context.weights.mlp, "", x, rows, out);
  } else {
    chain.run();
    run_experts(context, x, rows, out);
  }
}

}  // namespace nibble
