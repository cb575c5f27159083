// Which tensors of a GGUF file hold which of ours.
#pragma once

#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/gguf_arch.h"

namespace nibble {

// One tensor there.
struct GgufPlace {
  std::string name;                  // "blk.0.attn_q.weight"
  std::vector<std::string> modules;  // of ours that it holds: one, or all experts in their order
  bool bias = false;                 // their biases, not their weights
  GgufChange change = GgufChange::kNone;
  std::int64_t layer = -1;  // of "blk.<layer>"
};

struct GgufLayout {
  std::vector<GgufPlace> places;      // in the order of the file
  std::vector<std::string> left_out;  // tensors of ours that GGUF has no use for
};

// kUnsupported, naming it, when a tensor has no place in that architecture; kCorrupt when experts
// are missing.
GgufLayout gguf_layout(const Checkpoint& source, const GgufArch& arch);

}  // namespace nibble
