// 4-bit weights by fp8 activations: as w4_large.cu, but a stage is 128 of k, whose products the
// tensor cores sum up; they keep 13 bits of such sums, so every stage is added to the float32 sums
// proper, scaled. With a code q = (v + 15) / 2 and v the odd integer of device/w4_to_fp8.cuh,
//
//   sum over a group of s (q - z) x = s / 2 (sum of v x) + s (7.5 - z) (sum of x).
//
// One warpgroup scales while the other one's products run.
#include <cuda.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "backends/cuda/device/w4_to_fp8.cuh"
#include "backends/cuda/device/wgmma.cuh"
#include "backends/cuda/kernels/large_launch.h"
#include "backends/cuda/kernels/w4_large.h"

namespace nibble::cuda {
namespace {

#if __CUDA_ARCH_FEAT_SM90_ALL

template <class C>
class Fp8Multiplier {
 public:
  __device__ __forceinline__ Fp8Multiplier(const LargeParams& p, const Place& place, const Lane& me,
                                           RingOf<C>& ring)
      : p_(p),
        place_(place),
        reading_(ring),
        codes_at_(ring.stages + C::kCodesAt + me.group * C::kSlotBytes + me.warp * 512 +
                  me.lane * 16),
        scales_at_(ring.stages + C::kScalesAt + 2 * (me.group * 64 + me.row())),
        zeros_at_(ring.stages + C::kZerosAt + me.group * 64 + me.row()),
        sums_at_(ring.stages + C::kSumsAt + 8 * me.c()),
        x_(swizzled_descriptor(ring.stages)),
        tells_(me.lane < p.grid.share),
        empty_(tells_ ? address_at(ring.barriers + C::kStages * 8, me.lane) : 0) {}

  // The sums of one tile over this block's part of k.
  __device__ __forceinline__ void run(Sums<C>& d) {
#pragma unroll
    for (int b = 0; b < C::kBlocks; ++b) {
#pragma unroll
      for (int i = 0; i < C::kTokens / 2; ++i) d[b][i] = 0;
    }
    Fragments a[2];
    int k_block = place_.k_begin;
    read(k_block, a[0]);
#pragma unroll 1
    for (; k_block + 1 < place_.k_end; k_block += 2) {
      stage(k_block, a[0], a[1], d);
      stage(k_block + 1, a[1], a[0], d);
    }
    if (k_block < place_.k_end) stage(k_block, a[0], a[1], d);
  }

 private:
  using Fragments = std::uint32_t[C::kBlocks][16];  // of a stage
  // Of rows g and g + 8: what the sum of products is multiplied by, and that of x.
  struct Factors {
    float product[C::kBlocks][2], sum[C::kBlocks][2];
  };

  __device__ __forceinline__ void read_factors(std::uint32_t offset) {
#pragma unroll
    for (int b = 0; b < C::kBlocks; ++b) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int element = 64 * b * kLargeMultipliers + 8 * i;
        const std::uint16_t bits = load_shared_2(scales_at_ + offset + 2 * element);
        const float scale = p_.scales_are_bf16
                                ? __uint_as_float(static_cast<std::uint32_t>(bits) << 16)
                                : __half2float(__ushort_as_half(bits));
        const std::uint32_t zero = p_.has_zeros ? load_shared_1(zeros_at_ + offset + element) : 8u;
        next_.product[b][i] = scale * (0.5f / kFp8CodeUnit);
        next_.sum[b][i] = scale * (7.5f - static_cast<float>(zero));
      }
    }
  }

  // The codes and factors of k_block.
  __device__ __forceinline__ void read(int k_block, Fragments& a) {
    wait_barrier(reading_.full(), reading_.parity);
    const std::uint32_t offset = reading_.stage * C::kStageBytes;
#pragma unroll
    for (int b = 0; b < C::kBlocks; ++b) {
#pragma unroll
      for (int u = 0; u < C::kUnits; ++u) {
        const uint4 codes = load_shared_16(codes_at_ + offset +
                                           b * kLargeMultipliers * C::kSlotBytes + u * kCodeBytes);
        const std::uint32_t words[4] = {codes.x, codes.y, codes.z, codes.w};
#pragma unroll
        for (int t = 0; t < 4; ++t) w4_fp8_pair(words[t], a[b] + 8 * u + 2 * t);
      }
    }
    if (begins_group(p_, place_, k_block)) read_factors(offset);
    reading_.next();
  }

  __device__ __forceinline__ void stage(int k_block, const Fragments& now, Fragments& after,
                                        Sums<C>& d) {
    const std::uint32_t sums = sums_at_ + multiplying_ * C::kStageBytes;
    const std::uint64_t box = x_ + multiplying_ * (C::kStageBytes / 16);
    const Factors factors = next_;
    Sums<C> part;
    fence_products();
#pragma unroll
    for (int b = 0; b < C::kBlocks; ++b) {
#pragma unroll
      for (int t = 0; t < 4; ++t) multiply_fp8(part[b], now[b] + 4 * t, box + 2 * t, t);
    }
    commit_products();
    if (k_block + 1 < place_.k_end) read(k_block + 1, after);
    wait_products<0>();
#pragma unroll
    for (int b = 0; b < C::kBlocks; ++b) settle_products(part[b]);
#pragma unroll
    for (int j = 0; j < C::kTokens / 8; ++j) {
      const float2 of_x = load_shared_8(sums + 32 * j);
#pragma unroll
      for (int b = 0; b < C::kBlocks; ++b) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float& sum = d[b][4 * j + i];
          sum = fmaf(factors.product[b][i / 2], part[b][4 * j + i], sum);
          sum = fmaf(factors.sum[b][i / 2], i % 2 == 0 ? of_x.x : of_x.y, sum);
        }
      }
    }
    if (tells_) arrive_remote(empty_ + 8 * multiplying_);
    multiplying_ = multiplying_ == C::kStages - 1 ? 0 : multiplying_ + 1;
  }

  const LargeParams& p_;
  const Place& place_;
  RingOf<C>& reading_;
  std::uint32_t codes_at_;   // of this lane in stage 0, first block
  std::uint32_t scales_at_;  // of this lane's first row
  std::uint32_t zeros_at_;   // likewise
  std::uint32_t sums_at_;    // of this lane's first token
  std::uint64_t x_;          // descriptor of the box of x in stage 0
  bool tells_;
  std::uint32_t empty_;  // barrier of stage 0, at the block that this lane tells
  int multiplying_ = 0;  // stage
  Factors next_;         // of the stage whose codes were read last
};

#else

template <class C>
class Fp8Multiplier;

#endif

template <int kTokens, int kBlocks>
cudaError_t launch(const W4Large& args, const W4LargeTile& tile, cudaStream_t stream) {
  return launch_large<LargeConfig<kTokens, kBlocks, 2, 1, true>, Fp8Multiplier>(args, tile, stream);
}

}  // namespace

cudaError_t w4_fp8(const W4Large& args, const W4LargeTile& tile, cudaStream_t stream) {
  constexpr int kStage = 128;
  const FragmentMatrix& w = args.parts[0].w;
  if (!valid_large(args, tile, kStage) || args.sums_stride % 4 != 0 || args.sums_stride < args.m ||
      (w.groups != 1 && w.cols / w.groups != kStage)) {
    return cudaErrorInvalidValue;
  }
  switch (tile.rows * 1000 + tile.tokens) {
    case 128128:
      return launch<128, 1>(args, tile, stream);
    case 256064:
      return launch<64, 2>(args, tile, stream);
    case 256032:
      return launch<32, 2>(args, tile, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace nibble::cuda
