#include "server/listen.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

#include "base/error.h"

namespace nibble::server {
namespace {

constexpr int kBacklog = 1024;
constexpr int kFirstInherited = 3;  // SD_LISTEN_FDS_START

[[noreturn]] void fail_errno(const std::string& address, const char* what) {
  const int code = errno;
  fail(ErrorKind::kDisk, "serve: {}: {}: {}", address, what, std::strerror(code));
}

// The address that a socket is bound to, as text.
std::string bound_address(int fd) {
  sockaddr_storage storage{};
  socklen_t size = sizeof(storage);
  char host[NI_MAXHOST];
  char service[NI_MAXSERV];
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &size) != 0) {
    fail_errno("socket", "has no address");
  }
  if (storage.ss_family == AF_UNIX) {
    return std::string("unix:") + reinterpret_cast<const sockaddr_un*>(&storage)->sun_path;
  }
  if (::getnameinfo(reinterpret_cast<const sockaddr*>(&storage), size, host, sizeof(host), service,
                    sizeof(service), NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    fail(ErrorKind::kUnsupported, "serve: the socket is neither TCP nor Unix");
  }
  if (storage.ss_family == AF_INET6) return fmt::format("http://[{}]:{}", host, service);
  return fmt::format("http://{}:{}", host, service);
}

void start_listening(const Listener& listener, int fd) {
  if (::listen(fd, kBacklog) != 0) fail_errno(listener.address(), "cannot listen");
}

bool somebody_listens(const sockaddr_un& address) {
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  const int result =
      ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(sockaddr_un));
  ::close(fd);
  return result == 0;
}

}  // namespace

Listener::Listener(int fd, int family, std::string address, std::string unix_path)
    : fd_(fd), family_(family), address_(std::move(address)), unix_path_(std::move(unix_path)) {}

Listener::Listener(Listener&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      family_(other.family_),
      address_(std::move(other.address_)),
      unix_path_(std::exchange(other.unix_path_, {})) {}

Listener::~Listener() {
  if (fd_ >= 0) ::close(fd_);
  if (!unix_path_.empty()) ::unlink(unix_path_.c_str());
}

std::uint16_t Listener::port() const {
  if (family_ == AF_UNIX) return 0;
  return static_cast<std::uint16_t>(std::stoi(address_.substr(address_.rfind(':') + 1)));
}

int Listener::release() { return std::exchange(fd_, -1); }

Listener listen_tcp(const std::string& host, std::uint16_t port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int result = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (result != 0) {
    fail(ErrorKind::kUsage, "serve: --host '{}': {}; give an address of this machine", host,
         ::gai_strerror(result));
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);
  const std::string wanted = fmt::format("{} port {}", host, port);
  const int fd = ::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) fail_errno(wanted, "cannot make a socket");
  Listener unbound(fd, found->ai_family, wanted);
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (::bind(fd, found->ai_addr, found->ai_addrlen) != 0) {
    fail_errno(wanted, "cannot be bound; is another server running there?");
  }
  start_listening(unbound, fd);
  unbound.release();
  return Listener(fd, found->ai_family, bound_address(fd));
}

Listener listen_unix(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    fail(ErrorKind::kUsage, "serve: --uds: a path of 1 to {} bytes is needed",
         sizeof(address.sun_path) - 1);
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  struct stat status {};
  if (::lstat(path.c_str(), &status) == 0) {
    if (!S_ISSOCK(status.st_mode)) fail(ErrorKind::kUsage, "serve: {} is not a socket", path);
    if (somebody_listens(address)) {
      fail(ErrorKind::kDisk, "serve: another server listens on {}", path);
    }
    ::unlink(path.c_str());
  }
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) fail_errno(path, "cannot make a socket");
  Listener unbound(fd, AF_UNIX, path);
  const mode_t before = ::umask(0177);
  const int result = ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  ::umask(before);
  if (result != 0) fail_errno(path, "cannot be bound");
  unbound.release();
  Listener listener(fd, AF_UNIX, "unix:" + path, path);
  start_listening(listener, fd);
  return listener;
}

std::optional<Listener> inherited_listener() {
  const char* pid = std::getenv("LISTEN_PID");
  const char* count = std::getenv("LISTEN_FDS");
  if (pid == nullptr || count == nullptr || std::atol(pid) != ::getpid()) return std::nullopt;
  if (std::atol(count) != 1) {
    fail(ErrorKind::kUsage, "serve: {} sockets were passed, one is expected", count);
  }
  ::fcntl(kFirstInherited, F_SETFD, FD_CLOEXEC);
  int family = 0;
  socklen_t size = sizeof(family);
  if (::getsockopt(kFirstInherited, SOL_SOCKET, SO_DOMAIN, &family, &size) != 0) {
    fail_errno("inherited socket", "cannot be used");
  }
  return Listener(kFirstInherited, family, bound_address(kFirstInherited));
}

}  // namespace nibble::server
