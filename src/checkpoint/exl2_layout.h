// How EXL2 says which columns have how many bits (conventions/exl2.cc describes the tensors).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "formats/format.h"

namespace nibble {

// With those that fill up the head.
inline std::int64_t exl2_rows(std::int64_t rows) { return (rows + 31) / 32 * 32; }

struct Exl2Group {
  int bits = 4;
  std::int64_t word = 0;  // its first row of q_weight
};

// The mixed format of groups over `words` rows of q_weight and `cols` columns. kCorrupt, naming
// `what`, when they do not fit each other; kUnsupported for groups of more sizes than the format
// has runs.
WeightDescriptor exl2_descriptor(const std::vector<Exl2Group>& groups, std::int64_t words,
                                 std::int64_t cols, const std::string& what);

// The groups of a matrix in a mixed format.
std::vector<Exl2Group> exl2_groups(const Format& format, std::int64_t cols);

// Codes of scales: I32 [groups, rows / 8] to and from the canonical U8 [rows, ceil(groups / 2)].
// kCorrupt, naming `what`, when the shape is another.
Tensor exl2_scales(const Tensor& stored, std::int64_t rows, std::int64_t groups,
                   const std::string& what);
Tensor exl2_stored_scales(const Tensor& scales, std::int64_t groups);

}  // namespace nibble
