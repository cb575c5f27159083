// The groups of columns of an EXL2 weight (conventions/exl2.cc describes the tensors).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace nibble {

// Neighbours in the order that the file puts columns into, with codes of one width.
struct Exl2Group {
  int bits = 4;
  std::int64_t word = 0;   // its first row of q_weight
  std::int64_t begin = 0;  // the place of its first column
  std::int64_t cols = 0;
};

// The groups that q_groups (bits and first word of each) says of `words` rows of q_weight and
// `cols` columns; they cover both. kCorrupt, naming `what`, when that contradicts itself;
// kUnsupported for widths other than 2, 3, 4, 5, 6 and 8.
std::vector<Exl2Group> exl2_groups(std::span<const std::int16_t> q_groups, std::int64_t words,
                                   std::int64_t cols, const std::string& what);

// The step of a code of 4 bits under the largest scale of its group, in the arithmetic of F16 that
// the kernels of ExLlamaV2 use: (code + 1)^2 * (scale_max / 256), each product rounded.
float exl2_step(int code, float scale_max);

}  // namespace nibble
