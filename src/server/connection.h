// One client's connection. Includes Boost.Beast: for connection.cc and http_server.cc alone.
#pragma once

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_set>

#include "server/http_server.h"

namespace nibble::server {

namespace asio = boost::asio;
namespace beast = boost::beast;

using StreamSocket =
    asio::basic_stream_socket<asio::generic::stream_protocol, asio::any_io_executor>;
using SocketStream = beast::basic_stream<asio::generic::stream_protocol, asio::any_io_executor,
                                         beast::unlimited_rate_policy>;

class Connection;

// What the connections of a server share.
struct ServerState {
  HttpOptions options;
  HttpHandler handler;
  std::atomic<bool> draining = false;
  std::atomic<std::uint64_t> next_request = 0;

  std::mutex mutex;
  std::unordered_set<Connection*> connections;  // each takes itself out before it dies
};

// All of it runs on the stream's executor, a strand.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(StreamSocket socket, std::shared_ptr<ServerState> state);
  ~Connection();

  void start();
  // Posts to the connection: closes it if it waits for a request (or in any case).
  void drain(bool at_once);

 private:
  class HttpExchange;
  using ErrorCode = beast::error_code;

  void read_head();
  void on_head(ErrorCode error);
  void read_body();
  void on_body(ErrorCode error);
  HttpRequest take_head();
  void refuse_unreadable(ErrorCode error);
  void begin_exchange(HttpRequest request);
  // Answers without the handler, and closes: for requests whose body was not read.
  void refuse(HttpRequest request, HttpResponse response);
  void watch_for_close();

  void send(std::string_view bytes);
  void write_pending();
  void on_written(ErrorCode error);
  void on_answered();  // the answer was handed over whole
  void finish_request();
  void linger();  // lets the client read the answer before the connection is reset
  void close();

  std::shared_ptr<ServerState> state_;
  SocketStream stream_;
  std::string client_;
  beast::flat_buffer buffer_;
  std::optional<beast::http::request_parser<beast::http::string_body>> parser_;
  std::shared_ptr<HttpExchange> exchange_;  // the request that is being answered
  std::uint64_t exchanges_ = 0;             // so far, to tell them apart
  bool keep_alive_ = true;
  bool unread_body_ = false;
  std::size_t lingered_bytes_ = 0;

  std::string pending_;  // to be written next
  std::string writing_;
  bool write_runs_ = false;
  bool answered_ = false;
  bool closed_ = false;
};

}  // namespace nibble::server
