#include "eval/tasks/fields.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace nibble::task_fields {
namespace {

const Json& field(const Json& doc, const char* name) {
  const auto at = doc.find(name);
  if (at == doc.end()) fail(ErrorKind::kCorrupt, "field '{}' is missing", name);
  return *at;
}

}  // namespace

bool has_all(const Json& doc, std::initializer_list<const char*> names) {
  return std::all_of(names.begin(), names.end(),
                     [&](const char* name) { return doc.contains(name); });
}

std::string text(const Json& doc, const char* name) {
  const Json& value = field(doc, name);
  if (!value.is_string()) fail(ErrorKind::kCorrupt, "field '{}' is not a text", name);
  return value.get<std::string>();
}

std::vector<std::string> texts(const Json& doc, const char* name) {
  const Json& value = field(doc, name);
  const bool ok = value.is_array() && !value.empty() &&
                  std::all_of(value.begin(), value.end(),
                              [](const Json& element) { return element.is_string(); });
  if (!ok) fail(ErrorKind::kCorrupt, "field '{}' is not a list of texts", name);
  return value.get<std::vector<std::string>>();
}

std::int64_t integer(const Json& doc, const char* name) {
  const Json& value = field(doc, name);
  if (value.is_boolean()) return value.get<bool>() ? 1 : 0;
  if (!value.is_number_integer()) fail(ErrorKind::kCorrupt, "field '{}' is no integer", name);
  return value.get<std::int64_t>();
}

std::int64_t label_index(const std::vector<std::string>& labels, const std::string& answer) {
  const std::size_t begin = answer.find_first_not_of(' ');
  const std::string label = begin == std::string::npos
                                ? ""
                                : answer.substr(begin, answer.find_last_not_of(' ') + 1 - begin);
  const auto at = std::find(labels.begin(), labels.end(), label);
  if (at == labels.end()) fail(ErrorKind::kCorrupt, "answer '{}' is none of the labels", answer);
  return at - labels.begin();
}

Choices choices(const Json& doc) {
  const Json& value = field(doc, "choices");
  if (!value.is_object()) return {texts(doc, "choices"), integer(doc, "gold")};
  return {texts(value, "text"), label_index(texts(value, "label"), text(doc, "answerKey"))};
}

TaskDoc choice_doc(const std::string& context, Choices choices) {
  TaskDoc doc;
  for (const std::string& choice : choices.texts) doc.requests.push_back({context, " " + choice});
  doc.choices = std::move(choices.texts);
  doc.gold = choices.gold;
  return doc;
}

}  // namespace nibble::task_fields
