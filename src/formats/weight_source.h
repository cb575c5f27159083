// Where a model's weights come from, seen from the model: names to tensors. Checkpoints implement
// it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "formats/activation_format.h"
#include "formats/format.h"

namespace nibble {

// Thread-safe for reading. Returned tensors share mapped bytes and outlive the source.
class WeightSource {
 public:
  virtual ~WeightSource() = default;

  // True when a tensor of exactly this name is stored.
  virtual bool has(const std::string& name) const = 0;
  // kCorrupt, naming the tensor, when it is not there.
  virtual Tensor tensor(const std::string& name) const = 0;
  // Names of all stored tensors, sorted.
  virtual std::vector<std::string> names() const = 0;
  // What everything stored takes.
  virtual std::size_t byte_size() const {
    std::size_t bytes = 0;
    for (const std::string& name : names()) bytes += tensor(name).byte_size();
    return bytes;
  }

  // True when the module ("model.layers.0.self_attn.q_proj") has a weight, plain or quantized.
  virtual bool has_linear(const std::string& module) const = 0;
  // The weight of a module: "<module>.weight" as a dense QuantTensor, or the planes that the
  // convention stores for it. Plain weights keep the layout of the file (GPT-2 stores [in, out]).
  virtual QuantTensor linear(const std::string& module) const = 0;
  // What the inputs of a module are rounded to (complete); null for nothing.
  virtual ActivationFormatPtr activations(const std::string& /*module*/) const { return nullptr; }
  // The input of the module has to be multiplied by a Hadamard matrix first (HadamardArgs of
  // ops/args.h), so many columns at a time; kWholeInput for all at once, 0 for none.
  static constexpr std::int64_t kWholeInput = -1;
  virtual std::int64_t input_hadamard(const std::string& /*module*/) const { return 0; }
};

}  // namespace nibble
