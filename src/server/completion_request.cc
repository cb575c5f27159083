#include "server/completion_request.h"

#include <algorithm>

#include "server/api_error.h"
#include "server/structured_output.h"

namespace nibble::server {
namespace {

constexpr const char* kPromptForms =
    "must be a string, a list of strings, a list of tokens or a "
    "list of lists of tokens, not empty";

std::vector<std::int32_t> ids_of(const Json& list, std::string_view name, std::int64_t vocab) {
  std::vector<std::int32_t> ids;
  ids.reserve(list.size());
  for (const Json& id : list) ids.push_back(token_id(id, name, vocab));
  return ids;
}

void check_choices(const CompletionRequest& request) {
  if (request.best_of < request.common.n) refuse_member("best_of", "must not be less than n");
  if (request.common.stream && request.best_of > request.common.n) {
    refuse_member("best_of", "answers that are still to be chosen from cannot be streamed");
  }
  const auto prompts = static_cast<std::int64_t>(request.prompts.size());
  if (prompts * request.best_of > kMostSequences) {
    refuse_member("prompt", fmt::format("prompts times best_of is more than {}", kMostSequences));
  }
}

}  // namespace

std::vector<Prompt> read_prompts(Fields& fields, std::string_view name, std::int64_t vocab) {
  const Json* prompt = fields.find(name);
  if (prompt == nullptr) refuse_member(std::string(name), "is missing");
  if (prompt->is_string()) return {prompt->get<std::string>()};
  if (!prompt->is_array() || prompt->empty()) refuse_member(std::string(name), kPromptForms);
  if (prompt->front().is_number()) return {ids_of(*prompt, name, vocab)};
  if (prompt->size() > static_cast<std::size_t>(kMostSequences)) {
    refuse_member(std::string(name),
                  fmt::format("more than {} of them in one request", kMostSequences));
  }
  std::vector<Prompt> prompts;
  for (const Json& one : *prompt) {
    if (one.is_string()) {
      prompts.emplace_back(one.get<std::string>());
    } else if (one.is_array() && !one.empty()) {
      prompts.emplace_back(ids_of(one, name, vocab));
    } else {
      refuse_member(std::string(name), kPromptForms);
    }
  }
  return prompts;
}

ParsedCompletion parse_completion(std::string_view body, const RequestDefaults& defaults) {
  const Json json = parse_json(body, "the request's body");
  Fields fields(json);
  ParsedCompletion parsed;
  CompletionRequest& request = parsed.request;
  request.common = read_generation(fields, defaults);
  request.common.engine.structure = read_structure(fields, body);
  request.prompts = read_prompts(fields, "prompt", defaults.vocab);
  request.echo = fields.boolean("echo").value_or(false);
  request.best_of = fields.integer("best_of", 1, kMostChoices).value_or(request.common.n);
  request.logprobs = fields.integer("logprobs", 0, kMostLogprobs).value_or(-1);
  request.add_special_tokens = fields.boolean("add_special_tokens").value_or(true);
  if (const auto suffix = fields.text("suffix"); suffix && !suffix->empty()) {
    refuse_member("suffix", "filling in before a suffix is not supported");
  }
  if (request.common.max_tokens == 0 && !request.echo) {
    refuse_member("max_tokens", "0 gives nothing unless the prompt is echoed");
  }
  check_choices(request);
  parsed.ignored = fields.unread();
  return parsed;
}

}  // namespace nibble::server
