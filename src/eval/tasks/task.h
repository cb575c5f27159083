// Tasks that are scored by the likelihood of given answers, as data: what a document of the file
// asks, and which figures are reported. Prompts and scoring follow EleutherAI's
// lm-evaluation-harness (0.4, zero-shot); docs/evaluation.md states them.
//
// A task is one file that defines `Task NAME_task()` and one line of registry.def.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace nibble {

// How likely is `continuation` after `context`? Texts, joined without anything between them.
struct TaskRequest {
  std::string context;
  std::string continuation;
};

struct TaskDoc {
  std::vector<TaskRequest> requests;  // one for each choice
  std::vector<std::string> choices;   // as stored: their lengths normalise acc_norm
  std::int64_t gold = 0;              // index of the right choice
};

enum class TaskMetric {
  kAcc,         // the most likely choice is the right one
  kAccNorm,     // the same after dividing by the characters (code points) of each choice
  kGreedyAcc,   // every token of the only choice is the model's first choice; reported as acc
  kPerplexity,  // exp(-mean log-likelihood) of the only choice
};
const char* to_string(TaskMetric metric);  // "acc", "acc_norm", "acc", "perplexity"

struct Task {
  const char* name;
  // Any of these in a file's name (lower case, '-' read as '_') identifies the task.
  std::vector<std::string> file_names;
  // True when the fields of a document can belong to no other task.
  bool (*recognises)(const Json& doc);
  // kCorrupt, naming the field, for a document that lacks something.
  TaskDoc (*parse)(const Json& doc);
  std::vector<TaskMetric> metrics;
};

// In the order of registry.def.
const std::vector<Task>& tasks();

// kUsage with the nearest names when there is none.
const Task& find_task(std::string_view name);

// A task and its file, from "FILE" (recognised by name, then by the fields of the first document)
// or "NAME=FILE". kUsage when neither says which task it is.
struct TaskFile {
  const Task* task = nullptr;
  std::filesystem::path path;
};
TaskFile open_task(std::string_view argument);

// The documents of a JSON-lines file, at most `limit` (0 = all). kCorrupt, naming file and line,
// for a damaged one or a missing file; kUsage when there is none.
std::vector<TaskDoc> read_task_docs(const TaskFile& file, std::int64_t limit);

}  // namespace nibble
