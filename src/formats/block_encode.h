// From numbers to the blocks of ggml. The encoders are nibble's own: they search scales, minimums
// and their second level for the least weighted squared error of the block as it will be decoded,
//
//   sum_i importance[i] (w[i] - decoded[i])^2
//
// and end with codes that are nearest under what is stored.
#pragma once

#include <cstdint>

#include "formats/block_type.h"

namespace nibble {

// w, importance: [layout_of(type).elements]; w is finite, importance not negative. All bytes of the
// block are written.
using BlockEncoder = void (*)(const float* w, const float* importance, std::uint8_t* block);
// Null where a type can be decoded only.
BlockEncoder block_encoder(BlockType type);

}  // namespace nibble
