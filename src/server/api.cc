#include "server/api.h"

#include <algorithm>
#include <new>
#include <string_view>
#include <utility>

#include "server/api_error.h"
#include "server/endpoints.h"

namespace nibble::server {
namespace {

struct Route {
  std::string_view method;
  std::string_view path;  // one that ends in '/' stands for all below it as well
  void (*serve)(Service&, std::shared_ptr<Exchange>);
  bool needs_key;
};

constexpr Route kRoutes[] = {
    {"POST", "/v1/completions", serve_completion, true},
    {"POST", "/v1/chat/completions", serve_chat, true},
    {"POST", "/v1/embeddings", serve_embeddings, true},
    {"GET", "/v1/models", serve_models, true},
    {"GET", "/v1/models/", serve_models, true},
    {"POST", "/tokenize", serve_tokenize, true},
    {"POST", "/detokenize", serve_detokenize, true},
    {"GET", "/version", serve_version, false},
    {"GET", "/health", serve_health, false},
    {"GET", "/metrics", serve_metrics, false},
    {"GET", "/", serve_page, false},
};

bool matches(const Route& route, std::string_view path) {
  if (path == route.path) return true;
  return route.path.size() > 1 && route.path.ends_with('/') && path.starts_with(route.path);
}

const Route* find_route(std::string_view path) {
  for (const Route& route : kRoutes) {
    if (matches(route, path)) return &route;
  }
  return nullptr;
}

bool method_fits(const Route& route, std::string_view method) {
  return method == route.method || (method == "HEAD" && route.method == "GET");
}

bool is_json(std::string_view content_type) {
  constexpr std::string_view kJson = "application/json";
  const std::string_view type = content_type.substr(0, content_type.find(';'));
  return type.substr(0, type.find_last_not_of(' ') + 1) == kJson;
}

// What is wrong with a request before its body is known.
std::optional<ApiError> objection(const Service& service, const HttpRequest& head) {
  const Route* route = find_route(head.path);
  if (route == nullptr) return ApiError(404, "there is nothing at " + head.path);
  if (!method_fits(*route, head.method)) {
    return ApiError(405, fmt::format("{} takes {} alone", head.path, route->method));
  }
  if (route->needs_key && !service.authorized(head.authorization)) {
    return ApiError(401, "this server wants an API key: Authorization: Bearer KEY", "",
                    "invalid_api_key");
  }
  if (route->method == "POST" && !is_json(head.content_type)) {
    return ApiError(415, "the body must be JSON, with Content-Type: application/json");
  }
  return std::nullopt;
}

std::optional<HttpResponse> admit(Service& service, const HttpRequest& head) {
  const std::optional<ApiError> error = objection(service, head);
  if (!error) return std::nullopt;
  HttpResponse response = to_response(*error);
  if (error->status() == 405) {
    response.headers.emplace_back("Allow", std::string(find_route(head.path)->method));
  }
  return response;
}

// A parser's complaint quotes what it read last, which may be a whole prompt.
std::string without_quotation(std::string message) {
  message.resize(std::min(message.size(), message.find("; last read: ")));
  return message;
}

ApiError error_of(std::exception_ptr thrown) {
  try {
    std::rethrow_exception(std::move(thrown));
  } catch (const ApiError& error) {
    return error;
  } catch (const Error& error) {
    return to_api_error(Error(error.kind(), without_quotation(error.what())));
  } catch (const std::bad_alloc&) {
    return ApiError(503, "out of memory; try again later");
  } catch (const std::exception& error) {
    return ApiError(500, error.what());
  }
}

void handle(Service& service, const std::shared_ptr<Exchange>& exchange) {
  try {
    find_route(exchange->request().path)->serve(service, exchange);
  } catch (...) {
    const ApiError error = error_of(std::current_exception());
    if (error.status() >= 500) exchange->note("error", std::string(error.what()));
    exchange->respond(to_response(error));
  }
}

}  // namespace

HttpHandler make_api(Service& service) {
  return {.admit = [&service](const HttpRequest& head) { return admit(service, head); },
          .handle = [&service](std::shared_ptr<Exchange> exchange) { handle(service, exchange); },
          .finished = [&service](int status) { service.metrics().count_response(status); }};
}

}  // namespace nibble::server
