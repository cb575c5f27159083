// Where the library's messages go. The library itself never prints: the program installs a sink.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace nibble {

enum class LogLevel { kInfo, kWarning };

// Passed down by value where messages can arise; an empty sink drops them. Must be thread-safe.
using LogSink = std::function<void(LogLevel, const std::string&)>;

inline void log(const LogSink& sink, LogLevel level, const std::string& message) {
  if (sink) sink(level, message);
}

// Progress of long work: called with done <= total and a short label of the step.
using ProgressSink =
    std::function<void(const std::string& step, std::int64_t done, std::int64_t total)>;

inline void progress(const ProgressSink& sink, const std::string& step, std::int64_t done,
                     std::int64_t total) {
  if (sink) sink(step, done, total);
}

}  // namespace nibble
