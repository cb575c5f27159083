#include "eval/tasks/task.h"

#include <algorithm>
#include <cctype>

#include "base/error.h"
#include "base/file.h"
#include "base/suggest.h"

namespace nibble {

#define NIBBLE_TASK(name) Task name##_task();
#include "eval/tasks/registry.def"
#undef NIBBLE_TASK

namespace {

namespace fs = std::filesystem;

std::vector<std::string> task_names() {
  std::vector<std::string> names;
  for (const Task& task : tasks()) names.emplace_back(task.name);
  return names;
}

std::string plain_name(const fs::path& path) {
  std::string name = path.filename().string();
  for (char& c : name) {
    c = c == '-' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return name;
}

// Calls fn(line number, document) for each line that is not blank, until it returns false.
template <class Fn>
void for_each_line(const fs::path& path, const Fn& fn) {
  const std::string content = read_text_file(path);
  const std::string_view text = content;
  std::int64_t number = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = text.substr(at, end - at);
    at = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = fmt::format("{}:{}", path.string(), number);
    const Json doc = parse_json(line, where);
    if (!doc.is_object()) fail(ErrorKind::kCorrupt, "{}: not a JSON object", where);
    if (!fn(where, doc)) return;
  }
}

const Task* task_by_name(const fs::path& path) {
  const std::string name = plain_name(path);
  for (const Task& task : tasks()) {
    for (const std::string& part : task.file_names) {
      if (name.find(part) != std::string::npos) return &task;
    }
  }
  return nullptr;
}

const Task* task_by_fields(const fs::path& path) {
  const Task* found = nullptr;
  for_each_line(path, [&](const std::string&, const Json& doc) {
    const auto at = std::find_if(tasks().begin(), tasks().end(),
                                 [&](const Task& task) { return task.recognises(doc); });
    if (at != tasks().end()) found = &*at;
    return false;
  });
  return found;
}

void require_complete(const TaskDoc& doc) {
  const auto choices = static_cast<std::int64_t>(doc.requests.size());
  if (doc.gold < 0 || doc.gold >= choices) {
    fail(ErrorKind::kCorrupt, "the right choice is {} of {}, counted from 0", doc.gold, choices);
  }
  for (std::size_t i = 0; i < doc.requests.size(); ++i) {
    if (doc.choices[i].empty() || doc.requests[i].continuation.empty()) {
      fail(ErrorKind::kCorrupt, "choice {} is empty", i);
    }
  }
}

}  // namespace

const char* to_string(TaskMetric metric) {
  switch (metric) {
    case TaskMetric::kAcc:
    case TaskMetric::kGreedyAcc:
      return "acc";
    case TaskMetric::kAccNorm:
      return "acc_norm";
    case TaskMetric::kPerplexity:
      return "perplexity";
  }
  fail(ErrorKind::kInternal, "unknown task metric {}", static_cast<int>(metric));
}

const std::vector<Task>& tasks() {
  static const std::vector<Task> all = {
#define NIBBLE_TASK(name) name##_task(),
#include "eval/tasks/registry.def"
#undef NIBBLE_TASK
  };
  return all;
}

const Task& find_task(std::string_view name) {
  for (const Task& task : tasks()) {
    if (name == task.name) return task;
  }
  fail(ErrorKind::kUsage, "eval tasks: no task is named '{}'{}", name,
       did_you_mean(name, task_names()));
}

TaskFile open_task(std::string_view argument) {
  const std::size_t equals = argument.find('=');
  if (equals != std::string_view::npos && !fs::exists(fs::path(argument))) {
    return {&find_task(argument.substr(0, equals)), argument.substr(equals + 1)};
  }
  TaskFile file = {task_by_name(argument), argument};
  if (file.task == nullptr) file.task = task_by_fields(file.path);
  if (file.task == nullptr) {
    fail(ErrorKind::kUsage,
         "{}: cannot tell which task this is; write NAME=FILE with NAME one of {}",
         file.path.string(), fmt::join(task_names(), ", "));
  }
  return file;
}

std::vector<TaskDoc> read_task_docs(const TaskFile& file, std::int64_t limit) {
  std::vector<TaskDoc> docs;
  for_each_line(file.path, [&](const std::string& where, const Json& json) {
    try {
      docs.push_back(file.task->parse(json));
      require_complete(docs.back());
    } catch (const Error& error) {
      throw Error(error.kind(), fmt::format("{}: {}: {}", where, file.task->name, error.what()));
    }
    return limit == 0 || static_cast<std::int64_t>(docs.size()) < limit;
  });
  if (docs.empty()) {
    fail(ErrorKind::kUsage, "{}: the file holds no documents", file.path.string());
  }
  return docs;
}

}  // namespace nibble
