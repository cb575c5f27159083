#include <algorithm>
#include <numeric>
#include <utility>

#include "server/answer.h"
#include "server/endpoints.h"

namespace nibble::server {
namespace {

struct Choice {
  std::string prompt;  // to be echoed
  std::string text;
  std::optional<CompletionLogprobs> logprobs;
  std::optional<FinishReason> finish;
  double total_logprob = 0;
  std::int64_t tokens = 0;
  std::int64_t cached = 0;
  bool echoed = false;
};

class CompletionAnswer {
 public:
  CompletionAnswer(Service& service, const std::shared_ptr<Exchange>& exchange,
                   CompletionRequest request)
      : service_(service),
        request_(std::move(request)),
        writer_(service, exchange, "cmpl", "text_completion", "text_completion", request_.common) {}

  // What the engine shall do, prompt by prompt, `best_of` for each.
  std::vector<EngineRequest> plan();
  void begin() {
    if (writer_.streams()) writer_.begin();
  }
  void update(std::size_t index, EngineUpdate& update);
  void done();
  void fail(const ApiError& error) { writer_.fail(error); }

 private:
  bool wants_logprobs() const { return request_.logprobs >= 0; }
  // With max_tokens 0 one token is made, for the prompt's sake, and dropped.
  bool drops_answer() const { return request_.common.max_tokens == 0; }
  std::string echo_text(const Prompt& prompt) const;
  void take_tokens(Choice& choice, const EngineUpdate& update);
  void write_chunk(std::size_t index, Choice& choice, std::string text);
  Json choice_json(std::int64_t index, Choice& choice, const std::string& text) const;
  std::vector<std::size_t> best(std::size_t first) const;

  Service& service_;
  CompletionRequest request_;
  AnswerWriter writer_;
  std::vector<Choice> choices_;
  GenerationUsage usage_;
};

std::string CompletionAnswer::echo_text(const Prompt& prompt) const {
  if (const auto* text = std::get_if<std::string>(&prompt)) return *text;
  return service_.tokenizer().decode(std::get<std::vector<std::int32_t>>(prompt), false);
}

std::vector<EngineRequest> CompletionAnswer::plan() {
  constexpr std::int64_t kDefaultTokens = 16;  // OpenAI's
  std::vector<EngineRequest> all;
  for (const Prompt& prompt : request_.prompts) {
    std::vector<std::int32_t> ids = service_.encode(prompt, request_.add_special_tokens);
    usage_.prompt_tokens += static_cast<std::int64_t>(ids.size());
    for (EngineRequest& one :
         service_.requests(request_.common, std::move(ids), request_.best_of, kDefaultTokens)) {
      const bool scored = request_.best_of > request_.common.n;
      one.logprobs = std::max<std::int64_t>(request_.logprobs, scored ? 0 : -1);
      one.prompt_logprobs = request_.echo && wants_logprobs();
      all.push_back(std::move(one));
      Choice& choice = choices_.emplace_back();
      if (request_.echo) choice.prompt = echo_text(prompt);
      if (wants_logprobs()) {
        choice.logprobs.emplace(service_.token_text(), request_.common.tokens_as_ids);
      }
    }
  }
  return all;
}

void CompletionAnswer::take_tokens(Choice& choice, const EngineUpdate& update) {
  if (choice.logprobs) {
    for (std::size_t i = 0; i < update.prompt_tokens.size(); ++i) {
      choice.logprobs->add(update.prompt_tokens[i], i > 0);
    }
  }
  if (drops_answer()) return;
  for (const EngineToken& token : update.tokens) {
    if (choice.logprobs) choice.logprobs->add(token);
    choice.total_logprob += token.chosen.logprob;
  }
  choice.tokens += static_cast<std::int64_t>(update.tokens.size());
  usage_.completion_tokens += static_cast<std::int64_t>(update.tokens.size());
}

void CompletionAnswer::update(std::size_t index, EngineUpdate& update) {
  Choice& choice = choices_[index];
  take_tokens(choice, update);
  if (index % static_cast<std::size_t>(request_.best_of) == 0) {
    usage_.cached_tokens += grown(choice.cached, update.cached_prompt_tokens);
  }
  choice.finish = update.finish;
  std::string text;
  if (request_.echo && !std::exchange(choice.echoed, true)) text = choice.prompt;
  if (!drops_answer()) text += update.text;
  if (writer_.streams()) {
    if (!text.empty() || choice.finish || (wants_logprobs() && !update.tokens.empty())) {
      write_chunk(index, choice, std::move(text));
    }
  } else {
    choice.text += text;
  }
}

Json CompletionAnswer::choice_json(std::int64_t index, Choice& choice,
                                   const std::string& text) const {
  Json json = {{"index", index}, {"text", text}, {"logprobs", nullptr}, {"finish_reason", nullptr}};
  if (choice.logprobs) json["logprobs"] = choice.logprobs->take();
  if (choice.finish) json["finish_reason"] = to_string(*choice.finish);
  if (drops_answer() && choice.finish) json["finish_reason"] = "length";
  return json;
}

void CompletionAnswer::write_chunk(std::size_t index, Choice& choice, std::string text) {
  writer_.chunk(choice_json(static_cast<std::int64_t>(index), choice, text));
}

// The `n` of one prompt's answers with the greatest log-probability a token, best first.
std::vector<std::size_t> CompletionAnswer::best(std::size_t first) const {
  std::vector<std::size_t> order(static_cast<std::size_t>(request_.best_of));
  std::iota(order.begin(), order.end(), first);
  if (request_.best_of > request_.common.n) {
    const auto score = [&](std::size_t i) {
      const Choice& choice = choices_[i];
      return choice.total_logprob / static_cast<double>(std::max<std::int64_t>(choice.tokens, 1));
    };
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return score(a) > score(b); });
    order.resize(static_cast<std::size_t>(request_.common.n));
  }
  return order;
}

void CompletionAnswer::done() {
  Json choices = Json::array();
  if (!writer_.streams()) {
    const auto step = static_cast<std::size_t>(request_.best_of);
    for (std::size_t first = 0; first < choices_.size(); first += step) {
      for (const std::size_t i : best(first)) {
        choices.push_back(
            choice_json(static_cast<std::int64_t>(choices.size()), choices_[i], choices_[i].text));
      }
    }
  }
  writer_.finish(std::move(choices), usage_);
}

}  // namespace

void serve_completion(Service& service, std::shared_ptr<Exchange> exchange) {
  ParsedCompletion parsed = parse_completion(exchange->request().body, service.options().defaults);
  service.require_model(parsed.request.common.model);
  note_ignored(*exchange, parsed.ignored);
  start_answer(service, exchange,
               std::make_shared<CompletionAnswer>(service, exchange, std::move(parsed.request)));
}

}  // namespace nibble::server
