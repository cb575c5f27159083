// Which module gets which format, and every tensor of the output, known before anything is written.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/encoding.h"
#include "formats/registry.h"
#include "model/model.h"
#include "quantize/quantize.h"

namespace nibble {

struct PlannedModule {
  std::string module;
  std::int64_t layer = -1;  // -1: embedding or head
  std::int64_t rows = 0, cols = 0;
  // How the weight is stored: quantized, or a float format ("<module>.weight", 16-bit or F32).
  FormatPtr format;
  ActivationFormatPtr activations = nullptr;  // what its input is rounded to; null: nothing
  std::int64_t bytes = 0;                     // of its tensors
};

// Of one linear.
struct LinearFormats {
  FormatPtr weight;
  ActivationFormatPtr activations = nullptr;  // of its input; null: not rounded
};

struct OutputPlan {
  std::vector<PlannedModule> modules;  // linears of the blocks in order, then embedding and head
  std::vector<StoredTensor> tensors;   // all, in the order of the files
  std::vector<std::string> copied;     // those that are the source's, byte for byte
  const WeightEncoding* encoding = nullptr;  // null when nothing is quantized
  std::string format;                        // of most weights of the blocks
  double bits_per_weight = 0, bits_per_weight_total = 0;
  std::int64_t bytes = 0;
  std::vector<std::string> notes;  // fallbacks, to be said aloud

  const PlannedModule& find(const std::string& module) const;
  // The type of one of the tensors.
  DType stored_type(const std::string& tensor) const;
  std::vector<QuantizedModule> quantized() const;
  // Takes what solvers chose instead of what was planned. The tensors stay the same ones:
  // kUnsupported, naming the module, where they do not, or where the encoding cannot say the
  // format.
  void adopt(const std::string& module, const LinearFormats& chosen);
  // The format of activations whose static scales are to be calibrated; null: there is none.
  ActivationFormatPtr static_inputs() const;
  // Whether they, or a format that chooses by the importance of columns, needs calibration text.
  bool needs_statistics() const;
  // Linear modules that stay plain, among them the head and routers.
  std::vector<std::string> plain(const ModelSpec& spec, const Checkpoint& source,
                                 Backend& backend) const;
};

// Formats by module, as plan_output() has fitted them before.
using ModuleFormats = std::map<std::string, FormatPtr>;

// Overrides count before `chosen`, and that before the format of the model. kUsage for overrides
// that do not compile or match nothing; kUnsupported when the source is quantized already or no
// convention can store a format.
OutputPlan plan_output(const ModelSpec& spec, const Checkpoint& source, const ModelFormat& format,
                       const std::vector<FormatOverride>& overrides, Backend& backend,
                       const ModuleFormats& chosen = {});

// The 16-bit type of a checkpoint: that of its embedding, or F16 when it is stored in F32.
DType checkpoint_half_type(const ModelSpec& spec, const Checkpoint& source);

// Name under which a norm's weight or bias is stored; empty when it is not.
std::string stored_norm_weight(const WeightSource& source, const std::string& module);
std::string stored_norm_bias(const WeightSource& source, const std::string& module);

}  // namespace nibble
