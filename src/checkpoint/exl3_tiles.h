// The trellis codes of EXL3 (conventions/exl3.cc describes the tensors).
#pragma once

#include "formats/exl3_code.h"
#include "tensor/tensor.h"

namespace nibble {

struct Exl3Weight {
  Tensor trellis;  // I16 [in / 16, out / 16, 16 bits]
  Tensor in;       // F16 [in]
  Tensor out;      // F16 [out]
  Exl3Codebook codebook = Exl3Codebook::kThreeInstructions;
};

// F16 [out, in]: of the tiles T, in blocks of 128 x 128,
//
//   w = diag(out) H T^t H diag(in) / 128,   H_ij = (-1)^popcount(i & j)
//
// in float32, rounded at the end. Sides must be multiples of 128 and bits 1 to 8. kCorrupt, naming
// `what`, when a value leaves F16.
Tensor decode_exl3(const Exl3Weight& weight, const std::string& what);

}  // namespace nibble
