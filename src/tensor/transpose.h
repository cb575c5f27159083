// Matrices with rows and columns exchanged.
#pragma once

#include "tensor/tensor.h"

namespace nibble {

// [rows, cols] -> [cols, rows], of any type of whole bytes; in memory of its own.
Tensor transposed(const Tensor& matrix);

}  // namespace nibble
