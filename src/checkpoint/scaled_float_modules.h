// Hugging Face directories of small floats with scales beside them, of several writers: code *
// scale, by the names and types of the tensors.
//
//   M.weight F8_E4M3 with M.weight_scale of the matrix or its rows, or M.weight_scale_inv of blocks
//   of weight_block_size, a multiplier too
//   M.weight U8 (two E2M1) with M.weight_scale F8_E4M3 [rows, cols / 16] and M.weight_scale_2, a
//   multiplier
//
// ModelOpt's FP8 weights round their inputs, under M.input_scale or, by its quant_algo, by row.
// Other scales of activations are not used.
#pragma once

#include <filesystem>
#include <memory>

#include "checkpoint/checkpoint.h"

namespace nibble {

std::unique_ptr<Checkpoint> open_scaled_floats(const char* convention,
                                               const std::filesystem::path& path);

}  // namespace nibble
