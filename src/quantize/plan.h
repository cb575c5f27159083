// What a quantization will make and cost, before anything is done.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "quantize/quantize.h"

namespace nibble {

struct QuantizationPlan {
  std::string format;  // of most weights, scale type included
  std::string convention;
  double bits_per_weight = 0;        // exact, as QuantizeReport says it afterwards
  double bits_per_weight_total = 0;  // exact
  std::int64_t source_bytes = 0;     // tensors of the source
  std::int64_t output_bytes = 0;     // tensors of the output, exact
  std::int64_t calibration_tokens = 0;
  std::int64_t candidates = 0;       // of the search, at most
  std::int64_t peak_anon_bytes = 0;  // predicted upper estimate
  std::int64_t state_bytes = 0;      // disk needed beside the output while it runs
  double flops = 0;                  // of all forward passes, verification included
  double seconds = 0;                // flops at the measured speed of this machine
  std::vector<std::string> notes;    // groups that were made smaller, modules left plain, ...
};

// Measures the speed of `backend` for a moment. Errors as quantize().
QuantizationPlan plan_quantization(const QuantizeOptions& options, Backend& backend);

}  // namespace nibble
