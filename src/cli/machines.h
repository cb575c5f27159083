// Who works on weights, and who runs texts, where models are quantized.
#pragma once

#include <memory>

#include "cli/command.h"

namespace nibble::cli {

// Neither rounds activations: what the weights lose is to be seen, not what a kernel rounds on top.
// A GPU only when it is named: without --exact texts run in 16 bits there, and choices differ a
// little from the CPU's.
class Machines {
 public:
  explicit Machines(const Context& context) {
    BackendOptions options = context.backend_options();
    options.exact = true;
    backend_ = make_cpu_backend(options);
    if (context.device != "auto" && context.device != "cpu") device_ = context.make_backend();
  }
  Backend& backend() const { return *backend_; }
  Backend& runner() const { return device_ != nullptr ? *device_ : *backend_; }

 private:
  std::unique_ptr<Backend> backend_, device_;
};

}  // namespace nibble::cli
