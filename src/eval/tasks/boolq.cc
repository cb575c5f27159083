// BoolQ (Clark et al., 2019): yes or no to a question about a passage.
#include <string_view>

#include "eval/tasks/fields.h"

namespace nibble {
namespace {

bool recognises(const Json& doc) { return task_fields::has_all(doc, {"passage", "question"}); }

std::string question(const Json& doc) {
  if (!doc.contains("query")) {
    return task_fields::text(doc, "passage") + "\nQuestion: " + task_fields::text(doc, "question") +
           "?";
  }
  constexpr std::string_view kLabel = "Passage: ";
  std::string query = task_fields::text(doc, "query");
  if (query.starts_with(kLabel)) query.erase(0, kLabel.size());
  return query;
}

TaskDoc parse(const Json& doc) {
  const char* const gold = doc.contains("gold")    ? "gold"
                           : doc.contains("label") ? "label"
                                                   : "answer";
  return task_fields::choice_doc(question(doc) + "\nAnswer:",
                                 {{"no", "yes"}, task_fields::integer(doc, gold)});
}

}  // namespace

Task boolq_task() { return {"boolq", {"boolq"}, recognises, parse, {TaskMetric::kAcc}}; }

}  // namespace nibble
