// Elements that are tables by definition.
//
//   nf2, nf3, nf4   quantiles of a normal distribution, divided by the largest (QLoRA,
//                   arXiv 2305.14314). With o = 1 - (1 / (2^b - 1) + 1 / 2^b) / 4 they are
//                   Phi^-1 at the first 2^(b-1) of 2^(b-1) + 1 equal steps from o to 1/2, minus
//                   those at the first 2^(b-1) - 1 of 2^(b-1) steps, and 0
//   bnb4            the "FP4" of bitsandbytes, sign and one of 0, 1/192, 1/6, 1/4, 1/3, 1/2, 2/3, 1
//                   in an order of its own; not OCP E2M1
//   binary          1 and -1: the code is the sign bit, 0 counts as positive (XNOR-Net,
//                   arXiv 1603.05279)
//   ternary         -1, 0, 1 for the codes 0, 1, 2 (BitNet b1.58, arXiv 2402.17764); 3 is NaN
//   fixed8          signed bytes / 64 (two's complement), the element of MXINT8
//   linear8         k / 127, k = -127 ... 127, ascending, with 0 under two codes (bitsandbytes'
//                   linear map)
//   dynamic8        dynamic_map(), below (arXiv 1511.04561, 2110.02861)
#pragma once

#include <optional>
#include <string_view>

#include "formats/code_table.h"

namespace nibble {

enum class Codebook { kNf2, kNf3, kNf4, kBnb4, kFixed8, kBinary, kTernary, kLinear8, kDynamic8 };
inline constexpr Codebook kCodebooks[] = {
    Codebook::kNf2,     Codebook::kNf3,     Codebook::kNf4,
    Codebook::kBnb4,    Codebook::kFixed8,  Codebook::kBinary,
    Codebook::kTernary, Codebook::kLinear8, Codebook::kDynamic8};

std::string_view to_string(Codebook codebook);
std::optional<Codebook> parse_codebook(std::string_view name);

CodeTable table_of(Codebook codebook);

// The signed 8-bit "dynamic map" of bitsandbytes, ascending: for each decade 10^-6 ... 10^0 the
// middles of 1, 2, 4 ... 64 equal parts of [0.1, 1] of it, under both signs, 0 and 1.
const CodeTable& dynamic_map();

}  // namespace nibble
