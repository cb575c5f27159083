// The interface of the kernels that multiply super-blocks of ggml with activations rounded to
// signed bytes. What kernel_table.h says about what may be included here holds too.
//
// Activations are rounded by row and block of kInt8Block columns: x = scale * q, q in [-127, 127],
// so that codes, which are not negative, are the unsigned operand of byte products.
//
// Weights are repacked at load into panels of kPanelRows rows. A panel is, for each kSuperBlock
// columns,
//
//   d          f16 [kPanelRows]
//   dmin       f16 [kPanelRows], of types with minimums
//   for each 32 columns:
//     scales     signed bytes [runs][kPanelRows], a run of 16 or 32 columns
//     minimums   bytes [runs][kPanelRows], of types with minimums
//     high bits  [bits above the `low` ones][4 kPanelRows] bytes
//     low bits   of 4: [4 units of 8 columns][4 kPanelRows] nibbles, as in int8_kernels.h
//                of 2: [2][4 kPanelRows] bytes
//
// Half i = 2 unit + (0 for the low nibbles, 1 for the high ones), four columns, has b bits that
// stand in bytes of their own in vector i / (8 / b) of them, from bit b * (i % (8 / b)) of its
// bytes on.
//
//   w = d * scale * level(code) - dmin * minimum
#pragma once

#include "backends/cpu/int8_kernels.h"

namespace nibble::cpu {

inline constexpr std::int64_t kSuperBlock = 256;

// What a type of super-blocks has in its panels.
struct BlockPanelType {
  BlockStorage type = BlockStorage::kQ4_K;
  int run = 32;           // columns under one scale
  bool minimums = false;  // else levels are code - offset, or those of IQ4
  int low = 4;            // bits of a code, and those above them
  int high = 0;
  int offset = 0;  // of the levels: what codes stand above them as unsigned bytes
};
inline constexpr BlockPanelType kPanelQ2K = {
    .type = BlockStorage::kQ2_K, .run = 16, .minimums = true, .low = 2};
inline constexpr BlockPanelType kPanelQ3K = {
    .type = BlockStorage::kQ3_K, .run = 16, .low = 2, .high = 1, .offset = 4};
inline constexpr BlockPanelType kPanelQ4K = {.type = BlockStorage::kQ4_K, .minimums = true};
inline constexpr BlockPanelType kPanelQ5K = {
    .type = BlockStorage::kQ5_K, .minimums = true, .high = 1};
inline constexpr BlockPanelType kPanelQ6K = {
    .type = BlockStorage::kQ6_K, .run = 16, .high = 2, .offset = 32};
// Levels, 128 above what they are, are looked up.
inline constexpr BlockPanelType kPanelIq4Xs = {.type = BlockStorage::kIq4Xs, .offset = 128};
inline constexpr BlockPanelType kBlockPanelTypes[] = {kPanelQ2K, kPanelQ3K, kPanelQ4K,
                                                      kPanelQ5K, kPanelQ6K, kPanelIq4Xs};

// Where the parts of 32 columns lie in a panel, and how large they are, in bytes.
struct BlockPanelLayout {
  constexpr explicit BlockPanelLayout(const BlockPanelType& type)
      : header(2 * kPanelRows * (type.minimums ? 2 : 1)),
        minimums(kPanelRows * (32 / type.run)),
        high(minimums + (type.minimums ? kPanelRows * (32 / type.run) : 0)),
        low(high + 4 * kPanelRows * type.high),
        columns32(low + 4 * kPanelRows * type.low),
        super_block(header + kSuperBlock / 32 * columns32) {}

  std::int64_t header;  // of a super-block
  std::int64_t minimums, high, low;
  std::int64_t columns32;
  std::int64_t super_block;
};

struct BlockPanelView {
  BlockStorage type = BlockStorage::kQ4_K;
  std::int64_t rows = 0;  // the last panel is padded with zeros
  std::int64_t cols = 0;  // a multiple of kSuperBlock
  const unsigned char* data = nullptr;
  std::int64_t panel_bytes = 0;
};

// Rounded activations: row i is q + i * stride; its blocks' numbers are at i * blocks.
struct SignedRows {
  signed char* q = nullptr;
  float* scale = nullptr;
  float* sum = nullptr;          // of the block's rounded values
  std::int32_t* sums = nullptr;  // of the q of 16 columns, two a block
  std::int64_t stride = 0;
  std::int64_t blocks = 0;
};

// y[i, n] = x[i] . w[n] (+ y) (+ bias[n]) for the rows of one panel.
struct BlockPanelTask {
  BlockPanelView w;
  std::int64_t panel = 0;
  SignedRows x;
  std::int64_t m = 0;
  PanelOutput out;
};

}  // namespace nibble::cpu
