// Linear of activations that a format rounds.
#pragma once

#include <span>

#include "backends/cuda/kernels/byte_type.h"
#include "backends/cuda/kernels/product_rows.h"
#include "ops/args.h"
#include "ops/op.h"

namespace nibble::cuda {

// Products of bytes, activations and weights: by the vendor's library.
Support bytes_support(ByteType type, const LinearArgs& args, const DeviceCaps& caps);
void run_bytes(const LinearArgs& args, ExecContext& context);
void run_bytes_together(std::span<const LinearArgs> calls, ExecContext& context);
// x is there as codes.
void run_bytes_formed(std::span<const LinearArgs> calls, const ProductRows& x,
                      ExecContext& context);

// Any format of activations and any weights: x is rounded to float32 that the format can say, and
// what multiplies x as it is goes on with them.
Support rounded_support(const LinearArgs& args, const DeviceCaps& caps);
void run_rounded(const LinearArgs& args, ExecContext& context);
void run_rounded_together(std::span<const LinearArgs> calls, ExecContext& context);

}  // namespace nibble::cuda
