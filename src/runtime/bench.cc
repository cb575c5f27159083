#include "runtime/bench.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <random>
#include <utility>

#include "base/error.h"
#include "runtime/chosen_tokens.h"

namespace nibble {
namespace {

using Clock = std::chrono::steady_clock;

template <class Fn>
double seconds_of(const Fn& fn) {
  const auto start = Clock::now();
  fn();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

void require_sane(const ModelSpec& spec, const BenchOptions& options) {
  if (!spec.decoder) fail(ErrorKind::kUsage, "bench: {} is an encoder", spec.arch);
  if (options.prompt < 1 || options.generated < 0 || options.batch < 1 || options.context < 0 ||
      options.repetitions < 1) {
    fail(ErrorKind::kUsage, "bench: counts may not be negative, prompt and batch not zero");
  }
  // Only a table of positions ends; beyond what a rotary model was trained for, its speed can be
  // measured all the same.
  const std::int64_t most = std::max(options.prompt, options.context + options.generated);
  const std::int64_t limit = spec.learned_positions - spec.position_offset;
  if (spec.learned_positions > 0 && most > limit) {
    fail(ErrorKind::kUsage, "bench: {} tokens a sequence, the model takes {}", most, limit);
  }
}

std::vector<std::int32_t> random_ids(std::int64_t count, std::int64_t vocab) {
  std::mt19937 random(1);
  std::vector<std::int32_t> ids(static_cast<std::size_t>(count));
  for (auto& id : ids) {
    id = static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(vocab));
  }
  return ids;
}

// `rows` more tokens for every sequence.
void run_step(const Model& model, std::vector<KvCache>& caches, std::int64_t rows) {
  Batch batch;
  batch.ids = random_ids(rows * static_cast<std::int64_t>(caches.size()), model.spec().vocab);
  for (KvCache& cache : caches) batch.sequences.push_back({rows, cache.size(), &cache});
  model.likeliest_tokens(batch);
}

// So many steps of a token each. Where the backend works beside the host, a step takes the tokens
// that the one before chooses, and is issued while that one runs: as answers are made.
void decode(const Model& model, std::vector<KvCache>& caches, std::int64_t steps,
            ChosenTokens& tokens) {
  const bool beside = model.runs_beside_host();
  const std::vector<TokenChoice> likeliest(caches.size());
  std::vector<std::int32_t> ids = random_ids(std::ssize(caches), model.spec().vocab);
  for (std::int64_t i = 0; i < steps; ++i) {
    Batch batch;
    batch.ids = ids;
    for (KvCache& cache : caches) batch.sequences.push_back({1, cache.size(), &cache});
    tokens.issue(batch, likeliest);
    if (!beside || i > 0) tokens.receive();
    for (std::size_t k = 0; beside && k < ids.size(); ++k) ids[k] = -1 - static_cast<int>(k);
  }
  if (tokens.under_way() > 0) tokens.receive();
}

std::vector<KvCache> make_caches(const Model& model, const BenchOptions& options,
                                 std::int64_t capacity) {
  std::vector<KvCache> caches;
  for (std::int64_t i = 0; i < options.batch; ++i) {
    caches.emplace_back(model.spec(), capacity, options.kv_type, model.backend().memory());
  }
  return caches;
}

double prefill_seconds(const Model& model, const BenchOptions& options) {
  std::vector<KvCache> caches = make_caches(model, options, options.prompt);
  double best = std::numeric_limits<double>::infinity();
  for (std::int64_t r = 0; r < options.repetitions; ++r) {
    for (KvCache& cache : caches) cache.truncate(0);
    best = std::min(best, seconds_of([&] { run_step(model, caches, options.prompt); }));
  }
  return best;
}

// Appends `count` tokens of random keys and values.
void fill(const Model& model, KvCache& cache, std::int64_t count) {
  constexpr std::int64_t kRows = 256;  // written again and again
  const AttentionSpec& spec = model.spec().attention;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  Tensor values = Tensor::allocate(DType::kF32, {kRows, spec.kv_heads, spec.head_dim});
  for (std::int64_t i = 0; i < values.elements(); ++i) {
    values.mutable_data<float>()[i] = normal(random);
  }
  Tensor x = model.backend().memory().upload(values);
  KvWriteArgs args;
  args.k = {x.mutable_data<float>(), spec.kv_heads * spec.head_dim, spec.head_dim};
  args.v = {args.k.data, args.k.row_stride, args.k.head_stride};
  args.heads = spec.kv_heads;
  args.head_dim = spec.head_dim;
  args.type = cache.format().type;
  for (std::int64_t layer = 0; layer < model.spec().layers; ++layer) {
    for (std::int64_t at = 0; at < count; at += kRows) {
      const KvWriteSequence sequence = {0, std::min(kRows, count - at),
                                        from_row(cache.k(layer), cache.size() + at),
                                        from_row(cache.v(layer), cache.size() + at)};
      args.sequences = {&sequence, 1};
      model.backend().run(args);
    }
  }
  cache.advance(count);
}

double decode_seconds(const Model& model, const BenchOptions& options) {
  std::vector<KvCache> caches = make_caches(model, options, options.context + options.generated);
  for (KvCache& cache : caches) fill(model, cache, options.context);
  ChosenTokens tokens(model, options.batch);
  double best = std::numeric_limits<double>::infinity();
  for (std::int64_t r = 0; r < options.repetitions; ++r) {
    for (KvCache& cache : caches) cache.truncate(options.context);
    best = std::min(best, seconds_of([&] { decode(model, caches, options.generated, tokens); }));
  }
  return best;
}

void add(const Linear& linear, double share, StepCost& cost) {
  const QuantTensor& weight = linear.weight.canonical;
  cost.weight_bytes += share * static_cast<double>(weight.byte_size());
  cost.weight_flops += share * 2 * static_cast<double>(weight.rows * weight.cols);
}

// Multiply-adds of scores and weighted values, as flops, for one token that sees `keys` keys.
double attention_flops(const ModelSpec& spec, double keys) {
  const AttentionSpec& attention = spec.attention;
  return 4 * static_cast<double>(spec.layers * attention.heads * attention.head_dim) * keys;
}

// Keys and values that one token of a decode step reads, on average over the step.
double kv_bytes(const ModelSpec& spec, const BenchOptions& options) {
  const double keys =
      static_cast<double>(options.context) + static_cast<double>(options.generated + 1) / 2;
  const AttentionSpec& attention = spec.attention;
  return 2 * static_cast<double>(spec.layers * attention.kv_heads) * keys *
         static_cast<double>(kv_row_bytes(options.kv_type.type, attention.head_dim));
}

// Of the linear layers: the first stands for all.
Arithmetic prefill_arithmetic(const Model& model, const BenchOptions& options) {
  LayerWeights layer = model.layers().front();
  const Linear& linear = *layer.linears().front();
  LinearArgs args;
  args.m = options.batch * options.prompt;
  args.w = &linear.weight;
  args.activations = linear.activations.get();
  return model.backend().arithmetic_of(args);
}

}  // namespace

StepCost step_cost(const Model& model) {
  StepCost cost;
  const MlpSpec& mlp = model.spec().mlp;
  for (LayerWeights layer : model.layers()) {  // a copy: linears() hands out mutable pointers
    std::vector<MlpWeights> experts = std::exchange(layer.experts, {});
    for (const Linear* linear : layer.linears()) add(*linear, 1, cost);
    if (layer.router.exists()) add(layer.router, 1, cost);
    for (const MlpWeights& expert : experts) {
      const double share = static_cast<double>(mlp.top_k) / static_cast<double>(mlp.experts);
      for (const Linear* linear : {&expert.gate, &expert.up, &expert.gate_up, &expert.down}) {
        if (linear->exists()) add(*linear, share, cost);
      }
    }
  }
  const HeadWeights& head = model.head_weights();
  if (head.project_out.exists()) add(head.project_out, 1, cost);
  add(head.head, 1, cost);
  return cost;
}

Room bench_room(const ModelSpec& spec, const BenchOptions& options) {
  require_sane(spec, options);
  const std::int64_t tokens = std::max(options.prompt, options.context + options.generated);
  Room room;
  room.cache = static_cast<std::size_t>(element_count(  // checks the product
      {options.batch, KvPool::block_bytes(spec, tokens, options.kv_type)}));
  room.workspace = workspace_bytes(spec, options.batch * options.prompt, options.batch);
  return room;
}

BenchResult bench(const Model& model, const BenchOptions& options, const ProgressSink& progress) {
  const ModelSpec& spec = model.spec();
  require_sane(spec, options);
  BenchResult result;
  result.cost = step_cost(model);
  const auto batch = static_cast<double>(options.batch);
  const auto prompt = static_cast<double>(options.prompt);

  nibble::progress(progress, "prefill", 0, 2);
  const double prefill = prefill_seconds(model, options);
  result.pp_tokens_per_second = batch * prompt / prefill;
  result.arithmetic = prefill_arithmetic(model, options);
  if (options.operations_per_second != nullptr) {
    result.operations_per_second = options.operations_per_second(result.arithmetic);
  }
  const double limit = result.operations_per_second;
  if (limit > 0) {
    const double head_flops = 2 * static_cast<double>(spec.vocab * spec.hidden);
    const double flops = batch * (prompt * (result.cost.weight_flops - head_flops +
                                            attention_flops(spec, (prompt + 1) / 2)) +
                                  head_flops);
    result.arithmetic_fraction = flops / prefill / limit;
  }
  nibble::progress(progress, "decode", 1, 2);
  if (options.generated > 0) {
    const double decode = decode_seconds(model, options);
    const auto steps = static_cast<double>(options.generated);
    result.tg_tokens_per_second = batch * steps / decode;
    result.kv_bytes = batch * kv_bytes(spec, options);
    if (options.bytes_per_second > 0) {
      const double bytes = result.cost.weight_bytes + result.kv_bytes;
      result.bandwidth_fraction = steps * bytes / decode / options.bytes_per_second;
    }
  }
  nibble::progress(progress, "decode", 2, 2);
  return result;
}

}  // namespace nibble
