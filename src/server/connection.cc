#include "server/connection.h"

#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/read.hpp>
#include <cerrno>
#include <ctime>
#include <random>

#include "base/json.h"
#include "server/api_error.h"

namespace nibble::server {
namespace {

namespace http = beast::http;
constexpr int kClientClosed = 499;  // nginx's status for it
constexpr std::size_t kMostLingering = std::size_t{64} << 20;
constexpr std::chrono::seconds kLingerTimeout{5};

std::string peer_address(StreamSocket& socket) {
  sockaddr_storage storage{};
  socklen_t size = sizeof(storage);
  char host[NI_MAXHOST];
  if (::getpeername(socket.native_handle(), reinterpret_cast<sockaddr*>(&storage), &size) != 0 ||
      storage.ss_family == AF_UNIX ||
      ::getnameinfo(reinterpret_cast<const sockaddr*>(&storage), size, host, sizeof(host), nullptr,
                    0, NI_NUMERICHOST) != 0) {
    return "unix";
  }
  const int on = 1;  // tokens go out one by one: waiting to fill a segment would delay them
  ::setsockopt(socket.native_handle(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  return host;
}

// Fit for a header and a log: what the client calls the request, or a name of our own.
std::string request_id(std::string_view sent, std::uint64_t number) {
  constexpr std::size_t kLongest = 128;
  const bool sane = !sent.empty() && sent.size() <= kLongest &&
                    std::all_of(sent.begin(), sent.end(), [](unsigned char c) {
                      return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.' || c == ':';
                    });
  if (sane) return std::string(sent);
  static const std::uint64_t start = std::random_device{}() | 1ULL;
  return fmt::format("req-{:08x}{:08x}", start, number);
}

std::string utc_now() {
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch());
  std::tm fields{};
  ::gmtime_r(&seconds, &fields);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &fields);
  return fmt::format("{}.{:03}Z", text, ms.count() % 1000);
}

std::string head_of(int status, std::string_view content_type, const std::string& id) {
  const auto reason = http::obsolete_reason(static_cast<http::status>(status));
  return fmt::format(
      "HTTP/1.1 {} {}\r\nServer: nibble\r\nContent-Type: {}\r\nX-Request-Id: {}\r\n"
      "X-Content-Type-Options: nosniff\r\n",
      status, std::string_view(reason.data(), reason.size()), content_type, id);
}

}  // namespace

// An exchange outlives its connection's interest in it: once the client is gone, `connection_` is
// asked no more.
class Connection::HttpExchange : public Exchange {
 public:
  HttpExchange(std::shared_ptr<Connection> connection, HttpRequest request, bool http_1_0)
      : work_(connection->stream_.get_executor()),
        connection_(std::move(connection)),
        request_(std::move(request)),
        http_1_0_(http_1_0) {}

  const HttpRequest& request() const override { return request_; }

  void respond(HttpResponse response) override {
    if (over_) return;
    status_ = response.status;
    std::string text = head_of(response.status, response.content_type, request_.request_id);
    for (const auto& [name, value] : response.headers) {
      text += fmt::format("{}: {}\r\n", name, value);
    }
    text += fmt::format("Content-Length: {}\r\n{}\r\n", response.body.size(), connection_line());
    if (request_.method != "HEAD") text += response.body;
    finish(text);
  }

  void begin_stream(std::string_view content_type) override {
    if (over_) return;
    status_ = 200;
    if (http_1_0_) connection_->keep_alive_ = false;  // its end is the stream's end
    send(head_of(200, content_type, request_.request_id) + "Cache-Control: no-cache\r\n" +
         (http_1_0_ ? "" : "Transfer-Encoding: chunked\r\n") + connection_line() + "\r\n");
  }

  void write(std::string_view data) override {
    if (over_ || data.empty()) return;
    send(http_1_0_ ? std::string(data) : fmt::format("{:x}\r\n{}\r\n", data.size(), data));
  }

  void end_stream() override {
    if (over_) return;
    finish(http_1_0_ ? "" : "0\r\n\r\n");
  }

  void on_gone(std::function<void()> callback) override { gone_ = std::move(callback); }

  void note(std::string_view name, LogValue value) override {
    notes_.emplace_back(name, std::move(value));
  }

  void post(std::function<void()> work) override {
    asio::post(connection_->stream_.get_executor(), std::move(work));
  }

  // The client is gone, or was cut off.
  void abandon() {
    if (over_) return;
    over_ = true;
    status_ = kClientClosed;
    record();
    if (gone_) std::exchange(gone_, nullptr)();
  }

 private:
  std::string connection_line() const {
    return connection_->keep_alive_ ? "Connection: keep-alive\r\n" : "Connection: close\r\n";
  }

  void send(std::string_view bytes) {
    bytes_ += bytes.size();
    connection_->send(bytes);
  }

  // Counts and logs before the last bytes are out, so that whoever has the answer finds both done.
  void finish(std::string_view last) {
    over_ = true;
    gone_ = nullptr;
    bytes_ += last.size();
    record();
    connection_->send(last);
    connection_->on_answered();
  }

  void record() const {
    connection_->state_->handler.finished(status_);
    const auto& sink = connection_->state_->options.access_log;
    if (!sink) return;
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start_;
    Json line = {{"time", utc_now()},         {"request_id", request_.request_id},
                 {"client", request_.client}, {"method", request_.method},
                 {"path", request_.path},     {"status", status_},
                 {"bytes", bytes_},           {"seconds", seconds.count()}};
    for (const auto& note : notes_) {
      std::visit([&](const auto& value) { line[note.first] = value; }, note.second);
    }
    sink(line.dump(-1, ' ', false, Json::error_handler_t::replace));
  }

  // Keeps the server running until whoever answers has let go: an engine may still post to it.
  asio::executor_work_guard<asio::any_io_executor> work_;
  std::shared_ptr<Connection> connection_;
  HttpRequest request_;
  bool http_1_0_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::function<void()> gone_;
  std::vector<std::pair<std::string, LogValue>> notes_;
  int status_ = 0;
  std::size_t bytes_ = 0;
  bool over_ = false;
};

Connection::Connection(StreamSocket socket, std::shared_ptr<ServerState> state)
    : state_(std::move(state)),
      stream_(std::move(socket)),
      client_(peer_address(stream_.socket())) {
  const std::lock_guard lock(state_->mutex);
  state_->connections.insert(this);
}

Connection::~Connection() {
  const std::lock_guard lock(state_->mutex);
  state_->connections.erase(this);
}

void Connection::start() {
  asio::post(stream_.get_executor(), [self = shared_from_this()] { self->read_head(); });
}

void Connection::drain(bool at_once) {
  asio::post(stream_.get_executor(), [self = shared_from_this(), at_once] {
    const bool waits = self->exchange_ == nullptr && self->parser_ && !self->parser_->got_some();
    if (waits || at_once) self->close();
  });
}

void Connection::read_head() {
  parser_.emplace();
  parser_->header_limit(static_cast<std::uint32_t>(state_->options.max_header_bytes));
  parser_->body_limit(state_->options.max_body_bytes);
  stream_.expires_after(state_->options.read_timeout);
  http::async_read_header(
      stream_, buffer_, *parser_,
      [self = shared_from_this()](ErrorCode error, std::size_t) { self->on_head(error); });
}

HttpRequest Connection::take_head() {
  const auto& message = parser_->get();
  const auto text = [](beast::string_view view) { return std::string(view.data(), view.size()); };
  HttpRequest request;
  request.method = text(message.method_string());
  request.path = text(message.target());
  request.path.resize(std::min(request.path.size(), request.path.find('?')));
  request.content_type = text(message[http::field::content_type]);
  request.authorization = text(message[http::field::authorization]);
  request.request_id = request_id(text(message["X-Request-Id"]), ++state_->next_request);
  request.client = client_;
  return request;
}

void Connection::on_head(ErrorCode error) {
  if (error) return refuse_unreadable(error);
  keep_alive_ = parser_->keep_alive() && !state_->draining;
  unread_body_ = !parser_->is_done();
  HttpRequest head = take_head();
  if (auto refusal = state_->handler.admit(head)) {
    if (unread_body_) return refuse(std::move(head), std::move(*refusal));
  }
  if (beast::iequals(parser_->get()[http::field::expect], "100-continue")) {
    send("HTTP/1.1 100 Continue\r\n\r\n");
  }
  read_body();
}

void Connection::read_body() {
  stream_.expires_after(state_->options.read_timeout);
  http::async_read(
      stream_, buffer_, *parser_,
      [self = shared_from_this()](ErrorCode error, std::size_t) { self->on_body(error); });
}

void Connection::on_body(ErrorCode error) {
  if (error) return refuse_unreadable(error);
  unread_body_ = false;
  HttpRequest request = take_head();
  if (state_->draining) {
    keep_alive_ = false;
    return refuse(std::move(request), to_response(ApiError(503, "the server is shutting down")));
  }
  if (auto refusal = state_->handler.admit(request)) {
    return refuse(std::move(request), std::move(*refusal));
  }
  request.body = std::move(parser_->get().body());
  begin_exchange(std::move(request));
}

// What went wrong while a request was read: an answer where one can still be given.
void Connection::refuse_unreadable(ErrorCode error) {
  HttpResponse response;
  if (error == http::error::body_limit) {
    response = to_response(ApiError(413, fmt::format("the request's body is larger than {} bytes",
                                                     state_->options.max_body_bytes)));
  } else if (error == http::error::header_limit || error == http::error::buffer_overflow) {
    response = to_response(ApiError(431, fmt::format("the request's header is larger than {} bytes",
                                                     state_->options.max_header_bytes)));
  } else if (error.category() == make_error_code(http::error::bad_method).category() &&
             error != http::error::end_of_stream && error != http::error::partial_message) {
    response = to_response(ApiError(400, "the request is not valid HTTP/1.1"));
  } else {
    return close();  // closed, reset or too slow
  }
  unread_body_ = true;
  refuse(take_head(), std::move(response));
}

void Connection::begin_exchange(HttpRequest request) {
  stream_.expires_never();
  answered_ = false;
  const bool http_1_0 = parser_->get().version() < 11;
  exchange_ = std::make_shared<HttpExchange>(shared_from_this(), std::move(request), http_1_0);
  ++exchanges_;
  watch_for_close();
  state_->handler.handle(exchange_);
}

void Connection::refuse(HttpRequest request, HttpResponse response) {
  if (unread_body_) keep_alive_ = false;
  answered_ = false;
  exchange_ = std::make_shared<HttpExchange>(shared_from_this(), std::move(request), false);
  const std::shared_ptr<HttpExchange> exchange = exchange_;
  exchange->respond(std::move(response));
}

// Tells a client that went away from one that waits. One that sends its next request already is
// not watched any more: what it sent lies before the end of its stream.
void Connection::watch_for_close() {
  stream_.socket().async_wait(
      StreamSocket::wait_read, [self = shared_from_this(), watched = exchanges_](ErrorCode error) {
        if (error || self->exchange_ == nullptr || self->exchanges_ != watched) return;
        char byte = 0;
        const ssize_t got =
            ::recv(self->stream_.socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) self->close();
      });
}

void Connection::send(std::string_view bytes) {
  if (closed_) return;
  if (pending_.size() + bytes.size() > state_->options.max_unsent_bytes && write_runs_) {
    return close();
  }
  pending_ += bytes;
  if (!write_runs_) write_pending();
}

void Connection::write_pending() {
  write_runs_ = true;
  writing_.swap(pending_);
  stream_.expires_after(state_->options.write_timeout);
  asio::async_write(
      stream_, asio::buffer(writing_),
      [self = shared_from_this()](ErrorCode error, std::size_t) { self->on_written(error); });
}

void Connection::on_written(ErrorCode error) {
  write_runs_ = false;
  writing_.clear();
  if (closed_) return;
  if (error) return close();
  if (!pending_.empty()) return write_pending();
  if (answered_) return finish_request();
  if (exchange_ != nullptr) stream_.expires_never();
}

void Connection::on_answered() {
  answered_ = true;
  if (!write_runs_) finish_request();
}

void Connection::finish_request() {
  exchange_.reset();
  answered_ = false;
  if (closed_) return;
  if (unread_body_) return linger();
  if (!keep_alive_ || state_->draining) return close();
  read_head();
}

void Connection::linger() {
  ErrorCode ignored;
  stream_.socket().shutdown(StreamSocket::shutdown_send, ignored);
  stream_.expires_after(kLingerTimeout);
  buffer_.clear();
  stream_.async_read_some(buffer_.prepare(std::size_t{64} << 10),
                          [self = shared_from_this()](ErrorCode error, std::size_t bytes) {
                            self->lingered_bytes_ += bytes;
                            if (error || self->lingered_bytes_ > kMostLingering)
                              return self->close();
                            self->linger();
                          });
}

void Connection::close() {
  if (closed_) return;
  closed_ = true;
  ErrorCode ignored;
  stream_.socket().shutdown(StreamSocket::shutdown_both, ignored);
  stream_.close();
  if (const auto exchange = std::exchange(exchange_, nullptr)) exchange->abandon();
}

}  // namespace nibble::server
