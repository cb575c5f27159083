#include "eval/tasks/evaluate.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace nibble {
namespace {

constexpr std::int64_t kDefaultMaxLength = 2048;  // of models without a limit of their own

// Code points of valid UTF-8.
double characters(const std::string& text) {
  return static_cast<double>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0u) != 0x80u;
  }));
}

// Of a tie the first choice counts.
std::int64_t best_choice(const TaskDoc& doc, std::span<const Likelihood> scores, bool normalise) {
  std::size_t best = 0;
  double best_score = 0;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    const double score = scores[i].log_likelihood / (normalise ? characters(doc.choices[i]) : 1.0);
    if (i == 0 || score > best_score) {
      best = i;
      best_score = score;
    }
  }
  return static_cast<std::int64_t>(best);
}

// What one document adds to the mean of a metric.
double value_of(TaskMetric metric, const TaskDoc& doc, std::span<const Likelihood> scores) {
  switch (metric) {
    case TaskMetric::kAcc:
      return best_choice(doc, scores, false) == doc.gold ? 1 : 0;
    case TaskMetric::kAccNorm:
      return best_choice(doc, scores, true) == doc.gold ? 1 : 0;
    case TaskMetric::kGreedyAcc:
      return scores[0].greedy ? 1 : 0;
    case TaskMetric::kPerplexity:
      return scores[0].log_likelihood;
  }
  fail(ErrorKind::kInternal, "unknown task metric {}", static_cast<int>(metric));
}

TaskFigure figure_of(TaskMetric metric, const std::vector<double>& values) {
  const auto n = static_cast<double>(values.size());
  double sum = 0;
  for (const double v : values) sum += v;
  const double mean = sum / n;
  double squares = 0;
  for (const double v : values) squares += (v - mean) * (v - mean);
  const double error = values.size() > 1 ? std::sqrt(squares / (n - 1) / n) : 0;
  if (metric != TaskMetric::kPerplexity) return {to_string(metric), mean, error};
  const double perplexity = std::exp(-mean);
  return {to_string(metric), perplexity, perplexity * error};
}

}  // namespace

std::vector<TaskFigure> task_figures(const Task& task, std::span<const TaskDoc> docs,
                                     std::span<const Likelihood> likelihoods) {
  std::vector<TaskFigure> figures;
  for (const TaskMetric metric : task.metrics) {
    std::vector<double> values;
    std::size_t at = 0;
    for (const TaskDoc& doc : docs) {
      values.push_back(value_of(metric, doc, likelihoods.subspan(at, doc.requests.size())));
      at += doc.requests.size();
    }
    NIBBLE_CHECK(at == likelihoods.size());
    figures.push_back(figure_of(metric, values));
  }
  return figures;
}

TaskResult evaluate_task(const Model& model, const Tokenizer& tokenizer, const TaskFile& file,
                         const TaskOptions& options, const ProgressSink& progress) {
  const std::vector<TaskDoc> docs = read_task_docs(file, options.limit);
  std::vector<TokenPair> pairs;
  for (const TaskDoc& doc : docs) {
    for (const TaskRequest& request : doc.requests) {
      pairs.push_back(encode_pair(tokenizer, request, options.special_tokens));
    }
  }
  const std::int64_t limit =
      model.spec().max_positions > 0 ? model.spec().max_positions : kDefaultMaxLength;
  const std::int64_t max_length = options.max_length > 0 ? options.max_length : limit;
  TaskResult result;
  result.task = file.task->name;
  result.docs = static_cast<std::int64_t>(docs.size());
  result.figures =
      task_figures(*file.task, docs, likelihoods(model, pairs, max_length, result.task, progress));
  return result;
}

}  // namespace nibble
