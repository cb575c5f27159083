// Vectors of encoders against the last hidden states that transformers gave for them.
#include "runtime/embedder.h"

#include <fstream>
#include <future>

#include "model/oracles.h"
#include "support/tolerance.h"

namespace nibble {
namespace {

using Ids = std::vector<std::int32_t>;
using test::Oracle;

std::vector<std::filesystem::path> encoders() {
  std::vector<std::filesystem::path> found = test::oracle_directories();
  std::erase_if(found,
                [](const auto& path) { return !path.filename().string().starts_with("bert"); });
  return found;
}

std::future<Embedding> ask(Embedder& embedder, Ids ids) {
  const auto promise = std::make_shared<std::promise<Embedding>>();
  embedder.submit(std::move(ids),
                  [promise](Embedding embedding) { promise->set_value(std::move(embedding)); });
  return promise->get_future();
}

// Of transformers' hidden states, in float64.
std::vector<float> expected(const Oracle& oracle, std::int64_t text, Pooling pooling) {
  std::vector<float> out;
  const std::int64_t rows = pooling == Pooling::kCls ? 1 : oracle.length();
  const std::span<const float> states = oracle.expected_rows(text, 0, rows);
  for (std::int64_t col = 0; col < oracle.width(); ++col) {
    double sum = 0;
    for (std::int64_t row = 0; row < rows; ++row) {
      sum += states[static_cast<std::size_t>(row * oracle.width() + col)];
    }
    out.push_back(static_cast<float>(sum / static_cast<double>(rows)));
  }
  return out;
}

class EmbedderTest : public testing::TestWithParam<std::filesystem::path> {};

TEST_P(EmbedderTest, PoolsWhatTransformersComputes) {
  constexpr double kTolerance = 5e-5;  // of hidden states, as in the tests of the model
  const auto backend = test::exact_backend();
  const Session session = open_session(GetParam(), *backend);
  const Oracle oracle(GetParam());
  for (const Pooling pooling : {Pooling::kMean, Pooling::kCls}) {
    for (const std::int64_t rows : {1, 100}) {  // texts alone, and some together
      Embedder embedder(session, {.pooling = pooling, .max_num_batched_tokens = rows});
      EXPECT_EQ(embedder.dimensions(), oracle.width());
      std::vector<std::future<Embedding>> answers;
      for (std::int64_t copy = 0; copy < 5; ++copy) {
        for (std::int64_t text = 0; text < oracle.ids.dim(0); ++text) {
          answers.push_back(ask(embedder, oracle.row(text)));
        }
      }
      for (std::size_t i = 0; i < answers.size(); ++i) {
        const Embedding answer = answers[i].get();
        ASSERT_FALSE(answer.error.has_value()) << answer.error->what();
        const auto text = static_cast<std::int64_t>(i) % oracle.ids.dim(0);
        EXPECT_LE(test::max_abs_error(answer.values, expected(oracle, text, pooling)), kTolerance);
      }
      const EngineStats stats = embedder.stats();
      EXPECT_EQ(stats.finished, std::ssize(answers));
      EXPECT_EQ(stats.prompt_tokens, std::ssize(answers) * oracle.length());
      EXPECT_EQ(stats.running + stats.waiting, 0);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, EmbedderTest, testing::ValuesIn(encoders()),
                         [](const auto& instance) { return test::oracle_name(instance.param); });

TEST(Embedder, RefusesWhatCannotBeEmbedded) {
  const auto backend = test::exact_backend();
  const Session session =
      open_session(test::source_dir() / "tests/golden/archs/bert_relu_one_type", *backend);
  Embedder embedder(session, {.max_model_len = 4});
  EXPECT_EQ(embedder.max_model_len(), 4);
  EXPECT_ERROR(ask(embedder, {}), ErrorKind::kUsage, "no tokens");
  EXPECT_ERROR(ask(embedder, Ids(5, 1)), ErrorKind::kUsage, "has 5 tokens, the model takes 4");
  EXPECT_ERROR(ask(embedder, {1, -1}), ErrorKind::kUsage, "token id -1");
  EXPECT_ERROR(ask(embedder, {static_cast<std::int32_t>(session.model->spec().vocab)}),
               ErrorKind::kUsage, "outside the vocabulary");
  EXPECT_FALSE(ask(embedder, {1, 2, 3, 4}).get().error.has_value());
  EXPECT_ERROR(Embedder(session, {.max_waiting = 0}), ErrorKind::kUsage, "positive");
  const Session decoder = open_session(test::tiny_novel(), *backend);
  EXPECT_ERROR(Embedder(decoder, {}), ErrorKind::kUsage, "is a decoder");
}

// While a first text is being told of, more arrive than may wait; some of them are called off.
TEST(Embedder, BoundsItsQueueAndForgetsWhatIsCancelled) {
  const auto backend = test::exact_backend();
  const Session session =
      open_session(test::source_dir() / "tests/golden/archs/bert_relu_one_type", *backend);
  std::promise<void> told;
  std::promise<void> go_on;
  int heard = 0;
  {
    Embedder embedder(session, {.max_num_seqs = 1, .max_waiting = 3});
    embedder.submit({1, 2}, [&](Embedding) {
      told.set_value();
      go_on.get_future().wait();
    });
    told.get_future().wait();
    std::vector<RequestId> ids;
    for (int i = 0; i < 3; ++i) {
      ids.push_back(embedder.submit({3}, [&](Embedding) { ++heard; }));
    }
    EXPECT_EQ(embedder.stats().waiting, 3);
    EXPECT_ERROR(embedder.submit({3}, [](Embedding) {}), ErrorKind::kUnsupported, "wait already");
    embedder.cancel(ids[0]);
    embedder.cancel(ids[2]);
    embedder.cancel(999);
    std::future<Embedding> last = ask(embedder, {4});
    go_on.set_value();
    last.get();
  }
  EXPECT_EQ(heard, 1);
}

Json modules(const std::string& more = "") {
  return parse_json(R"([{"type": "sentence_transformers.models.Transformer", "path": ""},
                        {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"})" +
                        more + "]",
                    "modules");
}

PoolingRule rule_of(const Json& list, const std::string& config) {
  return read_pooling(list, [&](const std::string& name) {
    EXPECT_EQ(name, "1_Pooling/config.json");
    return parse_json(config, name);
  });
}

TEST(Pooling, IsReadFromTheFilesOfSentenceTransformers) {
  const std::string normalize = R"(, {"type": "sentence_transformers.models.Normalize"})";
  const char* const cls =
      R"({"word_embedding_dimension": 384, "pooling_mode_cls_token": true,
          "pooling_mode_mean_tokens": false, "pooling_mode_max_tokens": false})";
  PoolingRule rule = rule_of(modules(normalize), cls);
  EXPECT_EQ(rule.pooling, Pooling::kCls);
  EXPECT_TRUE(rule.normalize);
  rule = rule_of(modules(), R"({"pooling_mode_mean_tokens": true})");
  EXPECT_EQ(rule.pooling, Pooling::kMean);
  EXPECT_FALSE(rule.normalize);
  EXPECT_EQ(rule_of(modules(), R"({"pooling_mode": "cls"})").pooling, Pooling::kCls);
}

TEST(Pooling, RefusesWhatItDoesNotDo) {
  EXPECT_ERROR(rule_of(modules(), R"({"pooling_mode_max_tokens": true})"), ErrorKind::kUnsupported,
               "max_tokens");
  EXPECT_ERROR(
      rule_of(modules(), R"({"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true})"),
      ErrorKind::kUnsupported, "2 ways");
  EXPECT_ERROR(rule_of(modules(R"(, {"type": "models.Dense"})"), R"({"pooling_mode": "mean"})"),
               ErrorKind::kUnsupported, "Dense");
  EXPECT_ERROR(rule_of(parse_json("[]", "x"), "{}"), ErrorKind::kCorrupt, "no module that pools");
  EXPECT_ERROR(rule_of(parse_json("{}", "x"), "{}"), ErrorKind::kCorrupt, "not a list");
  EXPECT_ERROR(rule_of(parse_json(R"([{"type": "Pooling", "path": "../x"}])", "x"), "{}"),
               ErrorKind::kCorrupt, "no folder");
}

TEST(Pooling, RulesOfADirectory) {
  const test::TempDir dir;
  const auto write = [&](const std::string& name, const std::string& text) {
    std::filesystem::create_directories((dir / name).parent_path());
    std::ofstream(dir / name) << text;
  };
  EXPECT_EQ(pooling_of(dir.path()).pooling, Pooling::kMean);
  EXPECT_TRUE(pooling_of(dir.path()).normalize);
  write("modules.json", modules().dump());
  write("1_Pooling/config.json", R"({"pooling_mode_cls_token": true})");
  write("sentence_bert_config.json", R"({"max_seq_length": 256, "do_lower_case": false})");
  const PoolingRule rule = pooling_of(dir.path());
  EXPECT_EQ(rule.pooling, Pooling::kCls);
  EXPECT_FALSE(rule.normalize);
  EXPECT_EQ(rule.max_tokens, 256);
}

}  // namespace
}  // namespace nibble
