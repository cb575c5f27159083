#include <fmt/format.h>

#include "base/error.h"
#include "base/file.h"
#include "cli/command.h"
#include "cli/terminal.h"
#include "eval/perplexity.h"
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
};

WindowOptions window_options(const TextOptions& options, const Tokenizer& tokenizer) {
  WindowOptions window{.context = options.context, .max_tokens = options.tokens};
  if (options.protocol == "llama.cpp") window.protocol = WindowProtocol::kLlamaCpp;
  if (const auto bos = tokenizer.bos()) window.bos = *bos;
  return window;
}

std::vector<std::int32_t> tokenize_file(const Tokenizer& tokenizer, const std::string& path) {
  return tokenizer.encode(read_text_file(path), {.parse_special = false});
}

Json perplexity_json(const PerplexityResult& result) {
  return {{"perplexity", result.perplexity}, {"predicted", result.predicted},
          {"tokens", result.tokens},         {"mean_nll", result.mean_nll},
          {"stderr", result.stderr_nll},     {"nan", result.nan}};
}

void eval_ppl(const TextOptions& options, Context& context) {
  const auto backend = context.make_backend();
  const Session session = open_session(options.model, *backend);
  const Tokenizer& tokenizer = session.require_tokenizer();
  const auto ids = tokenize_file(tokenizer, options.text);
  const PerplexityResult result =
      perplexity(*session.model, ids, window_options(options, tokenizer), context.progress());
  context.emit(
      perplexity_json(result),
      fmt::format("perplexity {:.4f} (nll {:.5f} ± {:.5f}) over {} predictions of {} tokens\n",
                  result.perplexity, result.mean_nll, result.stderr_nll, result.predicted,
                  result.tokens));
}

void eval_kl(const TextOptions& options, Context& context) {
  const auto backend = context.make_backend();
  const Session model = open_session(options.model, *backend);
  const Session reference = open_session(options.reference, *backend);
  const Tokenizer& tokenizer = reference.require_tokenizer();
  const auto ids = tokenize_file(tokenizer, options.text);
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
                     {"nan", result.model.nan}};
  context.emit(
      json, fmt::format("mean KL {:.6f} nats (99 % below {:.5f}, largest {:.4f})\n"
                        "top-1 agreement {:.3f} %\n"
                        "perplexity {:.4f}, reference {:.4f} ({:+.3f} %)\n",
                        result.mean_kl, result.p99_kl, result.max_kl, 100 * result.top1_agreement,
                        result.model.perplexity, result.reference.perplexity,
                        100 * (result.model.perplexity / result.reference.perplexity - 1)));
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
}

}  // namespace nibble::cli
