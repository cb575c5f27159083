// Checked access to the fields of a task's documents, and the spellings in which multiple-choice
// files come. Everything throws kCorrupt, naming the field.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "eval/tasks/task.h"

namespace nibble::task_fields {

bool has_all(const Json& doc, std::initializer_list<const char*> names);
std::string text(const Json& doc, const char* name);
std::vector<std::string> texts(const Json& doc, const char* name);
std::int64_t integer(const Json& doc, const char* name);  // true is 1, false 0

// Position of `answer` among labels ("A", "B", ...), blanks around the answer ignored.
std::int64_t label_index(const std::vector<std::string>& labels, const std::string& answer);

struct Choices {
  std::vector<std::string> texts;
  std::int64_t gold = 0;
};
// {"choices": [...], "gold": i}, or {"choices": {"text": [...], "label": [...]}, "answerKey": "B"}.
Choices choices(const Json& doc);

// One context, each choice after a blank.
TaskDoc choice_doc(const std::string& context, Choices choices);

}  // namespace nibble::task_fields
