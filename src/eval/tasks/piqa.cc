// PIQA (Bisk et al., 2020): which of two solutions reaches the goal.
#include "eval/tasks/fields.h"

namespace nibble {
namespace {

bool recognises(const Json& doc) { return task_fields::has_all(doc, {"goal", "sol1", "sol2"}); }

TaskDoc parse(const Json& doc) {
  if (!doc.contains("query")) {
    return task_fields::choice_doc(
        "Question: " + task_fields::text(doc, "goal") + "\nAnswer:",
        {{task_fields::text(doc, "sol1"), task_fields::text(doc, "sol2")},
         task_fields::integer(doc, "label")});
  }
  std::string query = task_fields::text(doc, "query");
  if (query.ends_with('\n')) query.pop_back();
  return task_fields::choice_doc(query + "\nAnswer:", task_fields::choices(doc));
}

}  // namespace

Task piqa_task() {
  return {"piqa", {"piqa"}, recognises, parse, {TaskMetric::kAcc, TaskMetric::kAccNorm}};
}

}  // namespace nibble
