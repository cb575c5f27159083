// A warpgroup product takes A from registers, so the weight is A: codes become bfloat16 in the
// registers of the warps that multiply. See device/large_kernel.cuh for what loads and stores.
//
// A stage is 64 of k. While the products of 16 of k and of the 16 before them run, a warp decodes
// the codes of the 16 after the next: products wait in a queue, and the warp waits with them, so
// that decoding a whole stage at once would leave the tensor cores idle.
#include <cuda.h>
#include <cuda_runtime.h>

#include "backends/cuda/device/w4_to_bf16.cuh"
#include "backends/cuda/device/wgmma.cuh"
#include "backends/cuda/kernels/large_launch.h"
#include "backends/cuda/kernels/w4_large.h"

namespace nibble::cuda {
namespace {

#if __CUDA_ARCH_FEAT_SM90_ALL

template <class C>
class Bf16Multiplier {
 public:
  __device__ __forceinline__ Bf16Multiplier(const LargeParams& p, const Lane& me, RingOf<C>& ring)
      : p_(p),
        reading_(ring),
        codes_at_(ring.stages + C::kCodesAt + me.group * kCodeBytes + me.warp * 512 + me.lane * 16),
        scales_at_(ring.stages + C::kScalesAt + 2 * (me.group * C::kGroups * 64 + me.row())),
        zeros_at_(ring.stages + C::kZerosAt + me.group * C::kGroups * 64 + me.row()),
        x_(swizzled_descriptor(ring.stages)),
        tells_(me.lane < p.grid.share),
        empty_(tells_ ? address_at(ring.barriers + C::kStages * 8, me.lane) : 0) {}

  __device__ __forceinline__ void run(const Stretch& stretch, Sums<C>& d) {
#pragma unroll
    for (int b = 0; b < C::kBlocks; ++b) {
#pragma unroll
      for (int i = 0; i < C::kTokens / 2; ++i) d[b][i] = 0;
    }
    Fragments a;
    read_codes(codes_);
    read_scales();
    reading_.next();
    decode(codes_, 0, a[0]);
    decode(codes_, 1, a[1]);
#pragma unroll 1
    for (int k_block = stretch.k_begin; k_block < stretch.k_end; ++k_block) {
      stage(stretch, k_block, a, d);
    }
    wait_products<0>();
    release(multiplying_ == 0 ? C::kStages - 1 : multiplying_ - 1);
  }

 private:
  // Of the 4 times 16 of k of a stage; each is overwritten two steps after its products began.
  using Fragments = std::uint32_t[4][C::kBlocks][4];
  using Codes = uint4[C::kBlocks];

  // Of the stage that is read next, which has arrived afterwards.
  __device__ __forceinline__ void read_codes(Codes& codes) const {
    wait_barrier(reading_.full(), reading_.parity);
    const std::uint32_t at = codes_at_ + reading_.stage * C::kStageBytes;
#pragma unroll
    for (int b = 0; b < C::kBlocks; ++b) {
      codes[b] = load_shared_16(at + b * kLargeMultipliers * kCodeBytes);
    }
  }

  __device__ __forceinline__ void read_scales() {
    const std::uint32_t offset = reading_.stage * C::kStageBytes;
#pragma unroll
    for (int b = 0; b < C::kBlocks; ++b) {
#pragma unroll
      for (int h = 0; h < C::kGroups; ++h) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int element = 64 * (b * kLargeMultipliers * C::kGroups + h) + 8 * i;
          const std::uint32_t zero =
              p_.has_zeros ? load_shared_1(zeros_at_ + offset + element) : 8u;
          scales_[b][h][i] = w4_row_scale(load_shared_2(scales_at_ + offset + 2 * element),
                                          p_.scales_are_bf16, zero);
        }
      }
    }
  }

  // The fragments of the t-th 16 of k.
  __device__ __forceinline__ void decode(const Codes& codes, int t,
                                         std::uint32_t (&a)[C::kBlocks][4]) const {
#pragma unroll
    for (int b = 0; b < C::kBlocks; ++b) {
      const std::uint32_t words[4] = {codes[b].x, codes[b].y, codes[b].z, codes[b].w};
      w4_fragment(words[t], scales_[b][t * C::kGroups / 4], a[b]);
    }
  }

  __device__ __forceinline__ void release(int stage) const {
    if (tells_) arrive_remote(empty_ + 8 * stage);
  }

  // Multiplies k_block, whose first two fragments are there, and leaves the first two of the next.
  // (After the last one, what is decoded is never used.)
  __device__ __forceinline__ void stage(const Stretch& stretch, int k_block, Fragments& a,
                                        Sums<C>& d) {
    const std::uint64_t box = x_ + multiplying_ * (C::kStageBytes / 16);
    const int last = multiplying_ == 0 ? C::kStages - 1 : multiplying_ - 1;
    const bool more = k_block + 1 < stretch.k_end;
    Codes next = {};
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      fence_products();
#pragma unroll
      for (int b = 0; b < C::kBlocks; ++b) multiply_bf16(d[b], a[t][b], box + 2 * t);
      commit_products();
      if (t == 0 && more) read_codes(next);
      wait_products<2>();
      if (t == 1 && k_block > stretch.k_begin) release(last);
      t < 2 ? decode(codes_, t + 2, a[t + 2]) : decode(next, t - 2, a[t - 2]);
      if (t == 1 && more) {
        if (begins_group(p_, stretch, k_block + 1)) read_scales();
        reading_.next();
      }
    }
#pragma unroll
    for (int b = 0; b < C::kBlocks; ++b) codes_[b] = next[b];
    multiplying_ = multiplying_ == C::kStages - 1 ? 0 : multiplying_ + 1;
  }

  const LargeParams& p_;
  RingOf<C>& reading_;
  std::uint32_t codes_at_;   // of this lane in stage 0, first block
  std::uint32_t scales_at_;  // of this lane's first row
  std::uint32_t zeros_at_;   // likewise
  std::uint64_t x_;          // descriptor of the box of x in stage 0
  bool tells_;
  std::uint32_t empty_;  // barrier of stage 0, at the block that this lane tells
  int multiplying_ = 0;  // stage
  Codes codes_;
  W4RowScale scales_[C::kBlocks][C::kGroups][2];
};

#else

template <class C>
class Bf16Multiplier;

#endif

template <int kTokens, int kBlocks>
cudaError_t launch(const W4Large& args, const W4LargeTile& tile, cudaStream_t stream) {
  const bool small_groups = args.parts[0].w.cols / args.parts[0].w.groups < 64;
  constexpr bool kStoresBoxes = kTokens == 256;
  return small_groups ? launch_large<LargeConfig<kTokens, kBlocks, 1, 2, false, kStoresBoxes>,
                                     Bf16Multiplier>(args, tile, stream)
                      : launch_large<LargeConfig<kTokens, kBlocks, 1, 1, false, kStoresBoxes>,
                                     Bf16Multiplier>(args, tile, stream);
}

}  // namespace

cudaError_t w4_large(const W4Large& args, const W4LargeTile& tile, cudaStream_t stream) {
  if (!valid_large(args, tile, 64)) return cudaErrorInvalidValue;
  switch (tile.rows * 1000 + tile.tokens) {
    case 128256:
      return launch<256, 1>(args, tile, stream);
    case 256128:
      return launch<128, 2>(args, tile, stream);
    case 256064:
      return launch<64, 2>(args, tile, stream);
    case 256032:
      return launch<32, 2>(args, tile, stream);
    case 128064:
      return launch<64, 1>(args, tile, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace nibble::cuda
