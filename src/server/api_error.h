// Errors as OpenAI's API says them: {"error": {"message", "type", "param", "code"}}.
#pragma once

#include <stdexcept>
#include <string>

#include "base/error.h"
#include "base/json.h"
#include "server/http.h"

namespace nibble::server {

class ApiError : public std::runtime_error {
 public:
  // `param` names the member of the request that is at fault, `code` is a word for programs; both
  // may be empty.
  explicit ApiError(int status, const std::string& message, std::string param = {},
                    std::string code = {});
  int status() const { return status_; }
  const std::string& param() const { return param_; }
  const std::string& code() const { return code_; }

 private:
  int status_;
  std::string param_;
  std::string code_;
};

// 400 about one member of the request.
[[noreturn]] void refuse_member(const std::string& param, const std::string& message);

// What an error that a request's own text has caused means to its client: 400 for what it says, 500
// for the rest.
ApiError to_api_error(const Error& error);

Json to_json(const ApiError& error);
HttpResponse to_response(const ApiError& error);

}  // namespace nibble::server
