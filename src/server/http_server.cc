#include "server/http_server.h"

#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <csignal>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"
#include "server/connection.h"

namespace nibble::server {
namespace {

using Acceptor = asio::basic_socket_acceptor<asio::generic::stream_protocol>;
constexpr std::chrono::milliseconds kAcceptPause{
    100};  // after an error such as no descriptors left

}  // namespace

struct HttpServer::Impl {
  Impl(Listener socket, HttpOptions options, HttpHandler handler)
      : listener(std::move(socket)),
        context(std::max(1, options.threads)),
        control(asio::make_strand(context)),
        acceptor(control),
        signals(control),
        timer(control),
        state(std::make_shared<ServerState>()) {
    state->options = std::move(options);
    state->handler = std::move(handler);
    acceptor.assign(asio::generic::stream_protocol(listener.family(), 0), listener.release());
    if (state->options.handle_signals) {
      signals.add(SIGTERM);
      signals.add(SIGINT);
      wait_for_signal();
    }
    accept();
  }

  void accept() {
    acceptor.async_accept(asio::any_io_executor(asio::make_strand(context)),
                          [this](beast::error_code error, StreamSocket socket) {
                            if (!acceptor.is_open()) return;
                            if (error) return pause();
                            take(std::move(socket));
                            accept();
                          });
  }

  void pause() {
    timer.expires_after(kAcceptPause);
    timer.async_wait([this](beast::error_code error) {
      if (!error && acceptor.is_open()) accept();
    });
  }

  void take(StreamSocket socket) {
    {
      const std::lock_guard lock(state->mutex);
      if (state->connections.size() >= state->options.max_connections) return;
    }
    std::make_shared<Connection>(std::move(socket), state)->start();
  }

  void wait_for_signal() {
    signals.async_wait([this](beast::error_code error, int) {
      if (error) return;
      if (state->draining) return drain_connections(true);
      wait_for_signal();  // before drain(), which takes the wait back where nothing is to be
                          // drained
      drain();
    });
  }

  void drain() {
    if (state->draining.exchange(true)) return;
    beast::error_code ignored;
    acceptor.close(ignored);
    drain_connections(false);
    timer.expires_after(state->options.drain_timeout);
    timer.async_wait([this](beast::error_code error) {
      if (!error) drain_connections(true);
    });
    watch_end();
  }

  // Timers and signals alone would keep the threads: they are let go once no connection is left.
  void watch_end() {
    {
      const std::lock_guard lock(state->mutex);
      if (!state->connections.empty()) {
        end_check.expires_after(kAcceptPause / 10);
        end_check.async_wait([this](beast::error_code) { watch_end(); });
        return;
      }
    }
    timer.cancel();
    beast::error_code ignored;
    signals.cancel(ignored);
  }

  void drain_connections(bool at_once) {
    std::vector<std::shared_ptr<Connection>> open;
    {
      const std::lock_guard lock(state->mutex);
      for (Connection* connection : state->connections) {
        // One that dies at this moment waits for the lock in its destructor.
        if (auto alive = connection->weak_from_this().lock()) open.push_back(std::move(alive));
      }
    }
    for (const auto& connection : open) connection->drain(at_once);
  }

  Listener listener;  // keeps a Unix socket's file until the end
  asio::io_context context;
  asio::any_io_executor control;
  Acceptor acceptor;
  asio::signal_set signals;
  asio::steady_timer timer;
  asio::steady_timer end_check{control};
  std::shared_ptr<ServerState> state;
};

HttpServer::HttpServer(Listener listener, HttpOptions options, HttpHandler handler) try
    : impl_(std::make_unique<Impl>(std::move(listener), std::move(options), std::move(handler))) {
} catch (const boost::system::system_error& e) {
  fail(ErrorKind::kDisk, "serve: {}", e.what());
}

HttpServer::~HttpServer() = default;

void HttpServer::run() {
  std::vector<std::thread> threads;
  const auto join = [&] {
    for (std::thread& thread : threads) thread.join();
  };
  try {
    for (int i = 1; i < impl_->state->options.threads; ++i) {
      threads.emplace_back([this] { impl_->context.run(); });
    }
  } catch (const std::system_error& e) {
    drain();
    impl_->context.run();
    join();
    fail(ErrorKind::kDisk, "serve: cannot start a thread: {}", e.what());
  }
  impl_->context.run();
  join();
}

void HttpServer::drain() {
  asio::post(impl_->control, [impl = impl_.get()] { impl->drain(); });
}

bool HttpServer::draining() const { return impl_->state->draining; }

}  // namespace nibble::server
