#include "study/scaling.h"

#include <cmath>

#include "base/error.h"
#include "checkpoint/checkpoint.h"
#include "model/arch.h"
#include "study/scaling_report.h"
#include "support/exact_backend.h"
#include "support/modified_source.h"
#include "support/test_data.h"

namespace nibble {
namespace {

using testing::HasSubstr;

class ScalingTest : public testing::Test {
 protected:
  ScalingTest()
      : checkpoint_(open_checkpoint(test::tiny_novel())),
        spec_(build_spec(checkpoint_->config())),
        golden_(read_json_file((test::source_dir() / "tests/golden/study/scaling.json").string())) {
  }

  ScalingModel model(const std::string& hash = "h") const {
    return {"tiny", spec_, *checkpoint_, hash, golden_["ids"].get<std::vector<std::int32_t>>(), 4};
  }
  ResultCache cache() const { return {folder_.path(), {}}; }

  std::vector<WeightRounding> golden_settings() const {
    std::vector<WeightRounding> settings;
    for (const Json& c : golden_["cases"]) {
      const std::vector<std::int64_t> blocks = {c["block"].get<std::int64_t>()};
      for (const auto& r : rounding_grid(std::vector{3, 4, 16}, kLowBitTypes, blocks)) {
        if (element_name(r) == c["element"]) settings.push_back(r);
      }
    }
    return settings;
  }

  std::vector<ScalingRow> run(std::span<const WeightRounding> settings,
                              const ScalingModel& of) const {
    const auto backend = test::exact_backend(2);
    return study_scaling(of, settings, {128, {}, {}}, cache(), *backend);
  }

  test::TempDir folder_;
  std::unique_ptr<Checkpoint> checkpoint_;
  ModelSpec spec_;
  Json golden_;
};

// transformers with weights that numpy rounded.
TEST_F(ScalingTest, AgreesWithTransformers) {
  const auto settings = golden_settings();
  ASSERT_EQ(settings.size(), golden_["cases"].size());
  const auto rows = run(settings, model());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Json& c = golden_["cases"][i];
    SCOPED_TRACE(c["element"].get<std::string>());
    // Sums of float32 in another order: 1e-4 of a nat is far below any rounding of weights.
    EXPECT_NEAR(std::log(rows[i].perplexity), c["nll"].get<double>(), 1e-4);
    EXPECT_NEAR(rows[i].stderr_nll, c["stderr"].get<double>(), 1e-4);
    EXPECT_NEAR(rows[i].mean_kl, c["kl"].get<double>(), 1e-4);
    EXPECT_NEAR(rows[i].top1_agreement, c["top1"].get<double>(), 0.004);  // one position of 254
    EXPECT_NEAR(rows[i].bits_per_byte, c["nll"].get<double>() / std::log(2) / 4, 1e-4);
  }
}

TEST_F(ScalingTest, SizesCountEverything) {
  const WeightRounding settings[] = {{DataType::kInt, 4, 0, 64}, {DataType::kSixteenBit, 16, 0, 0}};
  const auto rows = run(settings, model());
  EXPECT_DOUBLE_EQ(rows[0].bits_per_weight, 4.25);  // 64 divides every matrix
  EXPECT_DOUBLE_EQ(rows[1].bits_per_weight, 16);
  std::size_t bytes = 0;
  for (const std::string& name : checkpoint_->names()) {
    bytes += checkpoint_->tensor(name).byte_size();
  }
  EXPECT_DOUBLE_EQ(rows[1].total_bits, 8.0 * static_cast<double>(bytes));  // a bf16 checkpoint
}

class Interrupt : public std::exception {};

TEST_F(ScalingTest, ResumesToTheSameBytes) {
  std::vector<WeightRounding> settings;
  for (const std::int64_t block : {32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 0}) {
    settings.push_back({DataType::kInt, 3, 0, block});
  }
  const auto backend = test::exact_backend(1);
  int batches = 0;
  const ScalingOptions stops{128, {}, [&](const std::string&, std::int64_t, std::int64_t) {
                               if (++batches == 2) throw Interrupt();
                             }};
  const ScalingModel whole = model();
  EXPECT_THROW(study_scaling(whole, settings, stops, cache(), *backend), Interrupt);
  const auto stored = std::distance(std::filesystem::directory_iterator(folder_.path()), {});
  EXPECT_EQ(stored, 8);  // the first batch

  std::int64_t computed = -1;
  const ScalingOptions counts{
      128, {}, [&](const std::string&, std::int64_t, std::int64_t total) { computed = total; }};
  auto resumed = study_scaling(whole, settings, counts, cache(), *backend);
  EXPECT_EQ(computed, 2);
  const test::TempDir other;
  const auto two_threads = test::exact_backend(2);
  auto fresh = study_scaling(whole, settings, {128, {}, {}}, {other.path(), {}}, *two_threads);
  EXPECT_EQ(scaling_table(resumed), scaling_table(fresh));
  EXPECT_EQ(html_page(scaling_report(resumed, "")), html_page(scaling_report(fresh, "")));
}

TEST_F(ScalingTest, AnotherModelTextOrWindowIsComputedAnew) {
  const WeightRounding setting[] = {{DataType::kInt, 2, 0, 0}};
  const auto files = [&] {
    return std::distance(std::filesystem::directory_iterator(folder_.path()), {});
  };
  run(setting, model());
  run(setting, model());
  EXPECT_EQ(files(), 1);
  run(setting, model("another"));
  EXPECT_EQ(files(), 2);
  ScalingModel shorter = model();
  shorter.ids.resize(128);
  run(setting, shorter);
  EXPECT_EQ(files(), 3);
  const auto backend = test::exact_backend();
  study_scaling(model(), setting, {64, {}, {}}, cache(), *backend);
  EXPECT_EQ(files(), 4);
  const WeightRounding other_block[] = {{DataType::kInt, 2, 0, 64}};
  run(other_block, model());
  EXPECT_EQ(files(), 5);
}

TEST_F(ScalingTest, TheHashSeesEveryByte) {
  const std::string hash = hash_model(checkpoint_->config(), *checkpoint_);
  EXPECT_EQ(hash_model(checkpoint_->config(), *open_checkpoint(test::tiny_novel())), hash);
  Json config = checkpoint_->config();
  config["rope_theta"] = 1;
  EXPECT_NE(hash_model(config, *checkpoint_), hash);
}

TEST_F(ScalingTest, RefusesATextWithoutPredictions) {
  ScalingModel empty = model();
  empty.ids.resize(1);
  const WeightRounding setting[] = {{DataType::kInt, 4, 0, 64}};
  EXPECT_ERROR(run(setting, empty), ErrorKind::kUsage, "nothing to predict");
}

ScalingRow row(const std::string& model, WeightRounding rounding, double size, double perplexity,
               double kl) {
  ScalingRow result;
  result.model = model;
  result.rounding = rounding;
  result.total_bits = size;
  result.perplexity = perplexity;
  result.bits_per_byte = std::log2(perplexity);
  result.mean_kl = kl;
  return result;
}

TEST(ScalingRows, OfFloatsTheNearestIsShown) {
  std::vector<ScalingRow> rows = {row("a", {DataType::kFloat, 4, 1, 64}, 1, 9, 0.3),
                                  row("a", {DataType::kFloat, 4, 2, 64}, 1, 9, 0.1),
                                  row("a", {DataType::kFloat, 4, 3, 64}, 1, 9, 0.2),
                                  row("a", {DataType::kFloat, 4, 3, 32}, 1, 9, 0.2),
                                  row("a", {DataType::kInt, 4, 0, 64}, 1, 9, 0.5),
                                  row("b", {DataType::kFloat, 4, 1, 64}, 1, 9, std::nan(""))};
  choose_floats(rows);
  std::vector<bool> shown;
  for (const ScalingRow& r : rows) shown.push_back(r.shown);
  EXPECT_EQ(shown, (std::vector<bool>{false, true, false, true, true, true}));
}

TEST(ScalingRows, EnvelopeIsWhatNothingSmallerBeats) {
  const WeightRounding any{DataType::kInt, 4, 0, 64};
  const ScalingRow rows[] = {row("a", any, 4, 10, 0),           row("a", any, 2, 12, 0),
                             row("a", any, 3, 13, 0),           row("a", any, 5, 10, 0),
                             row("a", any, 1, std::nan(""), 0), row("a", any, 2, 11, 0)};
  EXPECT_EQ(lower_envelope(rows), (std::vector<std::size_t>{5, 0}));
}

// Two models: the large one in 4 bits is as large as the small one in 16, and better.
TEST(ScalingRows, BestWidthOfASize) {
  const WeightRounding four{DataType::kInt, 4, 0, 64}, whole{DataType::kSixteenBit, 16, 0, 0};
  const ScalingRow rows[] = {row("small", four, 1e6, 20, 0.1), row("small", whole, 4e6, 19, 0),
                             row("large", four, 4e6, 11, 0.1), row("large", whole, 16e6, 10, 0)};
  // Both curves cover one size only, 4e6 bits, where 4 bits win.
  const auto shares = best_widths(rows);
  ASSERT_LE(shares.size(), 1u);
  const ScalingRow close[] = {row("small", four, 1e6, 20, 0.1), row("small", whole, 2e6, 19, 0),
                              row("large", four, 4e6, 11, 0.1), row("large", whole, 8e6, 10, 0)};
  const auto overlapping = best_widths(close);
  ASSERT_EQ(overlapping.size(), 1u);
  EXPECT_EQ(overlapping[0].bits, 4);
  EXPECT_DOUBLE_EQ(overlapping[0].share, 1);
  EXPECT_THAT(scaling_report(close, "").findings[0], HasSubstr("have 4 bits over 100 %"));
}

TEST(ScalingRows, SentencesComeFromTheRows) {
  const ScalingRow rows[] = {row("m", {DataType::kInt, 4, 0, 64}, 8e6 * 2, 10.05, 0.02),
                             row("m", {DataType::kNormalFloat, 4, 0, 64}, 8e6 * 2, 10.04, 0.01),
                             row("m", {DataType::kInt, 4, 0, 1024}, 8e6, 12, 0.05),
                             row("m", {DataType::kInt, 5, 0, 1024}, 8e6 * 3, 10.01, 0.03),
                             row("m", {DataType::kSixteenBit, 16, 0, 0}, 8e6 * 8, 10, 0)};
  const auto findings = scaling_report(rows, "").findings;
  ASSERT_EQ(findings.size(), 3u);
  EXPECT_THAT(findings[0], HasSubstr("is int4 by 64 with 2.00 MB instead of 8.00"));
  EXPECT_THAT(findings[1], HasSubstr("nf (0.0100), then int (0.0200)"));
  EXPECT_THAT(findings[2], HasSubstr("from 0.0500 to 0.0200; one bit more takes it to 0.0300"));
}

TEST(ScalingRows, OneSizeOfBlockLeavesWidthsToSpeakOf) {
  const ScalingRow rows[] = {row("m", {DataType::kInt, 3, 0, 64}, 8e6, 12, 0.05),
                             row("m", {DataType::kInt, 4, 0, 64}, 8e6 * 2, 10.05, 0.02),
                             row("m", {DataType::kNormalFloat, 4, 0, 64}, 8e6 * 2, 10.04, 0.01),
                             row("m", {DataType::kSixteenBit, 16, 0, 0}, 8e6 * 8, 10, 0)};
  const auto findings = scaling_report(rows, "").findings;
  ASSERT_EQ(findings.size(), 3u);
  EXPECT_THAT(findings[2], HasSubstr("mean KL of 0.0500 at 3 bits, 0.0100 at 4 bits."));
}

TEST(ScalingRows, NothingIsStillAPage) {
  EXPECT_THAT(html_page(scaling_report({}, "")), HasSubstr("Scaling"));
}

}  // namespace
}  // namespace nibble
