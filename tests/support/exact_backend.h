// A backend for tests that compare with float32 arithmetic, such as the logits of transformers.
#pragma once

#include <memory>

#include "backends/backend.h"

namespace nibble::test {

inline std::unique_ptr<Backend> exact_backend(int threads = 0) {
  BackendOptions options = BackendOptions::from_environment();
  options.threads = threads;
  options.exact = true;
  return make_cpu_backend(options);
}

}  // namespace nibble::test
