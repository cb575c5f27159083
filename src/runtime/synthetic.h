// Random weights of a real model's shape, directly in the format asked for: to measure speed at
// real sizes without files.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/synth.h"
#include "formats/registry.h"
#include "formats/weight_source.h"
#include "model/model.h"

namespace nibble {

// Every tensor is made when it is asked for, in memory of its own. A quantized weight is a band of
// rows that was encoded from N(0, 0.02^2), repeated: the bytes and the arithmetic are those of a
// real model, the values are not. Thread-safe.
class SyntheticSource : public WeightSource {
 public:
  // Parts that `format` leaves open are BF16. kUsage for an unknown shape; kUnsupported, naming the
  // module, for a format that cannot hold one of its matrices.
  SyntheticSource(const std::string& shape_name, const ModelFormat& format);

  ModelSpec spec() const;  // of the shape

  bool has(const std::string& name) const override;
  Tensor tensor(const std::string& name) const override;
  std::vector<std::string> names() const override;
  std::size_t byte_size() const override;
  bool has_linear(const std::string& module) const override;
  QuantTensor linear(const std::string& module) const override;

 private:
  const StoredTensor* find(const std::string& name) const;
  const FormatPtr& format_of(const std::string& name) const;

  const SynthShape& shape_;
  ModelFormat format_;
  std::vector<StoredTensor> tensors_;  // sorted by name
};

// The whole model; activations are rounded as `format` says. What comes besides must have room on a
// device too.
Model load_synthetic_model(const std::string& shape_name, Backend& backend,
                           const ModelFormat& format, const Room& besides = {});

}  // namespace nibble
