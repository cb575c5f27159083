// OpenBookQA (Mihaylov et al., 2018): a sentence is completed by one of four choices.
#include "eval/tasks/fields.h"

namespace nibble {
namespace {

bool recognises(const Json& doc) { return doc.contains("question_stem"); }

TaskDoc parse(const Json& doc) {
  const char* const field = doc.contains("query") ? "query" : "question_stem";
  return task_fields::choice_doc(task_fields::text(doc, field), task_fields::choices(doc));
}

}  // namespace

Task openbookqa_task() {
  return {"openbookqa",
          {"openbookqa", "openbook_qa"},
          recognises,
          parse,
          {TaskMetric::kAcc, TaskMetric::kAccNorm}};
}

}  // namespace nibble
