// Sockets that listen: TCP, Unix, or inherited from a service manager.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace nibble::server {

// Owns the descriptor; a Unix socket's file is removed with it.
class Listener {
 public:
  Listener(int fd, int family, std::string address, std::string unix_path = {});
  ~Listener();
  Listener(Listener&& other) noexcept;
  Listener& operator=(Listener&&) = delete;

  int family() const { return family_; }
  std::uint16_t port() const;  // 0 for a Unix socket
  // "http://127.0.0.1:8000" or "unix:/run/nibble.sock".
  const std::string& address() const { return address_; }
  // Gives the descriptor away.
  int release();

 private:
  int fd_;
  int family_;
  std::string address_;
  std::string unix_path_;
};

// Port 0 takes a free one. kDisk when the address cannot be had, kUsage when it makes no sense.
Listener listen_tcp(const std::string& host, std::uint16_t port);
// Replaces a socket file that nobody listens on; only the owner may connect through it.
Listener listen_unix(const std::string& path);
// The socket that systemd's socket activation passes (LISTEN_FDS, sd_listen_fds(3)), if any.
std::optional<Listener> inherited_listener();

}  // namespace nibble::server
