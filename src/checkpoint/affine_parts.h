// Affine weights as GPTQ, AWQ and compressed-tensors store them, put together from their parts.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "formats/format.h"

namespace nibble {

// Scales or zero points as [rows, groups], of which the file may leave out a dimension of one.
// kCorrupt, naming `what`, when their shape is another.
Tensor as_parameters(const Tensor& stored, const Shape& rows_and_groups, const std::string& what);

struct AffineParts {
  int bits = 4;
  std::int64_t rows = 0, cols = 0;
  std::int64_t group = 0;  // columns that share a scale; 0: a whole row
  bool symmetric = false;  // declared; taken back when the zero points say otherwise
  Tensor codes;            // I32 [rows, words], the canonical plane
  Tensor scales;           // F16, BF16 or F32 [rows, groups]
  Tensor zeros;            // U8 [rows, groups]
  std::vector<std::int32_t> group_of_column;  // empty: column / group
};

// True when columns stand in the order of their groups and groups are whole, so that the weight
// keeps its format.
bool in_order(const AffineParts& parts);

// The affine weight, or where the columns are grouped in another order (act-order) or the last
// group is short: its values in the type of the scales. kCorrupt, naming `what`, when the parts do
// not fit each other.
QuantTensor assemble(AffineParts parts, const std::string& what);

// What a checkpoint says about `count` modules for which in_order() is false; empty for none.
std::vector<std::string> unordered_note(const std::string& path, std::int64_t count);

}  // namespace nibble
