#include "runtime/bench.h"

#include <cmath>

#include "base/error.h"
#include "runtime/execution.h"
#include "runtime/generate.h"
#include "runtime/session.h"
#include "runtime/synthetic.h"
#include "support/test_data.h"

namespace nibble {
namespace {

Model synthetic_model(const char* shape, const char* format, Backend& backend) {
  return load_synthetic_model(shape, backend, parse_model_format(format));
}

TEST(Synthetic, EveryMatrixHasTheFormatAskedFor) {
  const SyntheticSource source("small-llama",
                               parse_model_format("w=int4_g64_asym,e=int8_channel_sym"));
  int matrices = 0;
  for (const StoredTensor& tensor : synth_tensors(find_synth_shape("small-llama"))) {
    if (tensor.shape.size() != 2) {
      EXPECT_EQ(source.tensor(tensor.name).shape(), tensor.shape);
      continue;
    }
    const std::string module = tensor.name.substr(0, tensor.name.size() - 7);
    ASSERT_TRUE(source.has_linear(module));
    const QuantTensor weight = source.linear(module);
    validate(weight);
    EXPECT_EQ(weight.rows, tensor.shape[0]);
    EXPECT_EQ(weight.cols, tensor.shape[1]);
    const bool block = module.find(".layers.") != std::string::npos;
    EXPECT_TRUE(weight.format->name().starts_with(block ? "int4_g64_asym" : "int8_channel_sym"))
        << weight.format->name();
    // The last row decodes to values like those of the first: the band reaches the end.
    std::vector<float> row(static_cast<std::size_t>(weight.cols));
    weight.format->decode(weight, weight.rows - 1, 0, weight.cols, row.data());
    double squares = 0;
    for (const float v : row) squares += v * v;
    EXPECT_NEAR(std::sqrt(squares / static_cast<double>(weight.cols)), 0.02, 0.005) << module;
    ++matrices;
  }
  EXPECT_EQ(matrices, 2 + 4 * 7);
}

TEST(Synthetic, SaysWhatItTakesWithoutMakingIt) {
  const SyntheticSource source("small-llama",
                               parse_model_format("w=int4_g64_asym,e=int8_channel_sym"));
  std::size_t bytes = 0;
  for (const StoredTensor& tensor : synth_tensors(find_synth_shape("small-llama"))) {
    if (tensor.shape.size() != 2) {
      bytes += source.tensor(tensor.name).byte_size();
      continue;
    }
    const std::string module = tensor.name.substr(0, tensor.name.size() - 7);
    for (const Tensor& plane : source.linear(module).planes) bytes += plane.byte_size();
  }
  EXPECT_EQ(source.byte_size(), bytes);
}

TEST(Synthetic, ShapesAndFormatsThatDoNotFitAreErrors) {
  EXPECT_ERROR(SyntheticSource("tinyllama", {}), ErrorKind::kUsage, "tinyllama-1.1b");
  EXPECT_ERROR(SyntheticSource("tiny-llama", parse_model_format("w=int4_g128_asym")),
               ErrorKind::kUnsupported, "128");
  const SyntheticSource source("tiny-llama", {});
  EXPECT_ERROR(source.tensor("none"), ErrorKind::kCorrupt, "none");
  EXPECT_ERROR(source.linear("none"), ErrorKind::kCorrupt, "none");
}

TEST(Synthetic, TheModelRuns) {
  const auto backend = make_cpu_backend();
  const Model model = synthetic_model("tiny-llama", "w=int4_g16_asym", *backend);
  const Tensor logits = model.logits(Batch::single({1, 2, 3}));
  EXPECT_EQ(logits.shape(), (Shape{3, 512}));
  for (std::int64_t i = 0; i < logits.elements(); ++i) {
    ASSERT_TRUE(std::isfinite(logits.data<float>()[i]));
  }
}

TEST(Synthetic, ASessionHasATokenizerAndGenerates) {
  const auto backend = make_cpu_backend();
  const Session session = open_synthetic_session(
      "tiny-llama", *backend, KvType::kInt8, parse_model_format("w=int4_g16_asym,a=int8_token"));
  EXPECT_EQ(session.kv_type, KvFormat{KvType::kInt8});
  EXPECT_EQ(executed_parts(*session.model).back().part, "activations");
  const Tokenizer& tokenizer = session.require_tokenizer();
  const std::string text = "any text, é";
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
  GenerateOptions options;
  options.max_new_tokens = 4;
  EXPECT_EQ(generate(session, tokenizer.encode(text), options).ids.size(), 4u);
  EXPECT_ERROR(open_synthetic_session("none", *backend, std::nullopt, {}), ErrorKind::kUsage,
               "none");
}

TEST(Synthetic, TheHostIsNotAskedForRoom) {
  const auto backend = make_cpu_backend();
  const RoomRule never = [](const ModelSpec&, const KvFormat&) -> Room {
    ADD_FAILURE() << "asked for room";
    return {};
  };
  open_synthetic_session("tiny-llama", *backend, std::nullopt, {}, never);
  open_session(test::tiny_novel(), *backend, std::nullopt, {}, never);
}

TEST(Bench, RoomIsThatOfSaneCounts) {
  const SyntheticSource source("tiny-llama", {});
  BenchOptions options;
  options.prompt = 4;
  options.generated = 2;
  const Room one = bench_room(source.spec(), options);
  options.batch = 3;
  EXPECT_EQ(bench_room(source.spec(), options).cache, 3 * one.cache);
  options.batch = 0;
  EXPECT_ERROR(bench_room(source.spec(), options), ErrorKind::kUsage, "prompt and batch not zero");
  options.batch = std::int64_t{1} << 60;
  EXPECT_ERROR(bench_room(source.spec(), options), ErrorKind::kCorrupt, "no representable number");
}

// Sizes counted by hand: a layer of tiny-llama has q, o [64, 64], k, v [32, 64], gate, up [176, 64]
// and down [64, 176]; the head is [512, 64].
TEST(Bench, CostOfAStep) {
  const auto backend = make_cpu_backend();
  const double block = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 176 * 64);
  const double head = 512 * 64;
  const StepCost plain = step_cost(synthetic_model("tiny-llama", "bf16", *backend));
  EXPECT_EQ(plain.weight_flops, 2 * (block + head));
  EXPECT_EQ(plain.weight_bytes, 2 * (block + head));
  // 4 bits, and for each 16 weights a 16-bit scale and an 8-bit zero point.
  const StepCost packed = step_cost(synthetic_model("tiny-llama", "w=int4_g16_asym", *backend));
  EXPECT_EQ(packed.weight_flops, plain.weight_flops);
  EXPECT_EQ(packed.weight_bytes, block * (4 + 24.0 / 16) / 8 + 2 * head);
}

TEST(Bench, MixturesReadTheExpertsOfOneToken) {
  NIBBLE_NEEDS_DATA("oracles/mixtral");
  const auto backend = make_cpu_backend();
  const Session session = open_session(test::data_dir() / "oracles/mixtral", *backend);
  const ModelSpec& spec = session.model->spec();
  const auto params = [&](std::int64_t experts) {
    const std::int64_t kv = spec.attention.kv_heads * spec.attention.head_dim;
    const std::int64_t q = spec.attention.heads * spec.attention.head_dim;
    const std::int64_t layer = spec.hidden * (2 * q + 2 * kv + spec.mlp.experts) +
                               experts * 3 * spec.hidden * spec.mlp.intermediate;
    return static_cast<double>(spec.layers * layer + spec.vocab * spec.hidden);
  };
  ASSERT_LT(spec.mlp.top_k, spec.mlp.experts);
  EXPECT_DOUBLE_EQ(step_cost(*session.model).weight_flops, 2 * params(spec.mlp.top_k));
}

TEST(Bench, MeasuresBothPhasesAgainstTheLimits) {
  const auto backend = make_cpu_backend();
  const Model model = synthetic_model("tiny-llama", "w=int4_g16_asym", *backend);
  BenchOptions options;
  options.prompt = 16;
  options.generated = 4;
  options.batch = 2;
  options.context = 5;
  const BenchResult unknown = bench(model, options);
  EXPECT_GT(unknown.pp_tokens_per_second, 0);
  EXPECT_GT(unknown.tg_tokens_per_second, 0);
  EXPECT_EQ(unknown.bandwidth_fraction, 0);
  EXPECT_EQ(unknown.arithmetic_fraction, 0);

  options.bytes_per_second = 1e9;
  options.operations_per_second = [](Arithmetic) { return 1e9; };
  const BenchResult known = bench(model, options);
  // 2 layers, K and V of 2 heads of 16, BF16: 256 bytes a key; on average 5 + 2.5 keys, 2
  // sequences.
  const double step_bytes = known.cost.weight_bytes + 2 * 7.5 * 256;
  EXPECT_DOUBLE_EQ(known.bandwidth_fraction, known.tg_tokens_per_second / 2 * step_bytes / 1e9);
  // Each of 2 x 16 tokens: the blocks, and 4 x 2 layers x 64 x 8.5 keys; the head twice.
  const double head = 2.0 * 512 * 64;
  const double flops = 32 * (known.cost.weight_flops - head + 4.0 * 2 * 64 * 8.5) + 2 * head;
  EXPECT_NEAR(known.arithmetic_fraction / (known.pp_tokens_per_second / 32 * flops / 1e9), 1,
              1e-12);
}

// tiny-llama was made for 256 positions; rotary embeddings go on.
TEST(Bench, ContextsBeyondTheTrainedLengthAndEveryTypeOfCache) {
  const auto backend = make_cpu_backend();
  const Model model = synthetic_model("tiny-llama", "bf16", *backend);
  ASSERT_EQ(model.spec().max_positions, 256);
  for (const KvType type : kKvTypes) {
    BenchOptions options;
    options.prompt = 1;
    options.generated = 1;
    options.context = 700;
    options.repetitions = 1;
    options.kv_type = type;
    const BenchResult result = bench(model, options);
    EXPECT_GT(result.tg_tokens_per_second, 0);
    EXPECT_EQ(result.kv_bytes, 701.0 * 2 * 2 * 2 * static_cast<double>(kv_row_bytes(type, 16)));
  }
}

TEST(Bench, OptionsOutsideTheirRangeAreUsageErrors) {
  const auto backend = make_cpu_backend();
  const Model model = synthetic_model("tiny-llama", "bf16", *backend);
  const auto reject = [&](void (*change)(BenchOptions&)) {
    BenchOptions options;
    options.prompt = 1;
    options.generated = 1;
    change(options);
    EXPECT_ERROR(bench(model, options), ErrorKind::kUsage, "bench");
  };
  reject([](BenchOptions& o) { o.prompt = 0; });
  reject([](BenchOptions& o) { o.generated = -1; });
  reject([](BenchOptions& o) { o.batch = 0; });
  reject([](BenchOptions& o) { o.context = -1; });
  reject([](BenchOptions& o) { o.repetitions = 0; });
}

}  // namespace
}  // namespace nibble
