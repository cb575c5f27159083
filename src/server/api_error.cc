#include "server/api_error.h"

#include <utility>

namespace nibble::server {
namespace {

const char* type_of(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 404:
      return "not_found_error";
    case 429:
      return "rate_limit_error";
    default:
      return status >= 500 ? "server_error" : "invalid_request_error";
  }
}

Json text_or_null(const std::string& text) { return text.empty() ? Json() : Json(text); }

}  // namespace

ApiError::ApiError(int status, const std::string& message, std::string param, std::string code)
    : std::runtime_error(message),
      status_(status),
      param_(std::move(param)),
      code_(std::move(code)) {}

void refuse_member(const std::string& param, const std::string& message) {
  throw ApiError(400, param + ": " + message, param);
}

ApiError to_api_error(const Error& error) {
  switch (error.kind()) {
    case ErrorKind::kUsage:
    case ErrorKind::kCorrupt:
    case ErrorKind::kUnsupported:
      return ApiError(400, error.what());
    default:
      return ApiError(500, error.what());
  }
}

Json to_json(const ApiError& error) {
  return {{"error",
           {{"message", error.what()},
            {"type", type_of(error.status())},
            {"param", text_or_null(error.param())},
            {"code", text_or_null(error.code())}}}};
}

HttpResponse to_response(const ApiError& error) {
  HttpResponse response;
  response.status = error.status();
  response.body = to_json(error).dump(-1, ' ', false, Json::error_handler_t::replace);
  if (error.status() == 429 || error.status() == 503) {
    response.headers.emplace_back("Retry-After", "1");
  }
  if (error.status() == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

}  // namespace nibble::server
