// What the endpoints see of HTTP: a request, and an exchange that takes its answer.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace nibble::server {

struct HttpRequest {
  std::string method;
  std::string path;  // without the query
  std::string content_type;
  std::string authorization;
  std::string request_id;  // the client's own if it sent a sane one
  std::string body;
  std::string client;  // address, for the log
};

struct HttpResponse {
  int status = 200;
  std::string body;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers;
};

using LogValue = std::variant<std::int64_t, std::string>;

// One request and its answer: either respond(), or begin_stream(), any number of write() and
// end_stream(). Everything but post() is called on the exchange's own sequence of work (where the
// handler runs and what post() gives to); after the client has gone all of it does nothing. The
// server does not end before the last reference is dropped.
class Exchange {
 public:
  virtual ~Exchange() = default;

  virtual const HttpRequest& request() const = 0;
  virtual void respond(HttpResponse response) = 0;
  virtual void begin_stream(std::string_view content_type) = 0;
  virtual void write(std::string_view data) = 0;
  virtual void end_stream() = 0;
  // Called once, when the client goes away before its answer is complete.
  virtual void on_gone(std::function<void()> callback) = 0;
  // A member for the access log, such as tokens of the answer.
  virtual void note(std::string_view name, LogValue value) = 0;
  // Runs `work` after what was posted before it, never at the same time. Thread-safe.
  virtual void post(std::function<void()> work) = 0;
};

struct HttpHandler {
  // Sees a request without its body, and may refuse it before the body is read.
  std::function<std::optional<HttpResponse>(const HttpRequest& head)> admit;
  std::function<void(std::shared_ptr<Exchange> exchange)> handle;
  // Hears the status of every answer when it is over; 499 when the client went away before.
  std::function<void(int status)> finished;
};

}  // namespace nibble::server
