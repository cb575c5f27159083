#include "runtime/sampler.h"

#include <cmath>
#include <limits>
#include <map>

#include "base/error.h"
#include "base/json.h"
#include "support/test_data.h"
#include "support/tolerance.h"

namespace nibble {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
using Row = std::vector<float>;

SamplingOptions options_of(const Json& json) {
  SamplingOptions options;
  options.temperature = json.value("temperature", 1.0f);
  options.top_k = json.value("top_k", std::int64_t{0});
  options.top_p = json.value("top_p", 1.0f);
  options.min_p = json.value("min_p", 0.0f);
  options.typical_p = json.value("typical_p", 1.0f);
  options.repetition_penalty = json.value("repetition_penalty", 1.0f);
  for (const Json& bias : json.value("sequence_bias", Json::array())) {  // sequences of one token
    options.logit_bias.emplace_back(bias[0][0].get<std::int32_t>(), bias[1].get<float>());
  }
  return options;
}

TEST(Sampler, FiltersMatchTransformers) {
  const Json golden =
      read_json_file((test::source_dir() / "tests/golden/runtime/sampling.json").string());
  ASSERT_GE(golden["rows"].size(), 40u);
  for (const Json& row : golden["rows"]) {
    const std::string what = row["options"].dump();
    Row logits = row["logits"].get<Row>();
    apply_filters(options_of(row["options"]), row["context"].get<std::vector<std::int32_t>>(),
                  logits);
    for (std::size_t i = 0; i < logits.size(); ++i) {
      const Json& expected = row["expected"][i];
      ASSERT_EQ(std::isinf(logits[i]), expected.is_null()) << what << " token " << i;
      if (expected.is_null()) continue;
      // Two float32 roundings: the penalty and the temperature.
      const float value = expected.get<float>();
      EXPECT_NEAR(logits[i], value, 2 * test::unit_roundoff(DType::kF32) * std::abs(value)) << what;
    }
  }
}

TEST(Sampler, PenaltyTouchesEachTokenOnce) {
  Row logits = {2, -2, 3, 0};
  const std::vector<std::int32_t> context = {0, 1, 0, 0, 3};
  apply_repetition_penalty(logits, context, 2);
  EXPECT_EQ(logits, (Row{1, -4, 3, 0}));
}

TEST(Sampler, CountPenaltiesFollowTheirFormula) {
  // mu[j] - c[j] * frequency - (c[j] > 0) * presence, worked by hand.
  Row logits = {2, -2, 3, 0};
  apply_count_penalties(logits, {{0, 3}, {1, 1}}, 0.5f, 0.25f);
  EXPECT_EQ(logits, (Row{0.25f, -2.75f, 3, 0}));
}

TEST(Sampler, CountPenaltiesSeeTheAnswerAndNotThePrompt) {
  SamplingOptions options;
  options.presence_penalty = 1;
  options.frequency_penalty = 0.25f;
  Sampler sampler(options);
  const Row logits = {2, 1.5f, 0, 0};
  const std::vector<std::int32_t> prompt = {0, 0, 0};
  EXPECT_EQ(sampler.sample(logits, prompt), 0);  // 2 although the prompt is full of it
  EXPECT_EQ(sampler.sample(logits, prompt), 1);  // 0.75 against 1.5
  EXPECT_EQ(sampler.sample(logits, prompt), 0);  // 0.75 against 0.25
  EXPECT_EQ(sampler.sample(logits, prompt), 0);  // 0.5 against 0.25
  EXPECT_EQ(sampler.sample(logits, prompt), 0);  // 0.25 against 0.25: the lower id
  EXPECT_EQ(sampler.sample(logits, prompt), 1);  // 0 against 0.25
}

TEST(Sampler, SaysWhenTheLogitsAloneCount) {
  const auto alone = [](auto change) {
    SamplingOptions options;
    change(options);
    return Sampler(options).needs_only_logits();
  };
  EXPECT_TRUE(alone([](SamplingOptions&) {}));
  EXPECT_TRUE(alone([](SamplingOptions& o) { o.typical_p = 0.5f; }));  // greedy all the same
  const auto drawn = [&](auto change) {
    return alone([&](SamplingOptions& o) {
      o.temperature = 0.7f;
      o.top_k = 5;
      o.top_p = 0.9f;
      o.min_p = 0.1f;
      change(o);
    });
  };
  EXPECT_TRUE(drawn([](SamplingOptions&) {}));
  EXPECT_FALSE(drawn([](SamplingOptions& o) { o.typical_p = 0.5f; }));
  for (const auto& asked :
       {alone([](SamplingOptions& o) { o.repetition_penalty = 1.1f; }),
        alone([](SamplingOptions& o) { o.frequency_penalty = 0.1f; }),
        alone([](SamplingOptions& o) { o.presence_penalty = 0.1f; }), alone([](SamplingOptions& o) {
          o.logit_bias = {{3, 1.0f}};
        })}) {
    EXPECT_FALSE(asked);
  }
  SamplingOptions greedy;
  EXPECT_ERROR(Sampler(greedy).accept(-1), ErrorKind::kCorrupt, "logit");
  EXPECT_EQ(Sampler(greedy).accept(7), 7);
}

// Choices may be asked for ahead, and be made by either way: the random numbers stay in order.
TEST(Sampler, ChoicesTakeTheSameRandomNumbersAsSamples) {
  SamplingOptions options;
  options.temperature = 0.8f;
  options.top_p = 0.95f;
  options.seed = 11;
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, 2);
  Sampler sampled(options);
  Sampler chosen(options);
  for (int i = 0; i < 60; ++i) {
    Row logits(50);
    for (float& v : logits) v = normal(random);
    const std::int32_t expected = sampled.sample(logits, {});
    const TokenChoice later = chosen.choice(2);
    if (i % 3 == 0) {
      EXPECT_EQ(chosen.sample(logits, {}), expected);
    } else {
      const TokenChoice choice = chosen.choice();
      Row row = logits;
      apply_choice(choice, row);
      EXPECT_EQ(chosen.accept(draw(row, choice.u)), expected);
    }
    EXPECT_EQ(later.u, chosen.choice(1).u);
  }
}

TEST(Sampler, ATemperatureNearNothingTakesTheLargest) {
  SamplingOptions options;
  options.temperature = 1e-44f;
  for (const Row& logits : {Row{1, 3, 3, 2}, Row{-5, -2, -2, -9}}) {
    EXPECT_EQ(Sampler(options).sample(logits, {}), 1);
  }
}

TEST(Sampler, BiasMovesTheGreedyChoice) {
  SamplingOptions options;
  options.logit_bias = {{2, 100}, {0, -100}};
  EXPECT_EQ(Sampler(options).sample(Row{5, 4, 3}, {}), 2);
  options.logit_bias = {{3, 1}};
  EXPECT_ERROR(Sampler(options).sample(Row{5, 4, 3}, {}), ErrorKind::kUsage, "token 3");
  options.logit_bias = {{0, 101}};
  EXPECT_ERROR(validate(options), ErrorKind::kUsage, "logit bias");
  options.logit_bias = {{-1, 1}};
  EXPECT_ERROR(validate(options), ErrorKind::kUsage, "logit bias");
}

TEST(Sampler, TopKKeepsTies) {
  Row logits = {1, 3, 2, 2, 0};
  keep_top_k(logits, 2);
  EXPECT_EQ(logits, (Row{-kInf, 3, 2, 2, -kInf}));
}

TEST(Sampler, TopPKeepsTheSmallestSufficientSet) {
  const Row probabilities = {0.1f, 0.5f, 0.15f, 0.25f};
  const std::map<float, Row> kept = {
      {0.4f, {0, 1, 0, 0}}, {0.6f, {0, 1, 0, 1}}, {0.8f, {0, 1, 1, 1}}, {0.95f, {1, 1, 1, 1}}};
  for (const auto& [p, expected] : kept) {
    Row logits;
    for (const float v : probabilities) logits.push_back(std::log(v));
    keep_top_p(logits, p);
    for (std::size_t i = 0; i < logits.size(); ++i) {
      EXPECT_EQ(!std::isinf(logits[i]), expected[i] == 1) << p << " " << i;
    }
  }
}

TEST(Sampler, TopPOfEqualLogitsRemovesHigherIdsFirst) {
  Row logits(8, 0.0f);
  keep_top_p(logits, 0.3f);  // 8 equal shares of 0.125: five may go (0.625 <= 0.7), a sixth not
  EXPECT_EQ(logits, (Row{0, 0, 0, -kInf, -kInf, -kInf, -kInf, -kInf}));
}

TEST(Sampler, MinPIsRelativeToTheTop) {
  Row logits = {0, std::log(0.5f), std::log(0.09f), std::log(0.11f)};
  keep_min_p(logits, 0.1f);
  EXPECT_TRUE(std::isinf(logits[2]));
  EXPECT_FALSE(std::isinf(logits[0]) || std::isinf(logits[1]) || std::isinf(logits[3]));
}

// Worked in the order of the definition: distances of the information content from the entropy,
// the nearest first, until their probabilities reach p.
TEST(Sampler, TypicalKeepsWhatIsAboutAsSurprisingAsExpected) {
  const std::vector<double> probabilities = {0.5, 0.2, 0.12, 0.1, 0.05, 0.03};
  Row logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)) + 3);
  // The entropy is 1.408 nats: 0.2 (1.609) lies 0.201 off, 0.12 (2.120) 0.712, 0.5 (0.693) 0.715.
  const auto kept = [&](float p) {
    Row row = logits;
    keep_typical(row, p);
    std::vector<std::size_t> ids;
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (!std::isinf(row[i])) ids.push_back(i);
    }
    return ids;
  };
  EXPECT_EQ(kept(0.15f), (std::vector<std::size_t>{1}));
  EXPECT_EQ(kept(0.3f), (std::vector<std::size_t>{1, 2}));
  EXPECT_EQ(kept(0.75f), (std::vector<std::size_t>{0, 1, 2}));
  Row equal(8, 1.5f);
  keep_typical(equal, 0.1f);
  EXPECT_EQ(std::count(equal.begin(), equal.end(), 1.5f), 8) << "ties stay";
}

TEST(Sampler, GreedyTakesTheLowestIdAmongEquals) {
  Sampler sampler({});
  EXPECT_EQ(sampler.sample(Row{1, 5, 5, 2}, {}), 1);
}

TEST(Sampler, GreedyHonoursThePenalty) {
  SamplingOptions options;
  options.repetition_penalty = 2;
  EXPECT_EQ(Sampler(options).sample(Row{1, 5, 4, 2}, std::vector<std::int32_t>{1}), 2);
}

TEST(Sampler, DrawInvertsTheCumulativeDistribution) {
  const Row logits = {std::log(0.25f), -kInf, std::log(0.5f), std::log(0.25f)};
  EXPECT_EQ(draw(logits, 0.0), 0);
  EXPECT_EQ(draw(logits, 0.24), 0);
  EXPECT_EQ(draw(logits, 0.26), 2);
  EXPECT_EQ(draw(logits, 0.74), 2);
  EXPECT_EQ(draw(logits, 0.76), 3);
  EXPECT_EQ(draw(logits, std::nextafter(1.0, 0.0)), 3);
}

// Chi-square with 3 degrees of freedom: 16.27 is passed by chance once in a thousand, and the seed
// is fixed.
TEST(Sampler, FrequenciesFollowTheSoftmax) {
  SamplingOptions options;
  options.temperature = 1;
  options.seed = 7;
  Sampler sampler(options);
  const std::vector<double> probabilities = {0.1, 0.2, 0.3, 0.4};
  Row logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  constexpr int kDraws = 20000;
  std::vector<int> counts(4);
  for (int i = 0; i < kDraws; ++i) {
    ++counts[static_cast<std::size_t>(sampler.sample(logits, {}))];
  }
  double chi_square = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    const double expected = probabilities[i] * kDraws;
    chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  EXPECT_LT(chi_square, 16.27);
}

TEST(Sampler, SeedsReproduceAndDiffer) {
  const auto tokens = [](std::uint64_t seed) {
    SamplingOptions options;
    options.temperature = 1;
    options.seed = seed;
    Sampler sampler(options);
    const Row logits(100, 0.0f);
    std::vector<std::int32_t> ids;
    for (int i = 0; i < 20; ++i) ids.push_back(sampler.sample(logits, {}));
    return ids;
  };
  EXPECT_EQ(tokens(1), tokens(1));
  EXPECT_NE(tokens(1), tokens(2));
}

TEST(Sampler, BrokenLogitsAreAnError) {
  Sampler sampler({});
  EXPECT_ERROR(sampler.sample(Row{0, std::nanf(""), 1}, {}), ErrorKind::kCorrupt, "token 1");
  EXPECT_ERROR(sampler.sample(Row{0, 1, kInf}, {}), ErrorKind::kCorrupt, "token 2");
  EXPECT_ERROR(sampler.sample(Row{-kInf, -kInf}, {}), ErrorKind::kCorrupt, "no token");
}

TEST(Sampler, OptionsOutsideTheirRangeAreUsageErrors) {
  const auto reject = [](void (*change)(SamplingOptions&), const char* name) {
    SamplingOptions options;
    change(options);
    EXPECT_ERROR(Sampler sampler(options), ErrorKind::kUsage, name);
  };
  reject([](SamplingOptions& o) { o.temperature = -1; }, "temperature");
  reject([](SamplingOptions& o) { o.temperature = std::nanf(""); }, "temperature");
  reject([](SamplingOptions& o) { o.top_k = -1; }, "top-k");
  reject([](SamplingOptions& o) { o.top_p = 0; }, "top-p");
  reject([](SamplingOptions& o) { o.top_p = 1.5f; }, "top-p");
  reject([](SamplingOptions& o) { o.min_p = -0.1f; }, "min-p");
  reject([](SamplingOptions& o) { o.typical_p = 0; }, "typical-p");
  reject([](SamplingOptions& o) { o.repetition_penalty = 0; }, "repetition penalty");
}

}  // namespace
}  // namespace nibble
