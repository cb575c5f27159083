// Affine weights of 4 or 8 bits in the order in which the matrix kernels of the CUDA backend read
// them. Host code without CUDA.
//
// A weight [rows, cols] (= [out, in]) is cut into blocks of 64 x 64 codes. A block is
//
//   [4 groups of 16 rows][bits / 4][32 lanes][16 / bits tiles of 16 columns][bits / 4]
//
// words of 32 bits, little-endian: 16 bytes a lane at a time, tiles in the order of their columns.
// The word, or the two words, of a tile hold the 8 codes of that lane's part of 16 x 16, as
// mma.m16n8k16 (PTX ISA, matrix fragments for mma.m16n8k16; also wgmma.m64k16 with A in registers,
// a group of rows a warp) wants its operand A: with g = lane / 4 and c = lane % 4, register i of
// the fragment holds the pair of columns (2c, 2c + 1) + 8 * (i / 2) of row g + 8 * (i % 2).
//
//   4 bits  the first of the pair is nibble i, the second nibble i + 4: (word >> 4 i) & 0x000f000f
//           is register i as a pair of 16-bit integers
//   8 bits  bytes 2 i and 2 i + 1
//
// Scales and zero points lie group by group with the 64 rows of a block side by side. A range of
// rows on a border of 64 is contiguous in every plane; a range of columns on a border of 64 and of
// groups is contiguous within each block of rows.
#pragma once

#include <cstdint>
#include <string>

#include "base/thread_pool.h"
#include "formats/format.h"

namespace nibble::cuda {

inline constexpr std::int64_t kFragmentBlock = 64;  // rows and columns of a block
constexpr std::int64_t fragment_block_bytes(int bits) { return 64 * 64 / 8 * bits; }
// Code - zero then fits bf16 exactly, and FP8 (E4M3) where codes have 4 bits.
constexpr int max_fragment_zero(int bits) { return bits == 4 ? 16 : 255; }

struct FragmentWeight {
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  int bits = 0;             // of a code: 4 or 8
  std::int64_t group = 0;   // columns that share a scale: 32, 64, 128, or all of them
  std::int64_t groups = 0;  // cols / group
  Tensor codes;             // U8 [rows / 64, cols / 64, 512 * bits]
  Tensor scales;            // F16 or BF16 [rows / 64, groups, 64]
  Tensor zeros;             // U8, likewise; empty when symmetric (2^(bits - 1))
};

// Empty when the weight can be packed, or else the reason why not ("3 bits", "rows are no multiple
// of 64"). Reads the zero points.
std::string why_no_fragments(const QuantTensor& weight);

// kUnsupported, with the reason, when it cannot be packed.
FragmentWeight pack_fragments(const QuantTensor& weight, ThreadPool& pool);

}  // namespace nibble::cuda
