// Implementations of linear on repacked weights (fragment_weight.h): few rows of x, many, many of
// fp8. Those of 4 bits multiply silu(gate) * up in one launch, too.
#pragma once

#include <span>

#include "backends/cuda/kernels/product_rows.h"
#include "ops/args.h"
#include "ops/op.h"

namespace nibble::cuda {

bool is_repacked(const LinearArgs& args, int bits);

Support w4_small_supports(const LinearArgs& args, const DeviceCaps& caps);
Support w8_small_supports(const LinearArgs& args, const DeviceCaps& caps);
void run_small(const LinearArgs& args, ExecContext& context);
void run_small_together(std::span<const LinearArgs> calls, ExecContext& context);

// x is rounded once for all calls, unless it is there as the kernel wants it.
Support w4_large_supports(const LinearArgs& args, const DeviceCaps& caps);
void run_w4_large(const LinearArgs& args, ExecContext& context);
void run_w4_large_together(std::span<const LinearArgs> calls, ExecContext& context);
void run_w4_large_formed(std::span<const LinearArgs> calls, const ProductRows& x,
                         ExecContext& context);  // kBf16

Support w4_fp8_supports(const LinearArgs& args, const DeviceCaps& caps);
void run_w4_fp8(const LinearArgs& args, ExecContext& context);
void run_w4_fp8_together(std::span<const LinearArgs> calls, ExecContext& context);
void run_w4_fp8_formed(std::span<const LinearArgs> calls, const ProductRows& x,
                       ExecContext& context);  // kFp8

// Whether these are two linears and silu(first) * second, of weights that kernels take together.
bool is_silu_pair(std::span<const LinearArgs> calls, const ActivationArgs& activation);

// calls[0].y = silu(...), that of calls[1] is not written. x: of calls, if it is there in a form;
// kFloat32 if not. rounded_y: where y goes instead, as bf16, without gaps; or null.
using SiluPair = void (*)(std::span<const LinearArgs> calls, const ProductRows& x, void* rounded_y,
                          ExecContext& context);
// x as it is, and no rounded_y.
void run_small_pair(std::span<const LinearArgs> calls, const ProductRows& x, void* rounded_y,
                    ExecContext& context);
void run_w4_large_pair(std::span<const LinearArgs> calls, const ProductRows& x, void* rounded_y,
                       ExecContext& context);
void run_w4_fp8_pair(std::span<const LinearArgs> calls, const ProductRows& x, void* rounded_y,
                     ExecContext& context);

}  // namespace nibble::cuda
