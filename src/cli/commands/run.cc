#include <fmt/format.h>

#include <algorithm>
#include <ostream>

#include "base/error.h"
#include "base/file.h"
#include "cli/command.h"
#include "cli/rounding_options.h"
#include "model/tokenizer/chat_template.h"
#include "runtime/generate.h"

namespace nibble::cli {
namespace {

struct RunOptions {
  std::string model;
  std::string prompt;
  std::string prompt_file;
  std::string system;
  bool chat = false;
  std::string kv_type;
  RoundingArguments rounding;
  GenerateOptions generate;
};

std::string prompt_text(const RunOptions& options) {
  return options.prompt_file.empty() ? options.prompt : read_text_file(options.prompt_file);
}

std::string piece_or_empty(const Tokenizer& tokenizer, std::optional<std::int32_t> id) {
  return id ? tokenizer.piece(*id) : "";
}

// The prompt as the model's chat template lays out a conversation of one question.
std::string chat_text(const RunOptions& options, const Session& session, Context& context) {
  const std::optional<std::string> stored = chat_template_of(*session.checkpoint);
  if (!stored) {
    log(context.log(), LogLevel::kWarning,
        "the model has no chat template: using plain \"role: text\" paragraphs");
  }
  const Tokenizer& tokenizer = session.require_tokenizer();
  Json messages = Json::array();
  if (!options.system.empty()) {
    messages.push_back({{"role", "system"}, {"content", options.system}});
  }
  messages.push_back({{"role", "user"}, {"content", prompt_text(options)}});
  const Json conversation = {{"messages", std::move(messages)},
                             {"add_generation_prompt", true},
                             {"bos_token", piece_or_empty(tokenizer, tokenizer.bos())},
                             {"eos_token", piece_or_empty(tokenizer, tokenizer.eos())}};
  return apply_chat_template(stored ? *stored : fallback_chat_template(), conversation);
}

std::vector<std::int32_t> prompt_ids(const RunOptions& options, const Session& session,
                                     Context& context) {
  const Tokenizer& tokenizer = session.require_tokenizer();
  if (!options.chat) return tokenizer.encode(prompt_text(options));
  // Templates write the special tokens themselves.
  return tokenizer.encode(chat_text(options, session, context), {.add_special = false});
}

Json result_json(const GenerateResult& result, const std::vector<std::int32_t>& prompt,
                 const Tokenizer& tokenizer) {
  std::vector<std::int32_t> all = prompt;
  all.insert(all.end(), result.ids.begin(), result.ids.end());
  return {{"text", result.text},
          {"ids", result.ids},
          {"prompt_tokens", result.prompt_tokens},
          {"tokens_per_second", result.tokens_per_second},
          {"prefill_seconds", result.prefill_seconds},
          {"decode_seconds", result.decode_seconds},
          {"finish_reason", to_string(result.finish_reason)},
          {"full_text", tokenizer.decode(all)},
          {"full_ids", all}};
}

// Keys and values of the answer; those of the prompt come besides, but how long it is only the
// model's tokenizer knows.
Room room_of(const GenerateOptions& options, const ModelSpec& spec, const KvFormat& kv_type) {
  std::int64_t tokens = options.max_new_tokens;
  if (options.context > 0) tokens = std::min(tokens, options.context);
  if (spec.max_positions > 0) tokens = std::min(tokens, spec.max_positions);
  Room room;
  room.cache = static_cast<std::size_t>(KvPool::block_bytes(spec, tokens, kv_type));
  return room;
}

void run(const RunOptions& options, Context& context) {
  const auto backend = context.make_backend();
  const Session session = context.open(options.model, *backend, parse_kv_format(options.kv_type),
                                       rounding_of(options.rounding),
                                       [&](const ModelSpec& spec, const KvFormat& kv_type) {
                                         return room_of(options.generate, spec, kv_type);
                                       });
  const std::vector<std::int32_t> prompt = prompt_ids(options, session, context);
  GenerateOptions generate_options = options.generate;
  if (generate_options.stop_ids.empty()) generate_options.stop_ids = default_stop_ids(session);

  TextSink sink;
  if (!context.json) {
    if (!options.chat) context.out() << prompt_text(options) << std::flush;
    sink = [&context](std::string_view piece) {
      context.out() << piece << std::flush;
      return static_cast<bool>(context.out());
    };
  }
  const GenerateResult result = generate(session, prompt, generate_options, sink);
  Json json = result_json(result, prompt, *session.tokenizer);
  json["execution"] = execution_json(*session.model);
  context.emit(json, "\n");
  log(context.log(), LogLevel::kInfo,
      fmt::format("{} prompt tokens in {:.2f} s, {} generated, {:.1f} tokens/s",
                  result.prompt_tokens, result.prefill_seconds, result.ids.size(),
                  result.tokens_per_second));
}

void add_sampling_options(CLI::App* command, SamplingOptions& sampling) {
  command->add_option("--temperature", sampling.temperature, "0 is greedy")->capture_default_str();
  command->add_option("--top-k", sampling.top_k, "Keep the k likeliest (0: all)");
  command->add_option("--top-p", sampling.top_p, "Keep the likeliest that sum to p");
  command->add_option("--min-p", sampling.min_p, "Drop what is below p times the likeliest");
  command->add_option("--repetition-penalty", sampling.repetition_penalty,
                      "Above 1 makes repeating less likely");
  command->add_option("--frequency-penalty", sampling.frequency_penalty,
                      "Taken from a token's logit for each time it was generated");
  command->add_option("--presence-penalty", sampling.presence_penalty,
                      "Taken once from the logit of what was generated");
  command->add_option("--seed", sampling.seed, "Seed of the draws")->capture_default_str();
}

}  // namespace

void add_run(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("run", "Generate text");
  auto options = add_command<RunOptions>(command, context, run);
  command->add_option("model", options->model, "Checkpoint")->required();
  auto* prompt = command->add_option("-p,--prompt", options->prompt, "The prompt (default: empty)");
  command->add_option("--prompt-file", options->prompt_file, "Read the prompt from a file")
      ->excludes(prompt);
  command->add_option("-n,--max-tokens", options->generate.max_new_tokens, "Tokens to generate")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--stop", options->generate.stop, "Text that ends the answer (repeatable)");
  command->add_option("--context", options->generate.context, "Most tokens of prompt and answer")
      ->check(CLI::NonNegativeNumber);
  command->add_flag("--chat", options->chat, "The prompt is a message: apply the chat template");
  command->add_option("--system", options->system, "System message of --chat");
  add_kv_option(command, options->kv_type, "the type of the stored embedding");
  add_rounding_options(command, options->rounding,
                       "Round the model to this format at load (w=..,a=..,e=..,kv=..)");
  add_sampling_options(command, options->generate.sampling);
}

}  // namespace nibble::cli
