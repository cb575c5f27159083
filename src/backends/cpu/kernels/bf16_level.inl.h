// What the units of bf16 products share. Included inside an anonymous namespace of an ISA unit,
// after the level's vectors of floats and of pairs.

// Each file uses the ones before it.
// clang-format off
#include "backends/cpu/kernels/floats.inl.h"
#include "backends/cpu/kernels/tile_output.inl.h"
#include "backends/cpu/kernels/dot_output.inl.h"
#include "backends/cpu/kernels/bf16_rows.inl.h"
#include "backends/cpu/kernels/bf16_panels.inl.h"
#include "backends/cpu/kernels/bf16_direct.inl.h"
#include "backends/cpu/kernels/ahead.inl.h"
#include "backends/cpu/kernels/bf16_blocks.inl.h"
// clang-format on
