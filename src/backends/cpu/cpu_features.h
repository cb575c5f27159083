// What the processor can do and the operating system lets it do.
#pragma once

#include "ops/op.h"

namespace nibble::cpu {

// Highest level whose instructions exist and whose registers the system saves. x86 (cpuid and
// XCR0): avx2 needs AVX2, FMA and F16C; avx512 needs F, BW, CD, DQ and VL on top. ARM (what the
// kernel says in the auxiliary vector): neon is Advanced SIMD. Thread-safe.
DeviceCaps detect_caps();

// The same machine used up to `level` only.
DeviceCaps lowered(const DeviceCaps& machine, CpuIsa level);

}  // namespace nibble::cpu
