// Weights as their formats decode them.
#pragma once

#include <vector>

#include "formats/format.h"

namespace nibble::test {

// [rows, cols].
inline std::vector<float> decoded(const QuantTensor& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.rows * tensor.cols));
  decode_all(tensor, values.data());
  return values;
}

}  // namespace nibble::test
