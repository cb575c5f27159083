#include <fmt/format.h>

#include "base/error.h"
#include "cli/command.h"
#include "cli/rounding_options.h"
#include "cli/terminal.h"
#include "eval/logits.h"
#include "eval/perplexity.h"
#include "eval/tasks/evaluate.h"
#include "eval/text.h"
#include "model/arch.h"
#include "runtime/session.h"

namespace nibble::cli {
namespace {

struct TextOptions {
  std::string model;
  std::string reference;  // kl only
  std::string text;
  std::string protocol = "windows";
  std::int64_t context = 1024;
  std::int64_t tokens = 0;
  std::string kv_type;
  RoundingArguments rounding;
};

constexpr const char* kFormatHelp = "Round the model to this format at load (w=..,a=..,e=..,kv=..)";

WindowOptions window_options(const TextOptions& options, const Tokenizer& tokenizer) {
  WindowOptions window{.context = options.context, .max_tokens = options.tokens};
  if (options.protocol == "llama.cpp") window.protocol = WindowProtocol::kLlamaCpp;
  if (const auto bos = tokenizer.bos()) window.bos = *bos;
  window.kv_type = parse_kv_format(options.kv_type);
  if (!window.kv_type) window.kv_type = rounding_of(options.rounding).kv;
  return window;
}

Json perplexity_json(const PerplexityResult& result) {
  return {{"perplexity", result.perplexity}, {"predicted", result.predicted},
          {"tokens", result.tokens},         {"mean_nll", result.mean_nll},
          {"stderr", result.stderr_nll},     {"nan", result.nan}};
}

void eval_ppl(const TextOptions& options, Context& context) {
  const auto backend = context.make_backend();
  const Session session =
      context.open(options.model, *backend, std::nullopt, rounding_of(options.rounding));
  const Tokenizer& tokenizer = session.require_tokenizer();
  const auto ids = read_text_ids(tokenizer, options.text);
  const PerplexityResult result =
      perplexity(*session.model, ids, window_options(options, tokenizer), context.progress());
  Json json = perplexity_json(result);
  json["execution"] = execution_json(*session.model);
  context.emit(
      json,
      fmt::format("perplexity {:.4f} (nll {:.5f} ± {:.5f}) over {} predictions of {} tokens\n{}",
                  result.perplexity, result.mean_nll, result.stderr_nll, result.predicted,
                  result.tokens, execution_text(*session.model)));
}

void eval_kl(const TextOptions& options, Context& context) {
  const auto backend = context.make_backend();
  const Session model =
      context.open(options.model, *backend, std::nullopt, rounding_of(options.rounding));
  const Session reference = context.open(options.reference, *backend);
  const Tokenizer& tokenizer = reference.require_tokenizer();
  const auto ids = read_text_ids(tokenizer, options.text);
  const DivergenceResult result = divergence(
      *model.model, *reference.model, ids, window_options(options, tokenizer), context.progress());
  const Json json = {{"mean_kl", result.mean_kl},
                     {"p99_kl", result.p99_kl},
                     {"max_kl", result.max_kl},
                     {"top1_agreement", result.top1_agreement},
                     {"perplexity", result.model.perplexity},
                     {"perplexity_reference", result.reference.perplexity},
                     {"predicted", result.model.predicted},
                     {"tokens", result.model.tokens},
                     {"nan", result.model.nan},
                     {"execution", execution_json(*model.model)}};
  context.emit(
      json, fmt::format("mean KL {:.6f} nats (99 % below {:.5f}, largest {:.4f})\n"
                        "top-1 agreement {:.3f} %\n"
                        "perplexity {:.4f}, reference {:.4f} ({:+.3f} %)\n{}",
                        result.mean_kl, result.p99_kl, result.max_kl, 100 * result.top1_agreement,
                        result.model.perplexity, result.reference.perplexity,
                        100 * (result.model.perplexity / result.reference.perplexity - 1),
                        execution_text(*model.model)));
}

struct LogitsOptions {
  std::string model;
  std::string ids;
  std::string out;
  RoundingArguments rounding;
};

void eval_logits(const LogitsOptions& options, Context& context) {
  const auto backend = context.make_backend();
  const Session session =
      context.open(options.model, *backend, std::nullopt, rounding_of(options.rounding));
  const Model& model = *session.model;
  const IdMatrix ids = read_ids(options.ids, model.spec().vocab);
  const Shape shape = write_logits(model, ids, options.out, context.progress());
  context.emit({{"shape", shape}}, fmt::format("{}: float32 {}\n", options.out, to_string(shape)));
}

struct TasksOptions {
  std::string model;
  std::vector<std::string> tasks;
  TaskOptions task;
  bool no_special = false;
  RoundingArguments rounding;
};

void eval_tasks(const TasksOptions& options, Context& context) {
  const auto backend = context.make_backend();
  std::vector<TaskFile> files;  // all are looked at before the model is loaded
  for (const std::string& task : options.tasks) files.push_back(open_task(task));
  const Session session =
      context.open(options.model, *backend, std::nullopt, rounding_of(options.rounding));
  TaskOptions task_options = options.task;
  task_options.special_tokens = !options.no_special;
  Json rows = Json::array();
  std::vector<std::vector<std::string>> table = {{"task", "docs", "metric", "value", "stderr"}};
  for (const TaskFile& file : files) {
    const TaskResult result = evaluate_task(*session.model, session.require_tokenizer(), file,
                                            task_options, context.progress());
    Json row = {{"task", result.task}, {"docs", result.docs}};
    for (const TaskFigure& figure : result.figures) {
      row[figure.metric] = figure.value;
      row[figure.metric + "_stderr"] = figure.std_error;
      table.push_back({result.task, std::to_string(result.docs), figure.metric,
                       fmt::format("{:.4f}", figure.value),
                       fmt::format("{:.4f}", figure.std_error)});
    }
    rows.push_back(std::move(row));
  }
  context.emit({{"rows", rows}, {"execution", execution_json(*session.model)}},
               format_table(table) + execution_text(*session.model));
}

void add_logits(CLI::App* command, Context& context) {
  auto options = add_command<LogitsOptions>(command, context, eval_logits);
  command->add_option("model", options->model, "Checkpoint")->required();
  command->add_option("--ids", options->ids, "Token ids, .npy int32 [batch, seq]")->required();
  command->add_option("--out", options->out, "Result, .npy float32 [batch, seq, vocab]")
      ->required();
  add_rounding_options(command, options->rounding, kFormatHelp);
}

void add_tasks(CLI::App* command, Context& context) {
  auto options = add_command<TasksOptions>(command, context, eval_tasks);
  command->add_option("model", options->model, "Checkpoint")->required();
  command->add_option("--tasks", options->tasks, "FILE or NAME=FILE, JSON lines")->required();
  command->add_option("--limit", options->task.limit, "First documents only (0: all)")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--max-length", options->task.max_length, "Tokens the model reads at most")
      ->check(CLI::NonNegativeNumber);
  command->add_flag("--no-special", options->no_special, "Add no BOS");
  add_rounding_options(command, options->rounding, kFormatHelp);
}

std::shared_ptr<TextOptions> add_text_command(CLI::App* command, Context& context,
                                              void (*body)(const TextOptions&, Context&)) {
  auto options = add_command<TextOptions>(command, context, body);
  command->add_option("model", options->model, "Checkpoint")->required();
  command->add_option("--text", options->text, "UTF-8 text file")->required();
  command->add_option("--context", options->context, "Tokens in a window")
      ->check(CLI::Range(std::int64_t{2}, std::int64_t{1} << 24))
      ->capture_default_str();
  command->add_option("--tokens", options->tokens, "Use only so many tokens of the text (0: all)")
      ->check(CLI::NonNegativeNumber);
  add_kv_option(command, options->kv_type, "no cache");
  add_rounding_options(command, options->rounding, kFormatHelp);
  command->add_option("--protocol", options->protocol, "How windows are scored")
      ->check(CLI::IsMember({"windows", "llama.cpp"}))
      ->capture_default_str();
  return options;
}

}  // namespace

void add_eval(CLI::App& app, Context& context) {
  CLI::App* eval = app.add_subcommand("eval", "What a model knows, and what quantization took");
  eval->require_subcommand(1);
  add_text_command(eval->add_subcommand("ppl", "Perplexity on a text"), context, eval_ppl);
  CLI::App* kl =
      eval->add_subcommand("kl", "Distance of the output distribution to another model's");
  const auto options = add_text_command(kl, context, eval_kl);
  kl->add_option("--reference", options->reference, "The model to compare with")->required();
  add_logits(eval->add_subcommand("logits", "Raw logits of given token ids"), context);
  add_tasks(eval->add_subcommand("tasks", "Accuracy on multiple-choice and cloze tasks"), context);
}

}  // namespace nibble::cli
