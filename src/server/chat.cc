#include <utility>

#include "server/answer.h"
#include "server/chat_request.h"
#include "server/endpoints.h"
#include "server/tool_calls.h"

namespace nibble::server {
namespace {

struct ChatChoice {
  ToolCallParser parser;
  std::string text;
  Json calls = Json::array();  // as "tool_calls" of a message
  Json logprobs = Json::array();
  std::optional<FinishReason> finish;
};

class ChatAnswer {
 public:
  ChatAnswer(Service& service, const std::shared_ptr<Exchange>& exchange, ChatRequest request)
      : service_(service),
        request_(std::move(request)),
        writer_(service, exchange, "chatcmpl", "chat.completion", "chat.completion.chunk",
                request_.common) {}

  std::vector<EngineRequest> plan();
  void begin();
  void update(std::size_t index, EngineUpdate& update);
  void done();
  void fail(const ApiError& error) { writer_.fail(error); }

 private:
  // The text and the calls in what came.
  ToolCallParser::Found sift(ChatChoice& choice, const EngineUpdate& update) const;
  Json take_calls(ChatChoice& choice, const std::vector<ToolCall>& found, bool with_index);
  std::string finish_reason(const ChatChoice& choice) const;
  Json take_logprobs(ChatChoice& choice) const;
  void write_chunk(std::size_t index, ChatChoice& choice, Json delta);

  Service& service_;
  ChatRequest request_;
  AnswerWriter writer_;
  std::vector<ChatChoice> choices_;
  GenerationUsage usage_;
};

std::vector<EngineRequest> ChatAnswer::plan() {
  const std::string prompt = service_.render(request_.conversation);
  // Templates write the special tokens themselves.
  std::vector<std::int32_t> ids = service_.encode(prompt, false);
  usage_.prompt_tokens = static_cast<std::int64_t>(ids.size());
  std::vector<EngineRequest> all =
      service_.requests(request_.common, std::move(ids), request_.common.n, std::nullopt);
  if (request_.logprobs) {
    for (EngineRequest& one : all) one.logprobs = request_.top_logprobs;
  }
  choices_.resize(all.size());
  return all;
}

void ChatAnswer::begin() {
  if (!writer_.streams()) return;
  writer_.begin();
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    write_chunk(i, choices_[i], {{"role", "assistant"}, {"content", ""}});
  }
}

ToolCallParser::Found ChatAnswer::sift(ChatChoice& choice, const EngineUpdate& update) const {
  if (!request_.tools) return {update.text, {}};
  ToolCallParser::Found found = choice.parser.push(update.text);
  if (update.finish) {
    ToolCallParser::Found rest = choice.parser.finish();
    found.text += rest.text;
    for (ToolCall& call : rest.calls) found.calls.push_back(std::move(call));
  }
  return found;
}

// Adds calls to the choice's; gives what is new, as a stream says it when `with_index`.
Json ChatAnswer::take_calls(ChatChoice& choice, const std::vector<ToolCall>& found,
                            bool with_index) {
  Json fresh = Json::array();
  for (const ToolCall& call : found) {
    if (!request_.parallel_tool_calls && !choice.calls.empty()) break;
    Json json = {{"id", service_.new_id("call")},
                 {"type", "function"},
                 {"function", {{"name", call.name}, {"arguments", call.arguments}}}};
    if (with_index) json["index"] = choice.calls.size();
    choice.calls.push_back(json);
    fresh.push_back(std::move(json));
  }
  return fresh;
}

std::string ChatAnswer::finish_reason(const ChatChoice& choice) const {
  const bool called = !choice.calls.empty() && choice.finish == FinishReason::kStop;
  return called ? "tool_calls" : to_string(*choice.finish);
}

Json ChatAnswer::take_logprobs(ChatChoice& choice) const {
  if (!request_.logprobs) return nullptr;
  return {{"content", std::exchange(choice.logprobs, Json::array())}};
}

void ChatAnswer::write_chunk(std::size_t index, ChatChoice& choice, Json delta) {
  Json json = {{"index", index},
               {"delta", std::move(delta)},
               {"logprobs", take_logprobs(choice)},
               {"finish_reason", nullptr}};
  if (choice.finish) json["finish_reason"] = finish_reason(choice);
  writer_.chunk(std::move(json));
}

void ChatAnswer::update(std::size_t index, EngineUpdate& update) {
  ChatChoice& choice = choices_[index];
  usage_.completion_tokens += static_cast<std::int64_t>(update.tokens.size());
  if (index == 0) grown(usage_.cached_tokens, update.cached_prompt_tokens);
  if (request_.logprobs) {
    for (const EngineToken& token : update.tokens) {
      choice.logprobs.push_back(
          chat_logprob(token, service_.token_text(), request_.common.tokens_as_ids));
    }
  }
  choice.finish = update.finish;
  const ToolCallParser::Found found = sift(choice, update);
  Json calls = take_calls(choice, found.calls, writer_.streams());
  if (!writer_.streams()) {
    choice.text += found.text;
    return;
  }
  Json delta = Json::object();
  if (!found.text.empty()) delta["content"] = found.text;
  if (!calls.empty()) delta["tool_calls"] = std::move(calls);
  if (!delta.empty() || choice.finish || !choice.logprobs.empty()) {
    write_chunk(index, choice, std::move(delta));
  }
}

void ChatAnswer::done() {
  Json choices = Json::array();
  if (!writer_.streams()) {
    for (std::size_t i = 0; i < choices_.size(); ++i) {
      ChatChoice& choice = choices_[i];
      Json message = {{"role", "assistant"}, {"content", choice.text}, {"refusal", nullptr}};
      if (!choice.calls.empty()) {
        message["tool_calls"] = choice.calls;
        if (choice.text.empty()) message["content"] = nullptr;
      }
      choices.push_back({{"index", i},
                         {"message", std::move(message)},
                         {"logprobs", take_logprobs(choice)},
                         {"finish_reason", finish_reason(choice)}});
    }
  }
  writer_.finish(std::move(choices), usage_);
}

}  // namespace

void serve_chat(Service& service, std::shared_ptr<Exchange> exchange) {
  ParsedChat parsed = parse_chat(exchange->request().body, service.options().defaults);
  service.require_model(parsed.request.common.model);
  note_ignored(*exchange, parsed.ignored);
  start_answer(service, exchange,
               std::make_shared<ChatAnswer>(service, exchange, std::move(parsed.request)));
}

}  // namespace nibble::server
