// The order of codes and scales in checkpoints made for the Marlin kernel.
// Source: Marlin, marlin/__init__.py (_get_perms, Layer.pack).
#pragma once

#include "tensor/tensor.h"

namespace nibble {

inline constexpr std::int64_t kMarlinTile = 16;  // inputs and outputs of a tile
inline constexpr std::int64_t kMarlinRows = 64;  // outputs come in multiples of it

// I32 [in / 16, 2 out] to the canonical I32 [out, in / 8] of 4-bit codes; out must be a multiple of
// kMarlinRows.
Tensor marlin_codes(const Tensor& stored);

// F16 [groups, out] to [out, groups]. One group, the whole row, is in another order than several.
Tensor marlin_scales(const Tensor& stored);

}  // namespace nibble
