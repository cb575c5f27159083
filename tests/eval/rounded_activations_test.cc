// What kernels that round activations cost on trained models, against those that do not: products
// of bytes for integer weights, of bf16 for bf16 weights and for attention over a cache of bf16.
#include <cmath>

#include "eval/perplexity.h"
#include "eval/text.h"
#include "formats/registry.h"
#include "runtime/session.h"
#include "support/exact_backend.h"
#include "support/modified_source.h"
#include "support/test_data.h"

namespace nibble {
namespace {

// The most that rounding may cost: mean KL in nats, and change of perplexity.
struct Limits {
  double kl;
  double perplexity;
};
// On text like the one that the models were trained on.
constexpr Limits kHeldOut = {5e-4, 5e-4};
// The bundled text is further from it, and the sample is small.
constexpr Limits kBundled = {1e-3, 2e-3};

// The model with such weights on both backends; keys and values of the rounding one are in a cache
// of bf16.
void check(const std::filesystem::path& path, const char* format_name,
           const std::filesystem::path& text, std::int64_t tokens, const Limits& limits) {
  const auto rounding = make_cpu_backend();
  const auto exact = test::exact_backend();
  const Session session = open_session(path, *exact);
  const FormatPtr format = parse_weight_format(format_name);
  const test::ModifiedSource source(
      *session.checkpoint,
      [&](const std::string&, std::vector<float> weight, std::int64_t rows, std::int64_t cols) {
        return format->encode(weight.data(), rows, cols);
      });
  const ModelSpec& spec = session.model->spec();
  const Model rounded(spec, source, *rounding);
  LayerWeights layer = rounded.layers().front();
  LinearArgs args;
  args.m = 64;
  args.w = &layer.linears().front()->weight;
  if (rounding->arithmetic_of(args) == Arithmetic::kFloat32) {
    GTEST_SKIP() << "nothing rounds here";
  }

  const auto ids = read_text_ids(*session.tokenizer, text);
  WindowOptions options;
  options.context = 1024;
  options.max_tokens = tokens;
  options.kv_type = KvType::kBF16;
  const DivergenceResult result = divergence(rounded, Model(spec, source, *exact), ids, options);
  EXPECT_GT(result.mean_kl, 0);
  EXPECT_LT(result.mean_kl, limits.kl) << format_name;
  const double change = result.model.perplexity / result.reference.perplexity - 1;
  EXPECT_LT(std::abs(change), limits.perplexity) << format_name;
  testing::Test::RecordProperty("mean_kl", std::to_string(result.mean_kl));
  testing::Test::RecordProperty("perplexity_change", std::to_string(change));
}

class RoundedActivations : public testing::TestWithParam<const char*> {};

TEST_P(RoundedActivations, OnBundledText) {
  check(test::tiny_novel(), GetParam(), test::source_dir() / "data/verify.txt", 16384, kBundled);
}

TEST_P(RoundedActivations, OnHeldOutText) {
  NIBBLE_NEEDS_DATA("text/eval/novels_heldout.txt");
  const auto text = test::data_dir() / "text/eval/novels_heldout.txt";
  check(test::tiny_novel(), GetParam(), text, 32768, kHeldOut);
}

TEST_P(RoundedActivations, OnHeldOutTextWithALargerModel) {
  NIBBLE_NEEDS_DATA("models/novel-28m/config.json");
  NIBBLE_NEEDS_DATA("text/eval/novels_heldout.txt");
  const auto text = test::data_dir() / "text/eval/novels_heldout.txt";
  check(test::data_dir() / "models/novel-28m", GetParam(), text, 8192, kHeldOut);
}

INSTANTIATE_TEST_SUITE_P(, RoundedActivations,
                         testing::Values("int4_g128_asym_sbf16", "int4_g32_sym_sbf16",
                                         "int8_channel_sym_sbf16", "bf16"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace nibble
