// Small floats under scales as checkpoints store them, as planes of table formats.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "formats/format.h"

namespace nibble {

struct ScaledFloats {
  // F8_E4M3 [rows, cols], or U8 [rows, cols / 2]: two E2M1, the first in the low half.
  Tensor codes;
  // F16, BF16, F32; F8_E4M3 under a tensor_scale; U8 or F8_E8M0: powers of two.
  Tensor scales;
  std::optional<float> tensor_scale;  // what scales in F8_E4M3 are multiplied by
  Granularity granularity = Granularity::kTensor;
  std::int64_t group = 0;       // columns that share a scale (kGroup, kBlock)
  std::int64_t block_rows = 1;  // and rows (kBlock)
};

// Codes are mapped, not copied, where rows end at words. kCorrupt, naming `what`, when shapes
// contradict each other or the tensor_scale is no positive number; kUnsupported for types that no
// format has.
QuantTensor assemble(const ScaledFloats& parts, const std::string& what);

}  // namespace nibble
