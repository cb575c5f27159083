// Products of a warpgroup as attention needs them (PTX ISA, wgmma): scores from queries and keys
// that both lie in shared memory, and sums from weights in registers and values in shared memory,
// whose rows (keys) run along k. Both operands in memory are tiles of [columns / 64][rows][64] bf16
// numbers in the 128-byte swizzle. D as in wgmma.cuh. Compute capability 9.0a.
#pragma once

#include "backends/cuda/device/wgmma.cuh"

namespace nibble::cuda {

// Values from an address on 2048 bytes on, where 16 rows begin; the next 64 columns lie
// `columns_at` bytes further.
__device__ __forceinline__ std::uint64_t values_descriptor(std::uint32_t address,
                                                           std::uint32_t columns_at) {
  constexpr std::uint64_t kAtom = std::uint64_t{1024 >> 4} << 32;
  constexpr std::uint64_t kSwizzle128 = std::uint64_t{1} << 62;
  return kSwizzle128 | kAtom | std::uint64_t{columns_at >> 4} << 16 | ((address & 0x3ffff) >> 4);
}

#if __CUDA_ARCH_FEAT_SM90_ALL

// Products write these registers until they are waited for: keeps what the compiler does with them
// on this side.
template <int kCount>
__device__ __forceinline__ void pin(float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

#define NIBBLE_D8(i)                                                                          \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define NIBBLE_D32(i) NIBBLE_D8(i), NIBBLE_D8(i + 8), NIBBLE_D8(i + 16), NIBBLE_D8(i + 24)

// d [64, 128] += a [64, 16] b [128, 16]^T, or d = a b^T where `add` is 0.
__device__ __forceinline__ void multiply_scores(float (&d)[64], std::uint64_t a, std::uint64_t b,
                                                int add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
      "}, %64, %65, p, 1, 1, 0, 0;\n}"
      : NIBBLE_D32(0), NIBBLE_D32(32)
      : "l"(a), "l"(b), "r"(add));
}

// d [64, 64 or 128] += a [64, 16] b [16, 64 or 128], a in registers.
__device__ __forceinline__ void multiply_values(float (&d)[32], const std::uint32_t* a,
                                                std::uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
      "}, {%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
      : NIBBLE_D32(0)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
__device__ __forceinline__ void multiply_values(float (&d)[64], const std::uint32_t* a,
                                                std::uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
      "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 1;"
      : NIBBLE_D32(0), NIBBLE_D32(32)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

#undef NIBBLE_D32
#undef NIBBLE_D8

#endif

}  // namespace nibble::cuda
