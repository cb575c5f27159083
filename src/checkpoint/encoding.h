// How conventions store quantized weights: from planes of a format to named tensors.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "formats/activation_format.h"
#include "formats/format.h"

namespace nibble {

// One tensor of a checkpoint that is to be written.
struct StoredTensor {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;

  std::size_t byte_size() const;
};

struct QuantizedModule {
  std::string module;  // "model.layers.0.self_attn.q_proj"
  FormatPtr format;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  bool linear = true;  // false for what is no torch.nn.Linear (embeddings)
  // What its input is rounded to; null: nothing. Static scales are tensors of their own
  // (input_scales.h).
  ActivationFormatPtr activations = nullptr;

  bool has_static_input() const {
    return activations != nullptr && activations->descriptor().is_static;
  }
};

// kUnsupported, naming a module, unless all modules have one format, as `writer` needs it.
void require_one_format(const std::vector<QuantizedModule>& modules, const char* writer);

// kUnsupported, naming the module, when it is not of a linear layer, which is all that `writer`
// stores.
void require_linear(const QuantizedModule& module, const char* writer);

// Bits a weight that all planes take: of the linear layers without the head, and of the head (16
// where it is plain).
struct MeanBits {
  double layers = 16, head = 16;
};
MeanBits mean_bits(const std::vector<QuantizedModule>& modules);

// Stateless and thread-safe.
class WeightEncoding {
 public:
  virtual ~WeightEncoding() = default;

  // Registry name of the convention that reads it back.
  virtual std::string convention() const = 0;
  // Empty when the convention can say the format, or else the reason why not.
  virtual std::string why_not(const Format& format) const = 0;
  // The same for the rounding of a module's input, which it has.
  virtual std::string why_no_activations(const QuantizedModule& /*module*/) const {
    return convention() + " says nothing about activations";
  }
  // The tensors of one module, in an order of their own.
  virtual std::vector<StoredTensor> plan(const QuantizedModule& module) const = 0;
  // The same tensors with their bytes, in the order of plan(), static scales left out; planes are
  // shared where they can be.
  virtual std::vector<std::pair<std::string, Tensor>> encode(const std::string& module,
                                                             const QuantTensor& weight) const = 0;
  // "quantization_config" of config.json. `plain` are the linear modules left unquantized (lm_head,
  // routers of experts). Equal input gives equal output.
  virtual Json quantization_config(const std::vector<QuantizedModule>& modules,
                                   const std::vector<std::string>& plain) const = 0;
};

// All that there are, in the order in which choose_encoding() tries them: the first that can say
// every format of a model is taken; but compressed_tensors_typed_encoding(), if it can say all, for
// models with rounded activations, and for those alone.
const std::vector<const WeightEncoding*>& weight_encodings();
const WeightEncoding& choose_encoding(const std::vector<QuantizedModule>& modules);

const WeightEncoding& compressed_tensors_encoding();
// int-quantized and float-quantized: a value a byte, as engines want it with rounded activations.
const WeightEncoding& compressed_tensors_typed_encoding();
const WeightEncoding& nibble_encoding();
const WeightEncoding& gptq_encoding();     // version 1: stored zero points are one less
const WeightEncoding& gptq_v2_encoding();  // zero points as they are
const WeightEncoding& awq_encoding();      // the gemm layout
const WeightEncoding& bnb_encoding();      // bitsandbytes
const WeightEncoding& exl2_encoding();     // mixed widths
const WeightEncoding& exl3_encoding();     // two-sided trellises
bool compressed_tensors_can_say(const Format& format);

}  // namespace nibble
