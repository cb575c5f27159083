// What the contract tests of ops share: guarded outputs and the list of implementations to run.
#pragma once

#include <bit>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "contract/mirror_backend.h"
#include "support/random_floats.h"
#include "support/test_data.h"

namespace nibble::test {

// A [rows, cols] output whose rows are `stride` apart, between canaries. Everything starts as one
// NaN pattern, so that what a kernel forgets, or writes where it must not, shows.
class GuardedOutput {
 public:
  GuardedOutput(std::int64_t rows, std::int64_t cols, std::int64_t stride)
      : rows_(rows), cols_(cols), stride_(stride) {
    values_.assign(static_cast<std::size_t>(2 * kGuard + rows * stride),
                   std::bit_cast<float>(kPoison));
  }

  float* data() { return values_.data() + kGuard; }
  float at(std::int64_t r, std::int64_t c) const {
    return values_[static_cast<std::size_t>(kGuard + r * stride_ + c)];
  }

  // Empty when no value outside the matrix has changed.
  std::string damage() const {
    for (std::size_t i = 0; i < values_.size(); ++i) {
      const std::int64_t at = static_cast<std::int64_t>(i) - kGuard;
      const bool inside = at >= 0 && at < rows_ * stride_ && at % stride_ < cols_;
      if (!inside && std::bit_cast<std::uint32_t>(values_[i]) != kPoison) {
        return "wrote outside the output, at offset " + std::to_string(at);
      }
    }
    return "";
  }

 private:
  static constexpr std::int64_t kGuard = 64;
  static constexpr std::uint32_t kPoison = 0x7fc0deadu;
  std::int64_t rows_;
  std::int64_t cols_;
  std::int64_t stride_;
  std::vector<float> values_;
};

// The backend under test: the CPU's, or with NIBBLE_TEST_DEVICE=cuda that of a GPU.
inline std::unique_ptr<Backend> tested_backend(const BackendOptions& options) {
  const char* const device = std::getenv("NIBBLE_TEST_DEVICE");
  if (device == nullptr || std::string(device) == "cpu") return make_cpu_backend(options);
  return mirror_backend(make_backend(device, options));
}

// A backend that runs exactly `impl` for `op`; NIBBLE_ISA still holds.
inline std::unique_ptr<Backend> forced_backend(const std::string& op, const std::string& impl,
                                               int threads = 2) {
  BackendOptions options = BackendOptions::from_environment();
  options.threads = threads;
  options.force = op + ":" + impl;
  return tested_backend(options);
}

// The implementations of an op that this machine (and NIBBLE_ISA) can run.
inline std::vector<ImplRow> usable_rows(const std::string& op) {
  BackendOptions options = BackendOptions::from_environment();
  options.threads = 1;
  std::vector<ImplRow> rows = tested_backend(options)->impl_rows();
  std::erase_if(rows, [&](const ImplRow& row) { return row.op != op || !row.usable; });
  return rows;
}

inline std::vector<std::string> usable_impls(const std::string& op) {
  std::vector<std::string> names;
  for (const ImplRow& row : usable_rows(op)) names.push_back(row.name);
  return names;
}

// Runs `args`; false when the implementation does not support them.
template <class Args>
bool try_run(Backend& backend, const Args& args) {
  try {
    backend.run(args);
    return true;
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kUnsupported) throw;
    return false;
  }
}

}  // namespace nibble::test
