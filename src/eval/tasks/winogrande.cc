// WinoGrande (Sakaguchi et al., 2019) by partial evaluation (Trinh and Le, 2018): the text after
// the blank is scored after each way to fill the blank.
#include "base/error.h"
#include "eval/tasks/fields.h"

namespace nibble {
namespace {

bool recognises(const Json& doc) {
  return doc.contains("context_options") ||
         task_fields::has_all(doc, {"sentence", "option1", "option2"});
}

std::string strip(const std::string& text) {
  constexpr const char* kBlanks = " \t\n\r";
  const std::size_t begin = text.find_first_not_of(kBlanks);
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(kBlanks) + 1 - begin);
}

TaskDoc doc_of(std::vector<std::string> contexts, const std::string& rest, std::int64_t gold) {
  TaskDoc doc;
  for (const std::string& context : contexts) doc.requests.push_back({context, " " + rest});
  doc.choices = std::move(contexts);
  doc.gold = gold;
  return doc;
}

TaskDoc parse(const Json& doc) {
  if (doc.contains("context_options")) {
    return doc_of(task_fields::texts(doc, "context_options"),
                  task_fields::text(doc, "continuation"), task_fields::integer(doc, "gold"));
  }
  const std::string sentence = task_fields::text(doc, "sentence");
  const std::size_t blank = sentence.find('_');
  if (blank == std::string::npos) fail(ErrorKind::kCorrupt, "field 'sentence' has no blank '_'");
  const std::string before = sentence.substr(0, blank);
  return doc_of(
      {before + task_fields::text(doc, "option1"), before + task_fields::text(doc, "option2")},
      strip(sentence.substr(blank + 1)),
      task_fields::label_index({"1", "2"}, task_fields::text(doc, "answer")));
}

}  // namespace

Task winogrande_task() {
  return {"winogrande", {"winogrande"}, recognises, parse, {TaskMetric::kAcc}};
}

}  // namespace nibble
