// A client of plain sockets, which can also misbehave.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace nibble::test {

struct Reply {
  int status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // chunks joined

  Json json() const { return parse_json(body, "reply"); }
  // The data of server-sent events, [DONE] included.
  std::vector<std::string> events() const {
    std::vector<std::string> events;
    for (std::size_t at = 0; at < body.size();) {
      const std::size_t end = body.find("\n\n", at);
      if (end == std::string::npos || body.compare(at, 6, "data: ") != 0) {
        throw std::runtime_error("no event: " + body.substr(at));
      }
      events.push_back(body.substr(at + 6, end - at - 6));
      at = end + 2;
    }
    return events;
  }
};

class RawClient {
 public:
  // receive_buffer: bytes that the system may take in for it; 0: as many as it likes, which may be
  // tens of megabytes.
  explicit RawClient(std::uint16_t port, int receive_buffer = 0)
      : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    if (receive_buffer > 0) {
      ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(receive_buffer));
    }
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connect_to(reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  }
  explicit RawClient(const std::string& unix_path) : fd_(::socket(AF_UNIX, SOCK_STREAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, unix_path.c_str(), sizeof(address.sun_path) - 1);
    connect_to(reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  }
  ~RawClient() { close(); }
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  // False once the server has hung up.
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
  }

  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

  // Waits for more bytes; false at the end of the stream (or after 20 seconds).
  bool receive() {
    char buffer[4096];
    const ssize_t n = ::recv(fd_, buffer, sizeof(buffer), 0);
    if (n <= 0) return false;
    received_.append(buffer, static_cast<std::size_t>(n));
    return true;
  }
  bool receive_until(std::string_view text) {
    while (received_.find(text) == std::string::npos) {
      if (!receive()) return false;
    }
    return true;
  }
  const std::string& received() const { return received_; }

  // The next whole answer.
  Reply reply() {
    if (!receive_until("\r\n\r\n")) throw std::runtime_error("no answer: " + received_);
    Reply reply;
    const std::size_t head_end = received_.find("\r\n\r\n");
    const std::string head = received_.substr(0, head_end + 2);
    received_.erase(0, head_end + 4);
    reply.status = std::stoi(head.substr(head.find(' ') + 1));
    for (std::size_t at = head.find("\r\n") + 2; at < head.size();) {
      const std::size_t end = head.find("\r\n", at);
      const std::size_t colon = head.find(": ", at);
      std::string name = head.substr(at, colon - at);
      std::transform(name.begin(), name.end(), name.begin(),
                     [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
      reply.headers[name] = head.substr(colon + 2, end - colon - 2);
      at = end + 2;
    }
    if (reply.status == 100) return this->reply();
    if (reply.headers.contains("transfer-encoding")) {
      reply.body = read_chunks();
    } else {
      reply.body = read_exactly(std::stoul(reply.headers.at("content-length")));
    }
    return reply;
  }

 private:
  void connect_to(const sockaddr* address, socklen_t size) {
    const timeval limit{20, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    if (::connect(fd_, address, size) != 0) throw std::runtime_error("cannot connect");
  }

  std::string read_exactly(std::size_t size) {
    while (received_.size() < size) {
      if (!receive()) throw std::runtime_error("the answer is cut off: " + received_);
    }
    const std::string bytes = received_.substr(0, size);
    received_.erase(0, size);
    return bytes;
  }

  std::string read_chunks() {
    std::string body;
    while (true) {
      if (!receive_until("\r\n")) throw std::runtime_error("a chunk is missing: " + body);
      const std::size_t size = std::stoul(received_, nullptr, 16);
      received_.erase(0, received_.find("\r\n") + 2);
      const std::string chunk = read_exactly(size + 2);
      if (size == 0) return body;
      body += chunk.substr(0, size);
    }
  }

  int fd_;
  std::string received_;
};

inline std::string request_text(const std::string& method, const std::string& path,
                                const std::string& body, const std::string& headers = "") {
  std::string text = method + " " + path + " HTTP/1.1\r\nHost: test\r\n" + headers;
  if (method == "POST") {
    if (headers.find("Content-Type") == std::string::npos) {
      text += "Content-Type: application/json\r\n";
    }
    text += "Content-Length: " + std::to_string(body.size()) + "\r\n";
  }
  return text + "\r\n" + body;
}

}  // namespace nibble::test
