// AI2 Reasoning Challenge (Clark et al., 2018): science questions with three to five choices.
#include "eval/tasks/fields.h"

namespace nibble {
namespace {

bool recognises(const Json&) { return false; }  // easy and challenge look alike

TaskDoc parse(const Json& doc) {
  const std::string question = doc.contains("query")
                                   ? task_fields::text(doc, "query")
                                   : "Question: " + task_fields::text(doc, "question");
  return task_fields::choice_doc(question + "\nAnswer:", task_fields::choices(doc));
}

Task arc_task(const char* name) {
  return {name, {name}, recognises, parse, {TaskMetric::kAcc, TaskMetric::kAccNorm}};
}

}  // namespace

Task arc_easy_task() { return arc_task("arc_easy"); }
Task arc_challenge_task() { return arc_task("arc_challenge"); }

}  // namespace nibble
