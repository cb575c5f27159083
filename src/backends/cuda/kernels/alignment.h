// Whether vectors of 16 bytes can be loaded from an address.
#pragma once

#include <cstdint>

namespace nibble::cuda {

inline bool on_16_bytes(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }

}  // namespace nibble::cuda
