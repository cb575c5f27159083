// A server that speaks the hub's part of HTTP on the loopback address, and misbehaves on demand.
#pragma once

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace nibble::test {

struct HubRequest {
  std::string method, target;                  // "/org/model/resolve/..."
  std::map<std::string, std::string> headers;  // names in lower case
};

struct HubReply {
  int status = 200;
  std::vector<std::string> headers = {};  // "ETag: ..."; Content-Length is added unless it is here
  std::string body = {};
  std::size_t cut_after = std::string::npos;  // bytes of the body after which the line goes dead
};

// Answers one request at a time a connection, and closes it.
class FakeHub {
 public:
  using Handler = std::function<HubReply(const HubRequest&)>;

  explicit FakeHub(Handler handler) : handler_(std::move(handler)) {
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    if (bind(listener_, reinterpret_cast<sockaddr*>(&address), length) != 0 ||
        listen(listener_, 64) != 0 ||
        getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length) != 0) {
      throw std::runtime_error("no port to listen on");
    }
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { serve(); });
  }
  ~FakeHub() {
    stopped_ = true;
    thread_.join();
    close(listener_);
    for (std::thread& connection : connections_) connection.join();
  }
  FakeHub(const FakeHub&) = delete;
  FakeHub& operator=(const FakeHub&) = delete;

  std::string address() const { return fmt::format("http://127.0.0.1:{}", port_); }
  std::vector<HubRequest> requests() const {
    const std::lock_guard lock(mutex_);
    return requests_;
  }

 private:
  void serve() {
    while (!stopped_) {
      pollfd waiting = {listener_, POLLIN, 0};
      if (poll(&waiting, 1, 20) < 1) continue;
      const int connection = accept(listener_, nullptr, nullptr);
      if (connection >= 0) connections_.emplace_back([this, connection] { answer(connection); });
    }
  }

  void answer(int connection) {
    std::string text;
    char piece[4096];
    while (text.find("\r\n\r\n") == std::string::npos) {
      const ssize_t count = recv(connection, piece, sizeof piece, 0);
      if (count <= 0) break;
      text.append(piece, static_cast<std::size_t>(count));
    }
    const HubRequest request = parse(text);
    {
      const std::lock_guard lock(mutex_);
      requests_.push_back(request);
    }
    const HubReply reply = handler_(request);
    std::string head = fmt::format("HTTP/1.1 {} Said\r\nConnection: close\r\n", reply.status);
    bool sized = false;
    for (const std::string& header : reply.headers) {
      head += header + "\r\n";
      sized = sized || header.starts_with("Content-Length:");
    }
    if (!sized) head += fmt::format("Content-Length: {}\r\n", reply.body.size());
    head += "\r\n";
    if (request.method != "HEAD") head += reply.body.substr(0, reply.cut_after);
    std::string_view rest = head;
    while (!rest.empty()) {
      const ssize_t sent = send(connection, rest.data(), rest.size(), MSG_NOSIGNAL);
      if (sent <= 0) break;
      rest.remove_prefix(static_cast<std::size_t>(sent));
    }
    close(connection);
  }

  static HubRequest parse(const std::string& text) {
    HubRequest request;
    const std::size_t first = text.find(' '), second = text.find(' ', first + 1);
    if (second == std::string::npos) return request;
    request.method = text.substr(0, first);
    request.target = text.substr(first + 1, second - first - 1);
    for (std::size_t at = text.find("\r\n") + 2; at < text.size();) {
      const std::size_t end = text.find("\r\n", at), colon = text.find(": ", at);
      if (end == std::string::npos || colon >= end) break;
      std::string name = text.substr(at, colon - at);
      for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      request.headers[name] = text.substr(colon + 2, end - colon - 2);
      at = end + 2;
    }
    return request;
  }

  Handler handler_;
  int listener_ = -1;
  int port_ = 0;
  std::atomic<bool> stopped_ = false;
  mutable std::mutex mutex_;
  std::vector<HubRequest> requests_;
  std::thread thread_;
  std::vector<std::thread> connections_;  // of thread_ until that ended
};

}  // namespace nibble::test
