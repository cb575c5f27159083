#include "server/load/load_client.h"

#include <algorithm>
#include <boost/asio/connect.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/system/system_error.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/json.h"

namespace nibble::server {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using Tcp = asio::ip::tcp;
using Clock = std::chrono::steady_clock;
using Parser = http::response_parser<http::string_body>;

constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 30;

struct Target {
  std::string host;
  std::string port = "80";
  std::string base;  // path before /v1
};

Target parse_url(const std::string& url) {
  constexpr std::string_view kScheme = "http://";
  std::string_view rest = url;
  if (!rest.starts_with(kScheme)) {
    fail(ErrorKind::kUsage, "--url '{}': expected http://host:port", url);
  }
  rest.remove_prefix(kScheme.size());
  Target target;
  const std::size_t slash = std::min(rest.find('/'), rest.size());
  target.base = rest.substr(slash);
  while (target.base.ends_with('/')) target.base.pop_back();
  if (target.base.ends_with("/v1")) target.base.resize(target.base.size() - 3);
  std::string_view authority = rest.substr(0, slash);
  const std::size_t colon = authority.rfind(':');
  const bool has_port =
      colon != std::string_view::npos && authority.find(']', colon) == std::string_view::npos;
  if (has_port) target.port = authority.substr(colon + 1);
  std::string_view host = authority.substr(0, has_port ? colon : authority.size());
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  target.host = host;
  if (target.host.empty() || target.port.empty()) {
    fail(ErrorKind::kUsage, "--url '{}': expected http://host:port", url);
  }
  return target;
}

// Every request has a connection of its own, as clients of a public server have.
std::string request_text(const Target& target, const LoadOptions& options, const char* method,
                         const std::string& path, const std::string& body) {
  std::string text = fmt::format(
      "{} {}{} HTTP/1.1\r\nHost: {}:{}\r\nConnection: close\r\nAccept: */*\r\n"
      "User-Agent: nibble-bench\r\n",
      method, target.base, path, target.host, target.port);
  if (!options.api_key.empty())
    text += fmt::format("Authorization: Bearer {}\r\n", options.api_key);
  if (!body.empty()) {
    text += fmt::format("Content-Type: application/json\r\nContent-Length: {}\r\n", body.size());
  }
  return text + "\r\n" + body;
}

// The events of a stream, as they complete.
class EventReader {
 public:
  template <class Each>
  void push(std::string_view bytes, const Each& each) {
    pending_ += bytes;
    std::size_t begin = 0;
    for (std::size_t end = pending_.find('\n'); end != std::string::npos;
         end = pending_.find('\n', begin)) {
      std::string_view line(pending_.data() + begin, end - begin);
      if (line.ends_with('\r')) line.remove_suffix(1);
      if (line.starts_with("data:")) {
        line.remove_prefix(5);
        if (line.starts_with(' ')) line.remove_prefix(1);
        each(line);
      }
      begin = end + 1;
    }
    pending_.erase(0, begin);
  }

 private:
  std::string pending_;
};

struct Shared {
  asio::io_context context;
  Target target;
  Tcp::resolver::results_type endpoints;
  LoadOptions options;
  Clock::time_point start;

  double now() const { return std::chrono::duration<double>(Clock::now() - start).count(); }
};

// What follows of a request.
struct CallEvents {
  std::function<void()> first_text;
  std::function<void()> ended;
};

// One request under way.
class Call : public std::enable_shared_from_this<Call> {
 public:
  Call(Shared& shared, LoadRecord& record, std::string text, CallEvents then)
      : shared_(shared),
        record_(record),
        text_(std::move(text)),
        then_(std::move(then)),
        stream_(shared.context) {
    parser_.body_limit(kMostBytes);
  }

  void start() {
    record_.sent = shared_.now();
    stream_.expires_after(std::chrono::milliseconds(
        static_cast<std::int64_t>(1e3 * shared_.options.timeout_seconds)));
    stream_.async_connect(shared_.endpoints,
                          [self = shared_from_this()](beast::error_code error, const auto&) {
                            if (error) return self->end(error.message());
                            self->write();
                          });
  }

 private:
  void write() {
    stream_.socket().set_option(Tcp::no_delay(true));
    asio::async_write(stream_, asio::buffer(text_),
                      [self = shared_from_this()](beast::error_code error, std::size_t) {
                        if (error) return self->end(error.message());
                        self->read();
                      });
  }

  void read() {
    http::async_read_some(stream_, buffer_, parser_,
                          [self = shared_from_this()](beast::error_code error, std::size_t) {
                            self->on_read(error);
                          });
  }

  void on_read(beast::error_code error) {
    if (parser_.is_header_done() && parser_.get().result() == http::status::ok) take_events();
    if (parser_.is_done()) return end(outcome());
    if (error) return end(error.message());
    read();
  }

  void take_events() {
    std::string& body = parser_.get().body();
    events_.push(body, [this](std::string_view data) { take_event(data); });
    body.clear();
  }

  void take_event(std::string_view data) {
    if (data == "[DONE]") return;
    const Json json = Json::parse(data, nullptr, false);
    if (!json.is_object()) return;
    if (json.contains("error")) failure_ = json["error"].dump();
    const auto choices = json.find("choices");
    if (choices != json.end() && !choices->empty()) {
      const Json& choice = choices->front();
      const bool more = choice.value("finish_reason", Json()).is_null();
      if (more || !choice.value("text", "").empty()) take_text();
    }
    const auto usage = json.find("usage");
    if (usage != json.end() && usage->is_object()) {
      record_.prompt_tokens = usage->value("prompt_tokens", record_.prompt_tokens);
      record_.output_tokens = usage->value("completion_tokens", std::int64_t{0});
    }
  }

  void take_text() {
    record_.chunks.push_back(shared_.now());
    if (record_.chunks.size() == 1) then_.first_text();
  }

  std::string outcome() const {
    if (parser_.get().result() != http::status::ok) {
      constexpr std::size_t kShown = 200;
      return fmt::format("{} {}", parser_.get().result_int(),
                         parser_.get().body().substr(0, kShown));
    }
    if (!failure_.empty()) return failure_;
    return record_.chunks.empty() ? "the answer is empty" : "";
  }

  void end(std::string error) {
    record_.ended = shared_.now();
    record_.error = std::move(error);
    if (record_.output_tokens == 0) {
      record_.output_tokens = static_cast<std::int64_t>(record_.chunks.size());
    }
    beast::error_code ignored;
    stream_.socket().shutdown(Tcp::socket::shutdown_both, ignored);
    stream_.close();
    std::exchange(then_, {}).ended();
  }

  Shared& shared_;
  LoadRecord& record_;
  std::string text_;
  CallEvents then_;
  beast::tcp_stream stream_;
  beast::flat_buffer buffer_;
  Parser parser_;
  EventReader events_;
  std::string failure_;
};

// The first model that the server lists.
std::string first_model(Shared& shared) {
  Tcp::socket socket(shared.context);
  asio::connect(socket, shared.endpoints);
  asio::write(socket,
              asio::buffer(request_text(shared.target, shared.options, "GET", "/v1/models", "")));
  beast::flat_buffer buffer;
  Parser parser;
  http::read(socket, buffer, parser);
  if (parser.get().result() != http::status::ok) {
    fail(ErrorKind::kUsage, "{}/v1/models answers {}; give --model and --api-key",
         shared.options.url, parser.get().result_int());
  }
  const Json json = parse_json(parser.get().body(), "/v1/models");
  const Json id = json.value(Json::json_pointer("/data/0/id"), Json());
  if (!id.is_string()) fail(ErrorKind::kUsage, "the server lists no model; give --model");
  return id.get<std::string>();
}

class Run {
 public:
  Run(Shared& shared, const std::vector<LoadRequest>& requests, const ProgressSink& progress)
      : shared_(shared),
        requests_(requests),
        progress_(progress),
        records_(requests.size()),
        timer_(shared.context),
        window_timer_(shared.context) {}

  LoadRun go() {
    shared_.start = Clock::now();
    next();
    shared_.context.run();
    if (shared_.options.window_seconds > 0) close_window();
    LoadRun run{std::move(records_), window_begin_, window_end_};
    run.records.resize(sent_);
    return run;
  }

 private:
  void next() {
    const LoadOptions& options = shared_.options;
    while (sent_ < requests_.size() &&
           (options.concurrency == 0 || running_ < options.concurrency)) {
      const double due = requests_[sent_].arrival / options.time_scale;
      if (due > shared_.now()) return wait_until(due);
      send(sent_++);
    }
  }

  void wait_until(double due) {
    timer_.expires_at(shared_.start + std::chrono::duration_cast<Clock::duration>(
                                          std::chrono::duration<double>(due)));
    timer_.async_wait([this](beast::error_code error) {
      if (!error) next();
    });
  }

  void on_first_text() {
    const LoadOptions& options = shared_.options;
    if (options.window_seconds <= 0 || ++begun_ != options.concurrency) return;
    window_begin_ = shared_.now();
    window_timer_.expires_after(std::chrono::duration_cast<Clock::duration>(
        std::chrono::duration<double>(options.window_seconds)));
    window_timer_.async_wait([this](beast::error_code) {
      window_end_ = shared_.now();
      shared_.context.stop();
    });
  }

  // Takes note of what the end of the window cut off.
  void close_window() {
    if (window_end_ == 0 || sent_ == requests_.size()) {
      fail(ErrorKind::kUsage, "the requests ended before the window did; send more of them");
    }
    for (std::size_t i = 0; i < sent_; ++i) {
      LoadRecord& record = records_[i];
      record.cut = record.ended == 0;
      if (record.cut) record.ended = window_end_;
    }
  }

  void send(std::size_t index) {
    ++running_;
    const LoadRequest& request = requests_[index];
    const LoadOptions& options = shared_.options;
    const Json body = {{"model", options.model},
                       {"prompt", prompt_tokens(request, index, options.vocab, options.seed)},
                       {"max_tokens", request.output},
                       {"ignore_eos", true},
                       {"temperature", options.temperature},
                       {"stream", true},
                       {"stream_options", {{"include_usage", true}}}};
    records_[index].prompt_tokens = request.input;
    std::make_shared<Call>(
        shared_, records_[index],
        request_text(shared_.target, options, "POST", "/v1/completions", body.dump()),
        CallEvents{[this] { on_first_text(); },
                   [this] {
                     --running_;
                     ++ended_;
                     nibble::progress(progress_, "requests", static_cast<std::int64_t>(ended_),
                                      static_cast<std::int64_t>(requests_.size()));
                     next();
                   }})
        ->start();
  }

  Shared& shared_;
  const std::vector<LoadRequest>& requests_;
  const ProgressSink& progress_;
  std::vector<LoadRecord> records_;
  asio::steady_timer timer_;
  asio::steady_timer window_timer_;
  double window_begin_ = 0;
  double window_end_ = 0;
  std::size_t sent_ = 0;
  std::size_t running_ = 0;
  std::size_t begun_ = 0;  // with some text
  std::size_t ended_ = 0;
};

}  // namespace

LoadRun run_load(const std::vector<LoadRequest>& requests, const LoadOptions& options,
                 const ProgressSink& progress) {
  if (options.window_seconds > 0 && options.concurrency == 0) {
    fail(ErrorKind::kUsage, "a window needs a number of requests that are under way");
  }
  Shared shared;
  shared.target = parse_url(options.url);
  shared.options = options;
  try {
    Tcp::resolver resolver(shared.context);
    shared.endpoints = resolver.resolve(shared.target.host, shared.target.port);
    if (options.model.empty()) shared.options.model = first_model(shared);
    return Run(shared, requests, progress).go();
  } catch (const boost::system::system_error& error) {
    fail(ErrorKind::kDisk, "{}: {}; is the server running?", options.url, error.what());
  }
}

}  // namespace nibble::server
