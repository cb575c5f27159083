// 4-bit weights by fp8 activations: as w4_large.cu, but a stage is 128 of k, whose products the
// tensor cores sum up; they keep 13 bits of such sums, so every stage is added to the float32 sums
// proper, scaled. With a code q = (v + 15) / 2 and v the odd integer of device/w4_to_fp8.cuh,
//
//   sum over a group of s (q - z) x = s / 2 (sum of v x) + s (7.5 - z) (sum of x).
//
// The second half of that is a product of its own, of pairs of bfloat16 and an inner size of one
// for each 128 of k, ahead of the stages: a factor for every number here costs a quarter of all the
// instructions that fit beside the tensor cores' 64 x 128 x 128.
//
// What bounds it is instructions beside the products, 205 of a warp for 64 x 128 x 128, of which 72
// expand codes, so that tiles have as many tokens as registers allow (docs/gpu-kernels.md).
#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "backends/cuda/device/w4_to_fp8.cuh"
#include "backends/cuda/device/wgmma.cuh"
#include "backends/cuda/kernels/large_launch.h"
#include "backends/cuda/kernels/w4_large.h"

namespace nibble::cuda {
namespace {

#if __CUDA_ARCH_FEAT_SM90_ALL

// The products of a stage are of two or three parts. While those of one run, another's are added up
// and the codes of the next stage expanded.
template <class C>
class Fp8Multiplier {
 public:
  __device__ __forceinline__ Fp8Multiplier(const LargeParams& p, const Lane& me, RingOf<C>& ring)
      : p_(p),
        me_(me),
        reading_(ring),
        codes_at_(ring.stages + C::kCodesAt + me.group * C::kSlotBytes + me.warp * 512 +
                  me.lane * 16),
        scales_at_(ring.stages + C::kScalesAt + 2 * (me.group * 64 + me.row())),
        x_(swizzled_descriptor(ring.stages)),
        tells_(me.lane < p.grid.share),
        empty_(tells_ ? address_at(ring.barriers + C::kStages * 8, me.lane) : 0) {}

  __device__ __forceinline__ void run(const Stretch& stretch, Sums<C>& d) {
#pragma unroll
    for (int b = 0; b < C::kBlocks; ++b) {
#pragma unroll
      for (int i = 0; i < C::kTokens / 2; ++i) d[b][i] = 0;
    }
    const int boxes = sum_boxes_before(stretch.k_end) - sum_boxes_before(stretch.k_begin);
#pragma unroll 1
    for (int i = 0; i < boxes; ++i) add_zero_points(d);
    Fragments a[2];
    int k_block = stretch.k_begin;
    multiplying_ = reading_.stage;
    read(stretch, k_block, a[0]);
    Factors factors;
    take_factors(factors);
#pragma unroll 1
    for (; k_block + 1 < stretch.k_end; k_block += 2) {
      stage(stretch, k_block, a[0], a[1], factors, d);
      stage(stretch, k_block + 1, a[1], a[0], factors, d);
    }
    if (k_block < stretch.k_end) stage(stretch, k_block, a[0], a[1], factors, d);
  }

 private:
  // Of products: a block of rows, or 64 tokens of the only one.
  static constexpr int kParts = C::kBlocks == 2 ? 2 : C::kTokens / 64;
  static constexpr int kPart = C::kBlocks * C::kTokens / 2 / kParts;  // sums of a lane
  // From a part to the next in a box of x, in 16 bytes.
  static constexpr int kPartBox = C::kBlocks == 2 ? 0 : 64 * 128 / 16;
  using Part = float[kPart];
  using Fragments = std::uint32_t[C::kBlocks][16];  // of a stage
  using Pairs = std::uint32_t[2][C::kBlocks][4];    // of a box of sums
  using Factors = float[C::kBlocks][2];             // of rows g and g + 8

  __device__ __forceinline__ float scale_of(std::uint16_t bits) const {
    return p_.scales_are_bf16 ? __uint_as_float(static_cast<std::uint32_t>(bits) << 16)
                              : __half2float(__ushort_as_half(bits));
  }

  // s (7.5 - z), in kFp8SumUnit, of a row of this warpgroup's b-th block and a group of the box
  // of sums that has arrived at `offset`.
  __device__ __forceinline__ float zero_factor(std::uint32_t offset, int b, int row,
                                               int group) const {
    const int slot = b * kLargeMultipliers + me_.group;
    const int element =
        slot * kFp8SumGroups * 64 + (p_.group_mask == INT_MAX ? 0 : group * 64) + row;
    const std::uint32_t at = reading_.stages + offset;
    const float scale = scale_of(load_shared_2(at + C::kCodesAt + 2 * element));
    const std::uint32_t zero = p_.has_zeros ? load_shared_1(at + C::kZerosAt + element) : 8u;
    return scale * ((7.5f - static_cast<float>(zero)) / kFp8SumUnit);
  }

  // Adds the zero points' share of the groups of a box: the product of their factors and the sums
  // of x, both as pairs of bfloat16.
  __device__ __forceinline__ void add_zero_points(Sums<C>& d) {
    wait_barrier(reading_.full(), reading_.parity);
    const std::uint32_t offset = reading_.stage * C::kStageBytes;
    const std::uint64_t box = x_ + offset / 16;
    Pairs high, low;
#pragma unroll
    for (int i = 0; i < 8 * C::kBlocks; ++i) {
      const int b = i / 8;
      const int half = i / 4 % 2;
      const int row = me_.row() + i % 2 * 8;
      const int group = 16 * half + i / 2 % 2 * 8 + 2 * me_.c();
      const float2 factors{zero_factor(offset, b, row, group),
                           zero_factor(offset, b, row, group + 1)};
      const __nv_bfloat162 rounded = __float22bfloat162_rn(factors);
      const float2 rest{factors.x - __low2float(rounded), factors.y - __high2float(rounded)};
      const __nv_bfloat162 rounded_rest = __float22bfloat162_rn(rest);
      high[half][b][i % 4] = reinterpret_cast<const std::uint32_t&>(rounded);
      low[half][b][i % 4] = reinterpret_cast<const std::uint32_t&>(rounded_rest);
    }
    add_pairs<0>(high, low, box, d);
    add_pairs<1>(high, low, box, d);
    if constexpr (kParts == 3) add_pairs<2>(high, low, box, d);
    release(reading_.stage);
    reading_.next();
  }

  // The codes of the stage that is read next, which is k_block, and its scales, if others than
  // before.
  __device__ __forceinline__ void read(const Stretch& stretch, int k_block, Fragments& a) {
    wait_barrier(reading_.full(), reading_.parity);
    const std::uint32_t offset = reading_.stage * C::kStageBytes;
    uint4 codes[2 * C::kBlocks];
#pragma unroll
    for (int i = 0; i < 2 * C::kBlocks; ++i) {
      const int slot = i / 2 * kLargeMultipliers;
      codes[i] = load_shared_16(codes_at_ + offset + slot * C::kSlotBytes + i % 2 * kCodeBytes);
    }
    if (begins_group(p_, stretch, k_block)) {
#pragma unroll
      for (int i = 0; i < 2 * C::kBlocks; ++i) {
        const int element = 64 * (i / 2) * kLargeMultipliers + 8 * (i % 2);
        scales_[i / 2][i % 2] = load_shared_2(scales_at_ + offset + 2 * element);
      }
    }
    reading_.next();
#pragma unroll
    for (int i = 0; i < 2 * C::kBlocks; ++i) {
      const std::uint32_t words[4] = {codes[i].x, codes[i].y, codes[i].z, codes[i].w};
#pragma unroll
      for (int t = 0; t < 4; ++t) w4_fp8_pair(words[t], a[i / 2] + 8 * (i % 2) + 2 * t);
    }
  }

  __device__ __forceinline__ void take_factors(Factors& factors) const {
#pragma unroll
    for (int i = 0; i < 2 * C::kBlocks; ++i) {
      factors[i / 2][i % 2] = scale_of(scales_[i / 2][i % 2]);
    }
  }

  // Begins the products of a part of a stage.
  template <int kIndex>
  __device__ __forceinline__ void multiply(const Fragments& a, std::uint64_t box,
                                           Part& part) const {
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      multiply_fp8(part, a[kIndex % C::kBlocks] + 4 * t, box + kIndex * kPartBox + 2 * t, t);
    }
    commit_products();
  }

  // The products of a part of 32 groups of zero points.
  template <int kIndex>
  __device__ __forceinline__ void add_pairs(const Pairs& high, const Pairs& low, std::uint64_t box,
                                            Sums<C>& d) const {
    constexpr int kBlock = kIndex % C::kBlocks;
    Part part = {};
    fence_products();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::uint64_t at = box + kIndex * kPartBox + 4 * half;
      multiply_bf16(part, high[half][kBlock], at);
      multiply_bf16(part, high[half][kBlock], at + 2);
      multiply_bf16(part, low[half][kBlock], at);
    }
    commit_products();
    wait_products<0>();
    Factors one;
#pragma unroll
    for (int i = 0; i < 2 * C::kBlocks; ++i) one[i / 2][i % 2] = 1;
    add<kIndex>(one, part, d);
  }

  // Adds a part, whose products are there, to the sums.
  template <int kIndex>
  __device__ __forceinline__ void add(const Factors& factors, Part& part, Sums<C>& d) const {
    settle_products(part);
#pragma unroll
    for (int i = 0; i < kPart; ++i) {
      float& sum = C::kBlocks == 2 ? d[kIndex % C::kBlocks][i] : d[0][kIndex * kPart + i];
      sum = fmaf(factors[kIndex % C::kBlocks][i % 4 / 2], part[i], sum);
    }
  }

  // Multiplies k_block, whose codes are `now`, and reads the next.
  __device__ __forceinline__ void stage(const Stretch& stretch, int k_block, const Fragments& now,
                                        Fragments& after, Factors& factors, Sums<C>& d) {
    const std::uint64_t box = x_ + multiplying_ * (C::kStageBytes / 16);
    const bool more = k_block + 1 < stretch.k_end;
    Part even, odd;
    fence_products();
    multiply<0>(now, box, even);
    multiply<1>(now, box, odd);
    if (more) read(stretch, k_block + 1, after);
    wait_products<1>();
    add<0>(factors, even, d);
    if constexpr (kParts == 3) {
      fence_products();
      multiply<2>(now, box, even);
      wait_products<1>();
      add<1>(factors, odd, d);
      wait_products<0>();
      add<2>(factors, even, d);
    } else {
      wait_products<0>();
      add<1>(factors, odd, d);
    }
    release(multiplying_);
    multiplying_ = multiplying_ == C::kStages - 1 ? 0 : multiplying_ + 1;
    take_factors(factors);
  }

  __device__ __forceinline__ void release(int stage) const {
    if (tells_) arrive_remote(empty_ + 8 * stage);
  }

  const LargeParams& p_;
  const Lane& me_;
  RingOf<C>& reading_;
  std::uint32_t codes_at_;   // of this lane in stage 0, first block
  std::uint32_t scales_at_;  // of this lane's first row
  std::uint64_t x_;          // descriptor of the box of x in stage 0
  bool tells_;
  std::uint32_t empty_;                  // barrier of stage 0, at the block that this lane tells
  int multiplying_ = 0;                  // stage
  std::uint16_t scales_[C::kBlocks][2];  // that were read last, of rows g and g + 8
};

#else

template <class C>
class Fp8Multiplier;

#endif

template <int kTokens, int kBlocks, bool kStoresBoxes>
cudaError_t launch(const W4Large& args, const W4LargeTile& tile, cudaStream_t stream) {
  return launch_large<LargeConfig<kTokens, kBlocks, 2, 1, true, kStoresBoxes>, Fp8Multiplier>(
      args, tile, stream);
}

}  // namespace

cudaError_t w4_fp8(const W4Large& args, const W4LargeTile& tile, cudaStream_t stream) {
  constexpr int kStage = 128;
  const FragmentMatrix& w = args.parts[0].w;
  if (!valid_large(args, tile, kStage) || (w.groups != 1 && w.cols / w.groups != kStage)) {
    return cudaErrorInvalidValue;
  }
  switch (tile.rows * 1000 + tile.tokens) {
    case 128128:
      return tile.split == 1 ? launch<128, 1, true>(args, tile, stream)
                             : launch<128, 1, false>(args, tile, stream);
    case 128192:
      return launch<192, 1, true>(args, tile, stream);
    case 256064:
      return launch<64, 2, false>(args, tile, stream);
    case 256032:
      return launch<32, 2, false>(args, tile, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace nibble::cuda
