// /tokenize and /detokenize, as vLLM has them.
#include "server/answer.h"
#include "server/chat_request.h"
#include "server/endpoints.h"

namespace nibble::server {
namespace {

constexpr std::size_t kMostTokens = std::size_t{1} << 22;

std::vector<std::int32_t> tokens_of(const Service& service, Fields& fields, std::string_view body) {
  if (fields.find("messages") != nullptr) {
    const auto ordered = nlohmann::ordered_json::parse(body.begin(), body.end());
    const std::string text = service.render(read_conversation(ordered));
    return service.encode(text, fields.boolean("add_special_tokens").value_or(false));
  }
  const auto prompt = fields.text("prompt");
  if (!prompt) refuse_member("prompt", "is missing (or messages)");
  return service.encode(*prompt, fields.boolean("add_special_tokens").value_or(true));
}

}  // namespace

void serve_tokenize(Service& service, std::shared_ptr<Exchange> exchange) {
  const std::string& body = exchange->request().body;
  const Json json = parse_json(body, "the request's body");
  Fields fields(json);
  service.require_model(fields.text("model").value_or(""));
  const std::vector<std::int32_t> ids = tokens_of(service, fields, body);
  Json answer = {
      {"count", ids.size()}, {"max_model_len", service.max_model_len()}, {"tokens", ids}};
  if (fields.boolean("return_token_strs").value_or(false)) {
    Json pieces = Json::array();
    for (const std::int32_t id : ids) pieces.push_back(service.tokenizer().piece(id));
    answer["token_strs"] = std::move(pieces);
  }
  exchange->respond(json_response(answer));
}

void serve_detokenize(Service& service, std::shared_ptr<Exchange> exchange) {
  const Json json = parse_json(exchange->request().body, "the request's body");
  Fields fields(json);
  service.require_model(fields.text("model").value_or(""));
  if (fields.find("tokens") == nullptr) refuse_member("tokens", "is missing");
  const auto ids = fields.ids("tokens", kMostTokens, service.tokenizer().vocab_size());
  exchange->respond(json_response({{"prompt", service.tokenizer().decode(ids, false)}}));
}

}  // namespace nibble::server
