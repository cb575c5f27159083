#include "server/answer.h"

#include <fmt/ranges.h>

#include <ctime>
#include <utility>

namespace nibble::server {
namespace {

std::string event(const Json& json) { return "data: " + dump(json) + "\n\n"; }

}  // namespace

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

HttpResponse json_response(const Json& json) {
  HttpResponse response;
  response.body = dump(json);
  return response;
}

AnswerWriter::AnswerWriter(Service& service, std::shared_ptr<Exchange> exchange,
                           const std::string& id_prefix, std::string object,
                           std::string chunk_object, const GenerationRequest& request)
    : exchange_(std::move(exchange)),
      id_(service.new_id(id_prefix)),
      object_(std::move(object)),
      chunk_object_(std::move(chunk_object)),
      model_(request.model.empty() ? service.name() : request.model),
      created_(std::time(nullptr)),
      streams_(request.stream),
      include_usage_(request.include_usage) {}

Json AnswerWriter::frame(const std::string& object) const {
  return {{"id", id_}, {"object", object}, {"created", created_}, {"model", model_}};
}

void AnswerWriter::begin() { exchange_->begin_stream("text/event-stream; charset=utf-8"); }

void AnswerWriter::chunk(Json choice) {
  Json json = frame(chunk_object_);
  json["choices"] = Json::array({std::move(choice)});
  if (include_usage_) json["usage"] = nullptr;
  exchange_->write(event(json));
}

void AnswerWriter::finish(Json choices, const GenerationUsage& usage) {
  exchange_->note("prompt_tokens", usage.prompt_tokens);
  exchange_->note("completion_tokens", usage.completion_tokens);
  if (!streams_) {
    Json json = frame(object_);
    json["choices"] = std::move(choices);
    json["usage"] = usage.to_json();
    return exchange_->respond(json_response(json));
  }
  std::string rest;
  if (include_usage_) {
    Json json = frame(chunk_object_);
    json["choices"] = Json::array();
    json["usage"] = usage.to_json();
    rest = event(json);
  }
  exchange_->write(rest + "data: [DONE]\n\n");
  exchange_->end_stream();
}

void AnswerWriter::fail(const ApiError& error) {
  exchange_->note("error", std::string(error.what()));
  if (!streams_) return exchange_->respond(to_response(error));
  exchange_->write(event(to_json(error)) + "data: [DONE]\n\n");
  exchange_->end_stream();
}

void note_ignored(Exchange& exchange, const std::vector<std::string>& members) {
  if (!members.empty()) exchange.note("ignored", fmt::format("{}", fmt::join(members, ",")));
}

}  // namespace nibble::server
