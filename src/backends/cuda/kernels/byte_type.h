// Bytes that tensor cores multiply.
#pragma once

#include <cstdint>

namespace nibble::cuda {

enum class ByteType : std::int32_t { kInt8, kFp8 };  // two's complement; e4m3fn

}  // namespace nibble::cuda
