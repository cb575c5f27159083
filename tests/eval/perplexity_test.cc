#include "eval/perplexity.h"

#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/file.h"
#include "eval/text.h"
#include "formats/registry.h"
#include "runtime/session.h"
#include "support/exact_backend.h"
#include "support/modified_source.h"
#include "support/test_data.h"

namespace nibble {
namespace {

std::filesystem::path golden(const char* name) {
  return test::source_dir() / "tests/golden/eval" / name;
}

// Between two float32 forward passes that sum in different orders.
constexpr double kFloat32Agreement = 2e-5;

class Evaluation : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    backend_ = test::exact_backend();
    session_ = open_session(test::tiny_novel(), *backend_);
    excerpt_ = read_text_ids(*session_.tokenizer, golden("excerpt.txt"));
    golden_ = read_json_file(golden("windows.json").string())["windows"];
  }
  static void TearDownTestSuite() {
    session_ = Session();
    backend_.reset();
  }
  static Model modified(const test::ModifiedSource::Change& change) {
    return {session_.model->spec(), test::ModifiedSource(*session_.checkpoint, change), *backend_};
  }

  static inline std::unique_ptr<Backend> backend_;
  static inline Session session_;
  static inline std::vector<std::int32_t> excerpt_;
  static inline Json golden_;
};

TEST_F(Evaluation, PerplexityMatchesTransformers) {
  ASSERT_EQ(static_cast<std::int64_t>(excerpt_.size()), golden_["tokens"].get<std::int64_t>());
  for (const auto& [name, protocol] : {std::pair{"windows", WindowProtocol::kWindows},
                                       std::pair{"llama.cpp", WindowProtocol::kLlamaCpp}}) {
    for (const auto& [context, expected] : golden_[name].items()) {
      WindowOptions options;
      options.context = std::stoll(context);
      options.protocol = protocol;
      options.bos = session_.tokenizer->bos().value();
      const PerplexityResult result = perplexity(*session_.model, excerpt_, options);
      EXPECT_EQ(result.predicted, expected["predicted"].get<std::int64_t>()) << name << context;
      EXPECT_NEAR(result.perplexity / expected["perplexity"].get<double>(), 1, kFloat32Agreement)
          << name << context;
      EXPECT_NEAR(result.stderr_nll / expected["stderr_nll"].get<double>(), 1,
                  10 * kFloat32Agreement)
          << name << context;
      EXPECT_EQ(result.nan, 0);
    }
  }
}

TEST_F(Evaluation, DivergenceMatchesTransformers) {
  const Json& expected = golden_["divergence"];
  const Model model = modified(test::scaled(expected["scale"].get<float>()));
  WindowOptions options;
  options.context = expected["context"].get<std::int64_t>();
  const DivergenceResult result = divergence(model, *session_.model, excerpt_, options);
  // A divergence is a difference of log-probabilities, so rounding weighs more than in perplexity.
  EXPECT_NEAR(result.mean_kl / expected["mean_kl"].get<double>(), 1, 1e-3);
  EXPECT_NEAR(result.p99_kl / expected["p99_kl"].get<double>(), 1, 1e-3);
  EXPECT_NEAR(result.max_kl / expected["max_kl"].get<double>(), 1, 1e-3);
  const double one_position = 1.0 / expected["positions"].get<double>();
  EXPECT_NEAR(result.top1_agreement, expected["top1_agreement"].get<double>(), 2 * one_position);
  EXPECT_NEAR(result.reference.perplexity / golden_["windows"]["256"]["perplexity"].get<double>(),
              1, kFloat32Agreement);
  EXPECT_GT(result.model.perplexity, 0);
}

TEST_F(Evaluation, AModelDoesNotDivergeFromItself) {
  const DivergenceResult result =
      divergence(*session_.model, *session_.model, excerpt_, {.context = 64, .max_tokens = 640});
  EXPECT_EQ(result.max_kl, 0);
  EXPECT_EQ(result.top1_agreement, 1);
  EXPECT_EQ(result.model.perplexity, result.reference.perplexity);
}

TEST_F(Evaluation, NanIsCountedNotHidden) {
  const Model model = modified([](const std::string& module, std::vector<float> weight,
                                  std::int64_t rows, std::int64_t cols) {
    if (module.ends_with("0.mlp.down_proj")) weight[0] = std::numeric_limits<float>::quiet_NaN();
    return dense(from_float(weight.data(), DType::kF32, {rows, cols}));
  });
  const WindowOptions options = {.context = 64, .max_tokens = 128};
  const PerplexityResult result = perplexity(model, excerpt_, options);
  EXPECT_EQ(result.nan, 2 * 63);
  EXPECT_EQ(result.predicted, 0);
  EXPECT_TRUE(std::isnan(result.perplexity));
  const DivergenceResult pair = divergence(model, *session_.model, excerpt_, options);
  EXPECT_EQ(pair.model.nan, 2 * 63);
  EXPECT_EQ(pair.reference.nan, 0);
  EXPECT_TRUE(std::isnan(pair.mean_kl));
}

TEST_F(Evaluation, ProgressEndsAtTheTotal) {
  std::int64_t last = 0;
  std::int64_t total = -1;
  perplexity(*session_.model, excerpt_, {.context = 64, .max_tokens = 640},
             [&](const std::string&, std::int64_t done, std::int64_t all) {
               EXPECT_GT(done, last);
               last = done;
               total = all;
             });
  EXPECT_EQ(last, total);
  EXPECT_EQ(total, 10);
}

TEST_F(Evaluation, TextThatIsNotUtf8IsAUsageError) {
  test::TempDir dir;
  write_file_atomic(dir / "text.txt", "caf\xe9");
  EXPECT_ERROR(read_text_ids(*session_.tokenizer, dir / "text.txt"), ErrorKind::kUsage, "UTF-8");
  EXPECT_ERROR(read_text_ids(*session_.tokenizer, dir / "none.txt"), ErrorKind::kCorrupt,
               "none.txt");
}

// The beginning of the held-out text, as it is and with round-to-nearest weights.
TEST_F(Evaluation, HeldOutTextMatchesTransformers) {
  NIBBLE_NEEDS_DATA("text/eval/novels_heldout.txt");
  const Json expected = read_json_file(golden("heldout.json").string())["heldout"];
  const FormatPtr format = parse_weight_format("int4_g128_asym_sf32");
  const Model model =
      modified([&](const std::string&, std::vector<float> weight, std::int64_t rows,
                   std::int64_t cols) { return format->encode(weight.data(), rows, cols); });
  const auto ids =
      read_text_ids(*session_.tokenizer, test::data_dir() / "text/eval/novels_heldout.txt");
  EXPECT_EQ(ids.size(), 535571u);
  WindowOptions options;
  options.context = expected["context"].get<std::int64_t>();
  options.max_tokens = expected["tokens"].get<std::int64_t>();
  const DivergenceResult result = divergence(model, *session_.model, ids, options);
  EXPECT_NEAR(result.reference.perplexity / expected["perplexity"].get<double>(), 1,
              kFloat32Agreement);
  // A code on the border between two values may fall on either side.
  const Json& quantized = expected["rtn_w4g128"];
  EXPECT_NEAR(result.model.perplexity / quantized["perplexity"].get<double>(), 1, 1e-3);
  EXPECT_NEAR(result.mean_kl / quantized["mean_kl"].get<double>(), 1, 1e-2);
  EXPECT_NEAR(result.p99_kl / quantized["p99_kl"].get<double>(), 1, 2e-2);
  EXPECT_NEAR(result.top1_agreement, quantized["top1_agreement"].get<double>(), 2e-3);
}

}  // namespace
}  // namespace nibble
