// 4-bit affine weights in the order in which the matrix kernels of the CUDA backend read them. Host
// code without CUDA.
//
// A weight [rows, cols] (= [out, in]) is cut into blocks of 64 x 64 codes. A block is
//
//   [4 groups of 16 rows][32 lanes][4 tiles of 16 columns] words of 32 bits, little-endian
//
// and a word holds the 8 codes of that lane's part of the 16 x 16 tile, as mma.m16n8k16 (PTX ISA,
// matrix fragments for mma.m16n8k16; also wgmma.m64k16 with A in registers, a group of rows a warp)
// wants its operand A: with g = lane / 4 and c = lane % 4, register i of the fragment holds the
// pair of columns (2c, 2c + 1) + 8 * (i / 2) of row g + 8 * (i % 2), the first in nibble i, the
// second in nibble i + 4. So (word >> 4 i) & 0x000f000f is register i as a pair of 16-bit integers.
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

inline constexpr std::int64_t kFragmentBlock = 64;            // rows and columns of a block
inline constexpr std::int64_t kFragmentBlockBytes = 64 * 32;  // of codes
// Code - zero then fits FP8 (E4M3) exactly, and bf16 of course.
inline constexpr int kMaxFragmentZero = 16;

struct FragmentWeight {
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t group = 0;   // columns that share a scale: 32, 64, 128, or all of them
  std::int64_t groups = 0;  // cols / group
  Tensor codes;             // U8 [rows / 64, cols / 64, 2048]
  Tensor scales;            // F16 or BF16 [rows / 64, groups, 64]
  Tensor zeros;             // U8, likewise; empty when symmetric (the zero point is 8)
};

// Empty when the weight can be packed, or else the reason why not ("3 bits", "rows are no multiple
// of 64"). Reads the zero points.
std::string why_no_fragments(const QuantTensor& weight);

// kUnsupported, with the reason, when it cannot be packed.
FragmentWeight pack_fragments(const QuantTensor& weight, ThreadPool& pool);

}  // namespace nibble::cuda
