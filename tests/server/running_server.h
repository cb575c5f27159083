// Servers that run while their objects live.
#pragma once

#include <atomic>
#include <mutex>
#include <thread>

#include "server/api.h"
#include "server/http_server.h"
#include "server/raw_client.h"
#include "server/scripted_engine.h"
#include "support/test_data.h"

namespace nibble::test {

inline const Tokenizer& bundled_tokenizer() {
  static const std::unique_ptr<Tokenizer> tokenizer = load_tokenizer(tiny_novel());
  return *tokenizer;
}

// A service at a free port. Who owns the service must stop() before it ends.
class RunningHttp {
 public:
  ~RunningHttp() { stop(); }

  void start(server::Service& served, server::HttpOptions http_options) {
    http_options.access_log = [this](const std::string& line) {
      const std::lock_guard lock(mutex_);
      log_.push_back(line);
    };
    server::Listener listener = server::listen_tcp("127.0.0.1", 0);
    port = listener.port();
    http.emplace(std::move(listener), std::move(http_options), server::make_api(served));
    thread_ = std::thread([this] {
      http->run();
      ended = true;
    });
  }
  void stop() {
    if (!thread_.joinable()) return;
    http->drain();
    thread_.join();
  }

  Reply call(const std::string& method, const std::string& path, const std::string& body = "",
             const std::string& headers = "") {
    RawClient client(port);
    client.send(request_text(method, path, body, headers));
    return client.reply();
  }
  Reply post(const std::string& path, const Json& body) { return call("POST", path, body.dump()); }

  std::vector<std::string> log() const {
    const std::lock_guard lock(mutex_);
    return log_;
  }

  std::optional<server::HttpServer> http;
  std::uint16_t port = 0;
  std::atomic<bool> ended = false;  // run() has returned

 private:
  mutable std::mutex mutex_;
  std::vector<std::string> log_;
  std::thread thread_;
};

// Of the bundled tokenizer and a scripted engine, whose thread ends before the server.
class RunningServer : public RunningHttp {
 public:
  explicit RunningServer(server::ServiceOptions service_options = {},
                         server::HttpOptions http_options = {})
      : engine(bundled_tokenizer()) {
    if (service_options.names.empty()) service_options.names = {"tiny", "alias"};
    service_options.defaults.vocab = bundled_tokenizer().vocab_size();
    service_options.defaults.sampling.temperature = 1;
    service.emplace(bundled_tokenizer(), engine, std::move(service_options));
    start(*service, std::move(http_options));
  }
  ~RunningServer() { stop(); }

  ScriptedEngine engine;
  std::optional<server::Service> service;
};

}  // namespace nibble::test
