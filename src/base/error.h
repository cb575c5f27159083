// Error kinds and the one exception type of the library.
//
// Every failure that a caller can cause or meet is an Error: a kind (which decides the exit status
// of the program) and one line that says what is wrong, where, and what to do. The library throws;
// it never prints, exits or aborts.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>

namespace nibble {

enum class ErrorKind {
  kUsage,        // the caller asked for something that cannot be meant
  kCorrupt,      // input bytes are missing, damaged or contradict each other
  kUnsupported,  // well-formed, but not something nibble can do
  kMemory,       // out of host memory
  kDisk,         // out of disk, read-only target, I/O error
  kDevice,       // out of device memory, device failure
  kQuality,      // a bar that the user set was missed
  kInternal,     // our bug
};

// The word that stands in brackets in messages: "usage", "corrupt", ...
const char* to_string(ErrorKind kind);

// Exit status of the program: 2 usage, 3 corrupt, 4 unsupported, 5 memory/disk/device, 6 quality,
// 70 bug.
int exit_status(ErrorKind kind);

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

// fail(ErrorKind::kCorrupt, "{}: header is {} bytes", path, n)
template <class... Args>
[[noreturn]] void fail(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(kind, fmt::format(format, std::forward<Args>(args)...));
}

// Invariant of our own code; a failure is a bug of ours (ErrorKind::kInternal), never the user's
// fault.
#define NIBBLE_CHECK(condition)                                                           \
  do {                                                                                    \
    if (!(condition)) {                                                                   \
      ::nibble::fail(::nibble::ErrorKind::kInternal, "{}:{}: check failed: {}", __FILE__, \
                     __LINE__, #condition);                                               \
    }                                                                                     \
  } while (false)

}  // namespace nibble
