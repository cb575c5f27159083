// Accuracy on a task.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "eval/tasks/likelihood.h"
#include "eval/tasks/task.h"

namespace nibble {

struct TaskOptions {
  std::int64_t limit = 0;       // documents; 0 = all
  std::int64_t max_length = 0;  // tokens the model reads at most; 0 = max_positions, or 2048
  bool special_tokens = true;   // the tokenizer may add its BOS
};

// `std_error` is the standard error of the mean (sample standard deviation / sqrt(docs)); of a
// perplexity that of the mean log-likelihood times the perplexity. 0 for a single document.
struct TaskFigure {
  std::string metric;
  double value = 0;
  double std_error = 0;
};

struct TaskResult {
  std::string task;
  std::int64_t docs = 0;
  std::vector<TaskFigure> figures;  // in the order of Task::metrics
};

// Figures from documents and the likelihoods of all their requests, end to end. Pure.
std::vector<TaskFigure> task_figures(const Task& task, std::span<const TaskDoc> docs,
                                     std::span<const Likelihood> likelihoods);

// Errors of read_task_docs, encode_pair and likelihoods.
TaskResult evaluate_task(const Model& model, const Tokenizer& tokenizer, const TaskFile& file,
                         const TaskOptions& options, const ProgressSink& progress = {});

}  // namespace nibble
