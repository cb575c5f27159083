// HTTP/1.1 on TCP or a Unix socket: keep-alive, limits, timeouts, drain. Knows nothing of models.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "server/http.h"
#include "server/listen.h"

namespace nibble::server {

struct HttpOptions {
  int threads = 2;
  std::size_t max_header_bytes = std::size_t{32} << 10;
  std::size_t max_body_bytes = std::size_t{32} << 20;
  std::size_t max_connections = 4096;  // more are closed at once
  // Bytes of an answer that a client has not taken yet; beyond them it is cut off.
  std::size_t max_unsent_bytes = std::size_t{16} << 20;
  // For a whole request to arrive, counted anew for its body, or an idle connection to be used.
  std::chrono::milliseconds read_timeout{60'000};
  std::chrono::milliseconds write_timeout{60'000};   // for one write to be taken
  std::chrono::milliseconds drain_timeout{120'000};  // then answers that still run are cut off
  bool handle_signals = false;  // SIGTERM and SIGINT drain; a second one ends at once
  // Gets one JSON object a finished request, without the line's end. Thread-safe.
  std::function<void(const std::string& line)> access_log;
};

// Threads of others that post to exchanges must have ended before it is destroyed (not before run()
// returns): the last of them may still be inside post().
class HttpServer {
 public:
  HttpServer(Listener listener, HttpOptions options, HttpHandler handler);
  ~HttpServer();

  // Serves until it is drained and every exchange is over. kDisk when threads or signals cannot be
  // had.
  void run();
  // Takes no more connections, closes idle ones, lets answers finish. Thread-safe.
  void drain();
  bool draining() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nibble::server
