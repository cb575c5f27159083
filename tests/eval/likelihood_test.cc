#include "eval/tasks/likelihood.h"

#include <cmath>

#include "base/error.h"
#include "base/file.h"
#include "eval/tasks/evaluate.h"
#include "runtime/session.h"
#include "support/exact_backend.h"
#include "support/test_data.h"

namespace nibble {
namespace {

class LikelihoodTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    backend_ = test::exact_backend();
    session_ = open_session(test::tiny_novel(), *backend_);
  }
  static void TearDownTestSuite() {
    session_ = Session();
    backend_.reset();
  }
  const Tokenizer& tokenizer() const { return *session_.tokenizer; }

  static inline std::unique_ptr<Backend> backend_;
  static inline Session session_;
};

TEST_F(LikelihoodTest, BlanksAtTheEndOfTheContextMoveToTheContinuation) {
  const TokenPair plain = encode_pair(tokenizer(), {"the wind", " was"});
  for (const auto& [context, continuation] :
       {std::pair<std::string, std::string>{"the wind ", "was"}, {"the wind", " was"}}) {
    const TokenPair pair = encode_pair(tokenizer(), {context, continuation});
    EXPECT_EQ(pair.context, plain.context);
    EXPECT_EQ(pair.continuation, plain.continuation);
  }
  EXPECT_EQ(plain.context.front(), tokenizer().bos());
  // U+3000 is a blank to Python.
  EXPECT_EQ(encode_pair(tokenizer(), {"the wind\u3000", "was"}).context, plain.context);
}

TEST_F(LikelihoodTest, WithoutSpecialTokensThereIsNoBos) {
  const TokenPair pair = encode_pair(tokenizer(), {"the wind", " was"}, false);
  EXPECT_NE(pair.context.front(), tokenizer().bos());
}

TEST_F(LikelihoodTest, AnEmptyContextIsBos) {
  const TokenPair pair = encode_pair(tokenizer(), {"", "the wind"});
  EXPECT_EQ(pair.context, std::vector<std::int32_t>{tokenizer().bos().value()});
  EXPECT_EQ(pair.continuation, tokenizer().encode("the wind", {.add_special = false}));
}

TEST_F(LikelihoodTest, AContinuationWithoutTokensIsAUsageError) {
  EXPECT_ERROR(encode_pair(tokenizer(), {"the wind", ""}), ErrorKind::kUsage, "no token");
}

// Together or alone, with or without neighbours that share the input: the same numbers.
TEST_F(LikelihoodTest, BatchingChangesNothing) {
  std::vector<TokenPair> pairs;
  for (const char* text : {" was", " had", " blowing, and the wind", " the", " was"}) {
    pairs.push_back(encode_pair(tokenizer(), {"It was night, and the wind", text}));
    pairs.push_back(encode_pair(tokenizer(), {"Night", text}));
  }
  // The end of the sequence before it: not the same input, its positions differ.
  TokenPair tail = pairs.back();
  tail.context.erase(tail.context.begin());
  pairs.push_back(tail);
  const auto together = likelihoods(*session_.model, pairs, 2048, "test");
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const auto alone = likelihoods(*session_.model, std::span(pairs).subspan(i, 1), 2048, "test");
    EXPECT_NEAR(together[i].log_likelihood, alone[0].log_likelihood, 1e-4) << i;
    EXPECT_EQ(together[i].greedy, alone[0].greedy) << i;
  }
  EXPECT_TRUE(together[0].greedy);  // the model's own greedy text
  EXPECT_NEAR(together[0].log_likelihood, together[8].log_likelihood, 1e-4);
}

TEST_F(LikelihoodTest, LongContextsLoseTheirBeginning) {
  const TokenPair whole = encode_pair(tokenizer(), {"It was a dark and stormy night, and", " the"});
  TokenPair tail = whole;
  tail.context.erase(tail.context.begin(), tail.context.end() - 4);
  const auto cut = likelihoods(*session_.model, std::vector{whole}, 4, "test");
  const auto expected = likelihoods(*session_.model, std::vector{tail}, 2048, "test");
  EXPECT_NEAR(cut[0].log_likelihood, expected[0].log_likelihood, 1e-5);
  const TokenPair long_answer = {{1}, {5, 6, 7}};
  EXPECT_ERROR(likelihoods(*session_.model, std::vector{long_answer}, 2, "test"), ErrorKind::kUsage,
               "3 tokens");
}

class TaskGolden : public LikelihoodTest, public testing::WithParamInterface<const char*> {};

// Scores of single choices against transformers, on documents that are not in the repository.
TEST_P(TaskGolden, LikelihoodsMatchTransformers) {
  const std::string name = GetParam();
  NIBBLE_NEEDS_DATA("text/eval/" + name);
  static const Json golden =
      read_json_file((test::source_dir() / "tests/golden/eval/tasks.json").string())["tasks"];
  const Json& expected = golden.at(name);
  const TaskFile file = open_task((test::data_dir() / "text/eval" / name).string());
  const auto docs = read_task_docs(file, static_cast<std::int64_t>(expected.size()));
  std::vector<TokenPair> pairs;
  std::vector<Json> scores;
  for (std::size_t d = 0; d < docs.size(); ++d) {
    EXPECT_EQ(docs[d].gold, expected[d]["gold"].get<std::int64_t>());
    ASSERT_EQ(docs[d].requests.size(), expected[d]["scores"].size());
    for (std::size_t i = 0; i < docs[d].requests.size(); ++i) {
      pairs.push_back(encode_pair(tokenizer(), docs[d].requests[i]));
      scores.push_back(expected[d]["scores"][i]);
    }
  }
  const auto actual = likelihoods(*session_.model, pairs, 2048, name);
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const double value = scores[i][0].get<double>();
    // Float32 logits of about 10 differ in the sixth digit, summed over the continuation.
    const double tolerance = 2e-5 * static_cast<double>(pairs[i].continuation.size()) + 2e-5;
    EXPECT_NEAR(actual[i].log_likelihood, value, tolerance) << name << " request " << i;
    EXPECT_EQ(actual[i].greedy, scores[i][1].get<bool>()) << name << " request " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Files, TaskGolden,
                         testing::Values("lambada_openai.jsonl", "piqa.jsonl", "arc_easy.jsonl",
                                         "arc_challenge.jsonl", "boolq.jsonl", "winogrande.jsonl",
                                         "openbook_qa.jsonl"),
                         [](const auto& param_info) {
                           const std::string file = param_info.param;
                           return file.substr(0, file.find('.'));
                         });

TEST_F(LikelihoodTest, EvaluateTaskEndsInFigures) {
  test::TempDir dir;
  write_file_atomic(dir / "lambada.jsonl",
                    "{\"text\": \"It was a dark and stormy night, and the wind\"}\n"
                    "{\"text\": \"It was a dark and stormy night, and the xylophone\"}\n");
  const TaskResult result =
      evaluate_task(*session_.model, tokenizer(), open_task((dir / "lambada.jsonl").string()), {});
  EXPECT_EQ(result.task, "lambada_openai");
  EXPECT_EQ(result.docs, 2);
  ASSERT_EQ(result.figures.size(), 2u);
  EXPECT_EQ(result.figures[1].metric, "acc");
  EXPECT_EQ(result.figures[1].value, 0.5);
}

}  // namespace
}  // namespace nibble
