// Codes of a row of affine.h's bit stream in their places in a panel of kPanelRows rows, in units
// of 4 kPanelRows bytes (int8_kernels.h). `panel` points at the row's first byte of the first unit.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nibble::cpu {

// cols is a multiple of 8: byte 4r + j of a unit has column j in its low half and 4 + j in its high
// one. Every byte of the row is written.
void place_nibbles(const std::byte* stored, std::int64_t cols, unsigned char* panel);

// cols is a multiple of 4: byte 4r + j is column j, with the bits of `flipped` turned over.
void place_bytes(const std::byte* stored, std::int64_t cols, std::uint8_t flipped,
                 unsigned char* panel);

}  // namespace nibble::cpu
