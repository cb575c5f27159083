// What the processor can do and the operating system lets it do.
#pragma once

#include "ops/op.h"

namespace nibble::cpu {

// Highest level whose instructions exist (cpuid) and whose registers the system saves (XCR0):
// avx2 needs AVX2, FMA and F16C; avx512 needs F, BW, CD, DQ and VL on top. Thread-safe.
DeviceCaps detect_caps();

}  // namespace nibble::cpu
