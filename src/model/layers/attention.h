// Self-attention of one piece of a batch: projections, norms of heads, rotation, cache, attention.
#pragma once

#include <map>

#include "model/layers/layer_context.h"
#include "model/layers/pieces.h"

namespace nibble {

// Keys and values of one layer of a sequence that is cut but has no cache, [rows, kv_heads,
// head_dim] F32.
struct ScratchKv {
  Tensor k, v;
};
using ScratchKvs = std::map<std::size_t, ScratchKv>;  // by index of the sequence

// out [piece.rows, hidden] = attention of x [piece.rows, hidden], the output projection included, x
// being what `chain` makes. out may be x when it accumulates.
void run_attention(const LayerContext& context, const Batch& batch, const Piece& piece,
                   ScratchKvs& scratch, OpChain& chain, const float* x, Output out);

}  // namespace nibble
