// Matrix products of a warpgroup (128 threads), D += A B, asynchronous (PTX ISA, wgmma). A is 64
// rows in registers (a warp holds 16 of them, in the fragment of mma.m16n8k16 or m16n8k32) and B
// lies in shared memory as kTokens rows of 128 bytes along k, in the 128-byte swizzle. D stays in
// registers: d[4 j + i] of lane 4 g + c is row g + 8 (i / 2) of the warp's 16, column 8 j + 2 c + i
// % 2. Compute capability 9.0a.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace nibble::cuda {

// B at a shared-memory address on 1024 bytes: rows of 128 bytes, 8 of them a swizzle atom. Steps of
// 32 bytes along k within the atom add 2.
__device__ __forceinline__ std::uint64_t swizzled_descriptor(std::uint32_t address) {
  constexpr std::uint64_t kAtom = std::uint64_t{1024 >> 4} << 32;
  constexpr std::uint64_t kSwizzle128 = std::uint64_t{1} << 62;
  constexpr std::uint64_t kLeading = std::uint64_t{1} << 16;
  return kSwizzle128 | kAtom | kLeading | ((address & 0x3ffff) >> 4);
}

#if __CUDA_ARCH_FEAT_SM90_ALL

// Before the first product, and whenever registers of A or D were written by other instructions.
__device__ __forceinline__ void fence_products() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void commit_products() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Until at most kPending of the last committed groups are under way.
template <int kPending>
__device__ __forceinline__ void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

#define NIBBLE_D8(i)                                                                          \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define NIBBLE_D32(i) NIBBLE_D8(i), NIBBLE_D8(i + 8), NIBBLE_D8(i + 16), NIBBLE_D8(i + 24)

// Whether the rows of B in shared memory run along D's columns (each is contiguous along k) or
// along k.
inline constexpr int kRowsAreColumns = 0;
inline constexpr int kRowsAreK = 1;

// d += a b over 16 of k.
template <int kRows = kRowsAreColumns>
__device__ __forceinline__ void multiply_bf16(float (&d)[16], const std::uint32_t* a,
                                              std::uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
      "}, {%16, %17, %18, %19}, %20, 1, 1, 1, %21;"
      : NIBBLE_D8(0), NIBBLE_D8(8)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(kRows));
}

template <int kRows = kRowsAreColumns>
__device__ __forceinline__ void multiply_bf16(float (&d)[32], const std::uint32_t* a,
                                              std::uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
      "}, {%32, %33, %34, %35}, %36, 1, 1, 1, %37;"
      : NIBBLE_D32(0)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(kRows));
}

template <int kRows = kRowsAreColumns>
__device__ __forceinline__ void multiply_bf16(float (&d)[64], const std::uint32_t* a,
                                              std::uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
      "}, {%64, %65, %66, %67}, %68, 1, 1, 1, %69;"
      : NIBBLE_D32(0), NIBBLE_D32(32)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(kRows));
}

template <int kRows = kRowsAreColumns>
__device__ __forceinline__ void multiply_bf16(float (&d)[128], const std::uint32_t* a,
                                              std::uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
      "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
      "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
      "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
      "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, "
      "%127"
      "}, {%128, %129, %130, %131}, %132, 1, 1, 1, %133;"
      : NIBBLE_D32(0), NIBBLE_D32(32), NIBBLE_D32(64), NIBBLE_D32(96)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(kRows));
}

// d += a b over 32 of k of e4m3, or d = a b where `add` is 0. The tensor cores keep some 13 bits of
// what they add to.
__device__ __forceinline__ void multiply_fp8(float (&d)[16], const std::uint32_t* a,
                                             std::uint64_t b, int add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %21, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n32k32.f32.e4m3.e4m3 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
      "}, {%16, %17, %18, %19}, %20, p, 1, 1;\n}"
      : NIBBLE_D8(0), NIBBLE_D8(8)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

__device__ __forceinline__ void multiply_fp8(float (&d)[32], const std::uint32_t* a,
                                             std::uint64_t b, int add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k32.f32.e4m3.e4m3 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
      "}, {%32, %33, %34, %35}, %36, p, 1, 1;\n}"
      : NIBBLE_D32(0)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

__device__ __forceinline__ void multiply_fp8(float (&d)[64], const std::uint32_t* a,
                                             std::uint64_t b, int add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
      "}, {%64, %65, %66, %67}, %68, p, 1, 1;\n}"
      : NIBBLE_D32(0), NIBBLE_D32(32)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

// Keeps what reads d behind the waiting for its products.
template <int kSums>
__device__ __forceinline__ void settle_products(float (&d)[kSums]) {
#pragma unroll
  for (float& v : d) asm volatile("" : "+f"(v)::"memory");
}

// bf16 with a in shared memory too: d [64, 128] += a [64, 16] b [128, 16]^T, or d = a b^T where
// `add` is 0.
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

#undef NIBBLE_D32
#undef NIBBLE_D8

#endif

}  // namespace nibble::cuda
