// The weights of all experts of a layer that a checkpoint holds in one.
#pragma once

#include <cstdint>
#include <set>
#include <string>

#include "formats/weight_source.h"
#include "model/spec.h"

namespace nibble {

// What the name of their biases has behind that of the weights.
inline constexpr const char* kFusedBias = "_bias";

// Names of all such tensors that a model may have, biases included, behind the prefix of its names.
std::set<std::string> fused_expert_tensors(const ModelSpec& spec, const std::string& prefix);

// Rows begin, begin + step, ...
struct RowSet {
  std::int64_t begin = 0;
  std::int64_t count = 0;
  std::int64_t step = 1;
};

// A tensor [experts, rows, cols] (or [experts, cols, rows], as the spec says), or a quantized
// matrix [experts * rows, cols]. Reads nothing before it is asked for.
class FusedExperts {
 public:
  // kCorrupt, naming the tensor, when its shape contradicts the spec. An empty name is not stored.
  FusedExperts(const WeightSource& source, std::string name, const MlpSpec& spec, std::int64_t rows,
               std::int64_t cols);

  bool stored() const { return plain_ || quantized_; }
  // Some rows of one expert. Adjacent ones share the bytes of the file where their layout allows.
  QuantTensor weight(std::int64_t expert, const RowSet& rows) const;
  // F32 [rows.count]
  Tensor bias(std::int64_t expert, const RowSet& rows) const;

 private:
  const WeightSource& source_;
  std::string name_;
  bool transposed_;
  std::int64_t experts_, rows_, cols_;
  bool plain_ = false;
  bool quantized_ = false;
};

}  // namespace nibble
