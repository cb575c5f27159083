#include "eval/tasks/task.h"

#include <cmath>
#include <fstream>

#include "base/error.h"
#include "eval/tasks/evaluate.h"
#include "support/test_data.h"

namespace nibble {
namespace {

TaskDoc parse(const char* task, const char* json) {
  return find_task(task).parse(parse_json(json, "test"));
}

void expect_requests(const TaskDoc& doc, const std::string& context,
                     const std::vector<std::string>& continuations, std::int64_t gold) {
  ASSERT_EQ(doc.requests.size(), continuations.size());
  for (std::size_t i = 0; i < continuations.size(); ++i) {
    EXPECT_EQ(doc.requests[i].context, context);
    EXPECT_EQ(doc.requests[i].continuation, continuations[i]);
  }
  EXPECT_EQ(doc.gold, gold);
}

// Each task in the spelling of both kinds of files gives the same requests.
TEST(TaskPrompts, Arc) {
  for (const char* name : {"arc_easy", "arc_challenge"}) {
    for (const char* json :
         {R"({"query": "Question: Why?", "choices": ["a b", "c"], "gold": 1})",
          R"({"question": "Why?", "choices": {"text": ["a b", "c"], "label": ["A", "B"]},
              "answerKey": "B"})"}) {
      expect_requests(parse(name, json), "Question: Why?\nAnswer:", {" a b", " c"}, 1);
    }
  }
}

TEST(TaskPrompts, Piqa) {
  for (const char* json :
       {R"({"query": "Question: Open it\n", "choices": ["pull", "push"], "gold": 0})",
        R"({"goal": "Open it", "sol1": "pull", "sol2": "push", "label": 0})"}) {
    expect_requests(parse("piqa", json), "Question: Open it\nAnswer:", {" pull", " push"}, 0);
  }
}

TEST(TaskPrompts, Boolq) {
  for (const char* json :
       {R"({"query": "Passage: Text.\nQuestion: is it so?", "choices": ["no", "yes"], "gold": 1})",
        R"({"passage": "Text.", "question": "is it so", "answer": true})",
        R"({"passage": "Text.", "question": "is it so", "label": 1})"}) {
    expect_requests(parse("boolq", json), "Text.\nQuestion: is it so?\nAnswer:", {" no", " yes"},
                    1);
  }
}

TEST(TaskPrompts, Openbookqa) {
  for (const char* json :
       {R"({"query": "Predators eat", "choices": ["lions", "bunnies"], "gold": 1})",
        R"({"question_stem": "Predators eat", "answerKey": " B",
            "choices": {"text": ["lions", "bunnies"], "label": ["A", "B"]}})"}) {
    expect_requests(parse("openbookqa", json), "Predators eat", {" lions", " bunnies"}, 1);
  }
}

TEST(TaskPrompts, WinograndeScoresTheRestAfterEachFilling) {
  for (const char* json :
       {R"({"context_options": ["Ann met Eve, so Ann", "Ann met Eve, so Eve"],
            "continuation": "waved.", "gold": 1})",
        R"({"sentence": "Ann met Eve, so _ waved.", "option1": "Ann", "option2": "Eve",
            "answer": "2"})"}) {
    const TaskDoc doc = parse("winogrande", json);
    ASSERT_EQ(doc.requests.size(), 2u);
    EXPECT_EQ(doc.requests[0].context, "Ann met Eve, so Ann");
    EXPECT_EQ(doc.requests[1].context, "Ann met Eve, so Eve");
    EXPECT_EQ(doc.requests[0].continuation, " waved.");
    EXPECT_EQ(doc.requests[1].continuation, " waved.");
    EXPECT_EQ(doc.gold, 1);
  }
}

TEST(TaskPrompts, LambadaPredictsWhatFollowsTheLastBlank) {
  for (const char* json : {R"({"context": "He saw the", "continuation": "signs"})",
                           R"({"text": "He saw the signs"})"}) {
    expect_requests(parse("lambada_openai", json), "He saw the", {" signs"}, 0);
  }
}

// Contract of the registry: unique names, metrics, and documents without fields are refused.
TEST(Tasks, EveryTaskRefusesDocumentsWithoutItsFields) {
  std::vector<std::string> names;
  for (const Task& task : tasks()) {
    EXPECT_THAT(names, testing::Not(testing::Contains(task.name)));
    names.push_back(task.name);
    EXPECT_FALSE(task.metrics.empty()) << task.name;
    EXPECT_FALSE(task.file_names.empty()) << task.name;
    EXPECT_EQ(&find_task(task.name), &task);
    for (const char* json : {"{}", R"({"query": 1, "text": 2, "sentence": 3, "goal": 4,
                                       "passage": 5, "question": 6, "context_options": 7,
                                       "question_stem": 8})"}) {
      EXPECT_ERROR(task.parse(parse_json(json, "test")), ErrorKind::kCorrupt, "field");
    }
  }
  EXPECT_ERROR(find_task("piqua"), ErrorKind::kUsage, "piqa");
}

class TaskFiles : public testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& content) {
    std::ofstream(dir_ / name) << content;
    return (dir_ / name).string();
  }
  test::TempDir dir_;
};

TEST_F(TaskFiles, AreRecognisedByNameThenByFieldsThenByWord) {
  EXPECT_STREQ(open_task(write("ARC-Easy-Test.jsonl", "")).task->name, "arc_easy");
  EXPECT_STREQ(open_task(write("openbook_qa.jsonl", "")).task->name, "openbookqa");
  const std::string fields = R"({"goal": "a", "sol1": "b", "sol2": "c", "label": 1})";
  EXPECT_STREQ(open_task(write("test.jsonl", "\n" + fields)).task->name, "piqa");
  const std::string unclear = write("some.jsonl", R"({"query": "q", "choices": [], "gold": 0})");
  EXPECT_ERROR(open_task(unclear), ErrorKind::kUsage, "NAME=FILE");
  const TaskFile named = open_task("boolq=" + unclear);
  EXPECT_STREQ(named.task->name, "boolq");
  EXPECT_EQ(named.path.string(), unclear);
  EXPECT_ERROR(open_task("bolq=" + unclear), ErrorKind::kUsage, "boolq");
}

TEST_F(TaskFiles, ErrorsNameFileAndLine) {
  const std::string good = R"({"goal": "a", "sol1": "b", "sol2": "c", "label": 1})";
  const auto read = [&](const std::string& content, std::int64_t limit = 0) {
    return read_task_docs(open_task(write("piqa.jsonl", content)), limit);
  };
  EXPECT_EQ(read(good + "\r\n\n" + good + "\n").size(), 2u);
  EXPECT_EQ(read(good + "\n" + good, 1).size(), 1u);
  EXPECT_ERROR(read(good + "\n{"), ErrorKind::kCorrupt, "piqa.jsonl:2");
  EXPECT_ERROR(read(good + "\n[]"), ErrorKind::kCorrupt, "piqa.jsonl:2");
  EXPECT_ERROR(read(good + "\n{\"goal\": \"a\"}"), ErrorKind::kCorrupt, "'sol1' is missing");
  EXPECT_ERROR(read(R"({"goal": "a", "sol1": "b", "sol2": "c", "label": 2})"), ErrorKind::kCorrupt,
               "right choice");
  EXPECT_ERROR(read(R"({"goal": "a", "sol1": "", "sol2": "c", "label": 1})"), ErrorKind::kCorrupt,
               "choice 0 is empty");
  EXPECT_ERROR(read("\n \n"), ErrorKind::kUsage, "no documents");
  EXPECT_ERROR(read_task_docs({&find_task("piqa"), dir_ / "none"}, 0), ErrorKind::kCorrupt, "none");
}

TaskDoc doc_with(std::vector<std::string> choices, std::int64_t gold) {
  TaskDoc doc;
  doc.requests.resize(choices.size());
  doc.choices = std::move(choices);
  doc.gold = gold;
  return doc;
}

TEST(TaskFigures, AccuracyAndItsNormalisedForm) {
  // "zwölf" has five characters in six bytes: by characters -6 / 5 loses to -1.1, by bytes it would
  // win.
  const std::vector<TaskDoc> docs = {doc_with({"a", "zwölf"}, 0), doc_with({"a", "bcd"}, 1),
                                     doc_with({"a", "b"}, 0), doc_with({"a", "b"}, 1)};
  const std::vector<Likelihood> scores = {{-1.1}, {-6}, {-2}, {-3}, {-1}, {-1}, {-1}, {-2}};
  const auto figures = task_figures(find_task("arc_easy"), docs, scores);
  ASSERT_EQ(figures.size(), 2u);
  EXPECT_EQ(figures[0].metric, "acc");
  EXPECT_DOUBLE_EQ(figures[0].value, 0.5);  // right, wrong, right (a tie: the first), wrong
  EXPECT_DOUBLE_EQ(figures[0].std_error, std::sqrt(0.25 * 4 / 3 / 4));
  EXPECT_EQ(figures[1].metric, "acc_norm");
  EXPECT_DOUBLE_EQ(figures[1].value, 0.75);
}

TEST(TaskFigures, LambadaReportsPerplexityAndGreedyMatches) {
  const std::vector<TaskDoc> docs = {doc_with({"a"}, 0), doc_with({"b"}, 0)};
  const std::vector<Likelihood> scores = {{-1, true}, {-3, false}};
  const auto figures = task_figures(find_task("lambada_openai"), docs, scores);
  ASSERT_EQ(figures.size(), 2u);
  EXPECT_EQ(figures[0].metric, "perplexity");
  EXPECT_DOUBLE_EQ(figures[0].value, std::exp(2.0));
  EXPECT_DOUBLE_EQ(figures[0].std_error, std::exp(2.0) * 1.0);
  EXPECT_EQ(figures[1].metric, "acc");
  EXPECT_DOUBLE_EQ(figures[1].value, 0.5);
}

}  // namespace
}  // namespace nibble
