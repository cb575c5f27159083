// LAMBADA (Paperno et al., 2016), OpenAI's untokenized version: predict the last word.
#include "base/error.h"
#include "eval/tasks/fields.h"

namespace nibble {
namespace {

bool recognises(const Json& doc) { return task_fields::has_all(doc, {"context", "continuation"}); }

// The last word is what follows the last blank, whatever the file calls the continuation.
TaskDoc parse(const Json& doc) {
  const std::string text = doc.contains("text") ? task_fields::text(doc, "text")
                                                : task_fields::text(doc, "context") + " " +
                                                      task_fields::text(doc, "continuation");
  const std::size_t blank = text.rfind(' ');
  if (blank == std::string::npos) fail(ErrorKind::kCorrupt, "the text is a single word");
  TaskDoc result;
  result.requests.push_back({text.substr(0, blank), text.substr(blank)});
  result.choices.push_back(text.substr(blank + 1));
  return result;
}

}  // namespace

Task lambada_openai_task() {
  return {"lambada_openai",
          {"lambada"},
          recognises,
          parse,
          {TaskMetric::kPerplexity, TaskMetric::kGreedyAcc}};
}

}  // namespace nibble
