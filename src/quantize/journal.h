// What a run has done so far, on disk: named values, each written whole or not at all.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "tensor/tensor.h"

namespace nibble {

// Not thread-safe. Values survive the death of the process at any point.
class Journal {
 public:
  // Keeps the values in `directory`, which is made when it is missing. `on_saved` is called after
  // each put(), with its name. Large values are due every so many seconds.
  Journal(std::filesystem::path directory, std::function<void(const std::string&)> on_saved,
          double seconds);

  // Whether it is time to save what is large; if so, the time counts from now on.
  bool due();

  bool has(const std::string& name) const;
  void put(const std::string& name, std::string_view value);
  // kCorrupt when it is not there.
  std::string get(const std::string& name) const;
  void remove(const std::string& name);

  void put_floats(const std::string& name, std::span<const float> values);
  // kCorrupt unless exactly as many values are stored.
  void get_floats(const std::string& name, std::span<float> values) const;

 private:
  using Clock = std::chrono::steady_clock;

  std::filesystem::path directory_;
  std::function<void(const std::string&)> on_saved_;
  std::chrono::duration<double> interval_;
  Clock::time_point last_ = Clock::now();
};

}  // namespace nibble
