// A backend that asks another one for everything: what tests change parts of.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backends/backend.h"

namespace nibble::test {

class WrappedBackend : public Backend {
 public:
  explicit WrappedBackend(std::unique_ptr<Backend> inner) : Backend(0), inner_(std::move(inner)) {}

  const DeviceCaps& caps() const override { return inner_->caps(); }
  ThreadPool& pool() override { return inner_->pool(); }
  DeviceMemory& memory() override { return inner_->memory(); }

#define NIBBLE_OP(name, Args) \
  void run(const Args& args) override { inner_->run(args); }
#include "ops/ops.def"
#undef NIBBLE_OP

  void run_together(std::span<const LinearArgs> calls) override { inner_->run_together(calls); }

  using Backend::prepare;
  LinearWeight prepare(QuantTensor weight, const std::string& name,
                       const ActivationFormat* activations) override {
    return inner_->prepare(std::move(weight), name, activations);
  }
  void use_packed_store(std::shared_ptr<PackedStore> store) override {
    inner_->use_packed_store(std::move(store));
  }
  std::vector<ImplRow> impl_rows() const override { return inner_->impl_rows(); }
  Arithmetic arithmetic_of(const LinearArgs& args) const override {
    return inner_->arithmetic_of(args);
  }

 protected:
  Backend& inner() { return *inner_; }

 private:
  std::unique_ptr<Backend> inner_;
};

}  // namespace nibble::test
