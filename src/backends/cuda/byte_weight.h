// Weights of bytes for calls whose activations are bytes too, in the order of the checkpoint.
#pragma once

#include <optional>

#include "backends/cuda/kernels/byte_type.h"
#include "backends/memory.h"
#include "base/thread_pool.h"
#include "formats/activation_format.h"
#include "formats/format.h"

namespace nibble::cuda {

// w = scales * codes, one scale a row.
struct ByteWeight {
  ByteType type = ByteType::kInt8;
  Tensor codes;   // U8 [rows, cols]
  Tensor scales;  // F32 [rows]
};

// The bytes of which a format of activations makes rows: int8 or fp8 (e4m3fn), symmetric, a scale a
// token.
std::optional<ByteType> byte_type(const ActivationFormat& format);

// Empty when the weight is of the type, one scale a row, of sizes that the vendor's products take;
// else why not.
std::string bytes_why_not(const QuantTensor& weight, ByteType type);
// In the host's memory. kUnsupported when bytes_why_not() says so.
ByteWeight pack_bytes(const QuantTensor& weight, ByteType type, ThreadPool& pool);

}  // namespace nibble::cuda
