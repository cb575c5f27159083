#include "study/compare.h"

#include <cmath>

#include "base/error.h"
#include "base/file.h"
#include "study/compare_report.h"
#include "study/pareto.h"
#include "support/exact_backend.h"
#include "support/test_data.h"

namespace nibble {
namespace {

using testing::HasSubstr;

class CompareTest : public testing::Test {
 protected:
  CompareTest() : backend_(test::exact_backend(2)) {
    options_.source = test::tiny_novel();
    options_.recipes = {load_recipe("clip"), load_recipe("rtn")};
    options_.formats = {"w4a16_g128", "nf4"};
    options_.calibration = {512, 256, 128};
    options_.text = test::source_dir() / "data/verify.txt";
    options_.tokens = 512;
    options_.context = 256;
    options_.work = folder_ / "work";
    options_.log = [this](LogLevel level, const std::string& line) {
      if (level == LogLevel::kWarning) warnings_.push_back(line);
    };
    options_.progress = [this](const std::string& step, std::int64_t, std::int64_t) {
      steps_.push_back(step);
    };
  }

  std::vector<CompareRow> run() {
    steps_.clear();
    warnings_.clear();
    return compare_recipes(options_, {folder_ / "cache", options_.log},
                           {*backend_, *backend_, *backend_});
  }

  test::TempDir folder_;
  std::unique_ptr<Backend> backend_;
  CompareOptions options_;
  std::vector<std::string> warnings_, steps_;
};

TEST_F(CompareTest, RowsAreWhatQuantizeAndItsVerificationSay) {
  options_.recipes = {load_recipe("rtn")};
  options_.formats = {"w4a16_g128"};
  const auto rows = run();
  ASSERT_EQ(rows.size(), 2u);
  QuantizeOptions options;
  options.source = options_.source;
  options.output = folder_ / "by_hand";
  options.recipe = options_.recipes[0];
  options.format = parse_model_format("w4a16_g128");
  options.verify.text = options_.text;
  options.verify.tokens = options_.tokens;
  options.verify.context = options_.context;
  const QuantizeReport report = quantize(options, *backend_);
  EXPECT_EQ(rows[1].recipe, "rtn");
  EXPECT_EQ(rows[1].stored, report.format);
  EXPECT_EQ(rows[1].bits_per_weight, report.bits_per_weight);
  EXPECT_EQ(rows[1].bytes, static_cast<double>(report.output_bytes));
  EXPECT_DOUBLE_EQ(rows[1].perplexity, report.verify->perplexity);
  EXPECT_DOUBLE_EQ(rows[1].mean_kl, report.verify->mean_kl);
  EXPECT_DOUBLE_EQ(rows[1].p99_kl, report.verify->p99_kl);
  EXPECT_DOUBLE_EQ(rows[0].perplexity, report.verify->perplexity_reference);
  EXPECT_EQ(rows[0].mean_kl, 0);
  EXPECT_EQ(rows[0].bits_per_weight, 16);
  EXPECT_GT(rows[1].tokens_per_second, 0);
  EXPECT_TRUE(std::filesystem::is_empty(options_.work));
}

TEST_F(CompareTest, ASecondRunComputesNothingAndSaysTheSame) {
  const auto first = run();
  EXPECT_FALSE(steps_.empty());
  const auto second = run();
  EXPECT_TRUE(steps_.empty()) << steps_.front();
  EXPECT_EQ(compare_table(first), compare_table(second));
  // A recipe that cannot make a format is left out aloud.
  const bool clip_makes_nf4 = std::ranges::any_of(
      first, [](const CompareRow& row) { return row.recipe == "clip" && row.format == "nf4"; });
  EXPECT_EQ(first.size(), clip_makes_nf4 ? 5u : 4u);
  if (!clip_makes_nf4) {
    EXPECT_THAT(warnings_, testing::Contains(HasSubstr("left out: clip in nf4")));
  }
}

TEST_F(CompareTest, EveryRowIsSaidBeforeTheNextIsBegun) {
  options_.recipes = {load_recipe("rtn")};
  std::string order;  // rows said, and comparisons ended
  options_.log = [&](LogLevel level, const std::string& line) {
    if (level == LogLevel::kInfo && line.find("mean KL") != std::string::npos) {
      order += line.substr(0, line.find(':')) + "; ";
    }
  };
  options_.progress = [&](const std::string& step, std::int64_t done, std::int64_t) {
    if (step == "divergence" && done == 2) order += "compared; ";
  };
  run();
  EXPECT_EQ(order, "as it is; compared; rtn in w4a16_g128; compared; rtn in nf4; ");
  order.clear();
  run();  // kept rows too
  EXPECT_EQ(order, "as it is; rtn in w4a16_g128; rtn in nf4; ");
}

class Interrupt : public std::exception {};

TEST_F(CompareTest, GoesOnWhereItWasInterrupted) {
  options_.recipes = {load_recipe("rtn")};
  options_.formats = {"w4a16_g128"};
  options_.progress = [](const std::string& step, std::int64_t, std::int64_t) {
    if (step == "divergence") throw Interrupt();
  };
  EXPECT_THROW(run(), Interrupt);
  EXPECT_FALSE(std::filesystem::is_empty(options_.work));  // quantized, not looked at
  bool quantized_again = false;
  options_.progress = [&](const std::string& step, std::int64_t, std::int64_t) {
    quantized_again = quantized_again || step != "divergence";
  };
  const auto resumed = run();
  EXPECT_FALSE(quantized_again);
  EXPECT_GT(resumed[1].seconds, 0);
  EXPECT_TRUE(std::filesystem::is_empty(options_.work));
}

TEST_F(CompareTest, OtherTextIsEvaluatedAnew) {
  options_.recipes = {load_recipe("rtn")};
  options_.formats = {"w4a16_g128"};
  const auto rows = run();
  options_.tokens = 256;
  const auto shorter = run();
  EXPECT_FALSE(steps_.empty());
  EXPECT_NE(rows[1].mean_kl, shorter[1].mean_kl);
}

TEST_F(CompareTest, KeepsCheckpointsWhenAsked) {
  options_.recipes = {load_recipe("rtn")};
  options_.formats = {"w4a16_g128"};
  options_.keep = true;
  run();
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(options_.work), {}), 1);
}

TEST_F(CompareTest, RefusesTheCalibrationTextAsEvidence) {
  options_.calibration_files = {options_.text};
  EXPECT_ERROR(run(), ErrorKind::kUsage, "calibration text");
}

TEST_F(CompareTest, UnknownFormatsAreRefused) {
  options_.formats = {"w4a16_g129x"};
  EXPECT_ERROR(run(), ErrorKind::kUsage, "w4a16_g129x");
}

CompareRow row(const std::string& recipe, double bytes, double perplexity, double kl) {
  CompareRow result;
  result.recipe = recipe;
  result.format = "f";
  result.bytes = bytes;
  result.perplexity = perplexity;
  result.mean_kl = kl;
  return result;
}

TEST(CompareRows, TheFrontIsMarkedAndSaid) {
  std::vector<CompareRow> rows = {row("", 16e6, 10, 0), row("a", 3e6, 12, 0.4),
                                  row("b", 4e6, 10.5, 0.1), row("c", 4e6, 10.4, 0.2),
                                  row("d", 5e6, 10.05, 0.01)};
  mark_pareto(rows);
  std::vector<bool> marks;
  for (const CompareRow& r : rows) marks.push_back(r.pareto);
  EXPECT_EQ(marks, (std::vector<bool>{true, true, true, false, true}));
  const auto findings = compare_report(rows, "m", "").findings;
  ASSERT_EQ(findings.size(), 3u);
  EXPECT_THAT(findings[0], HasSubstr("3 of 4 combinations"));
  EXPECT_THAT(findings[1], HasSubstr("d in f with a mean KL of 0.01000 nats and +0.50 %"));
  EXPECT_THAT(findings[2], HasSubstr("d in f (+0.50 %): 5.00 MB instead of 16.00"));
}

TEST(Pareto, NansAndEqualsDoNotCount) {
  const double nan = std::nan("");
  const std::vector<std::pair<double, double>> points = {{2, 2},   {1, nan}, {2, 2},
                                                         {nan, 0}, {1, 3},   {3, 2}};
  EXPECT_EQ(pareto_front(points), (std::vector<std::size_t>{4, 0}));
}

}  // namespace
}  // namespace nibble
