// What one warp of the decode kernel does: it walks over keys and values of one head with up to
// 8 * kRowTiles query rows and keeps a running softmax.
//
//   S^T = K Q^T   keys are the 16 rows of A, straight from the cache's bytes; queries are B
//   O^T += V^T P^T   A = V^T from pieces of four keys, interleaved in registers; B = the weights,
//                    transposed from the layout of S^T
//
// The order in which head_dim is summed is that of the pieces, for keys and queries alike. With
// g = lane / 4, c = lane % 4: the lane's scores are keys g, g + 8 of each 16 and query rows 2c,
// 2c + 1 of each 8.
#pragma once

#include "backends/cuda/device/async_copy.cuh"
#include "backends/cuda/device/attention_rows.cuh"
#include "backends/cuda/device/decode_shape.cuh"
#include "backends/cuda/device/kv_blocks.cuh"

namespace nibble::cuda {

// What a warp needs to know of its keys.
struct DecodeKeys {
  KvPlaces places;        // a step of keys lies in one block
  const std::uint8_t* k;  // of the KV head
  const std::uint8_t* v;
  std::int64_t k_stride;
  std::int64_t v_stride;
  int end;  // keys from here on are not read
  int head_dim;
  bool dense;  // rows of codes lie one after the other, the first of a step on 16 bytes
};
inline constexpr float kLeastUnit = 0x1p-126f;

// A row's factors of a lane's two columns of each row tile.
struct DecodeColumn {
  float scale;      // of a sum of products
  float query_sum;  // of the rounded query
  float slope;      // alibi, in units of log 2
  int begin;        // keys that the row sees
  int end;
};

template <class Shape, KvType kType>
class DecodeWarp {
 public:
  static constexpr int kRowTiles = Shape::kRows / 8;
  static constexpr int kDim = Shape::kRowBytes * 8 / Shape::Traits::kBits;
  static constexpr bool kCodes = Shape::Traits::kCodes;
  using Pairs = typename Shape::Pairs;

  __device__ DecodeWarp(std::uint8_t* queue, const DecodeKeys& keys, float softcap)
      : queue_(queue), keys_(keys), lane_(static_cast<int>(threadIdx.x) % 32), softcap_(softcap) {
#pragma unroll
    for (int t = 0; t < kRowTiles; ++t) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        largest[t][i] = -INFINITY;
        weight[t][i] = 0;
        offset_[t][i] = 0;
      }
#pragma unroll
      for (int m = 0; m < kDim / 16; ++m) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[m][t][i] = 0;
      }
    }
  }

  // Starts the copies of keys [first, first + kKeys) and their values into a step of the queue.
  // Lanes copy neighbouring pieces: requests of whole lines are what the L2 cache is fast at.
  __device__ void request(int step, int first) const {
    const std::uint32_t at = shared_address(queue_ + step * Shape::kStepBytes);
    const std::uint8_t* k = keys_.k + keys_.places.offset(first, keys_.k_stride);
    const std::uint8_t* v = keys_.v + keys_.places.offset(first, keys_.v_stride);
    const int rows = keys_.end - first;
    if constexpr (kCodes) {
      if (keys_.dense) return request_bytes(at, k, v, rows);
    }
    request_rows(at, k, v, rows - 1);
  }

  // Takes the keys [first, first + kKeys) of a step that has arrived. All lanes together. The code
  // of 16 keys is there once only: a short sequence pays for every instruction that it has to
  // fetch.
  __device__ void take(int step, int first) {
    const std::uint8_t* at = queue_ + step * Shape::kStepBytes;
    if constexpr (kCodes) grow_unit(at);
#pragma unroll 1
    for (int row = 0; row < Shape::kKeys && first + row < keys_.end; row += 16) {
      float scores[kRowTiles][4] = {};
      multiply_keys(at, row, scores);
      weigh(at, row, first + row, scores);
      multiply_values(at, row, scores);
    }
  }

  // Brings what the lanes of a column have summed apart together: weights, and offsets into sums.
  __device__ void finish() {
#pragma unroll
    for (int t = 0; t < kRowTiles; ++t) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int lanes = 4; lanes < 32; lanes *= 2) {
          weight[t][i] += __shfl_xor_sync(0xffffffffu, weight[t][i], lanes);
          if (kCodes) offset_[t][i] += __shfl_xor_sync(0xffffffffu, offset_[t][i], lanes);
        }
        if constexpr (kCodes) {
#pragma unroll
          for (int m = 0; m < kDim / 16; ++m) {
            sums[m][t][i] = fmaf(sums[m][t][i], unit_, offset_[t][i]);
            sums[m][t][i + 2] = fmaf(sums[m][t][i + 2], unit_, offset_[t][i]);
          }
        }
      }
    }
  }

  // Element of head_dim that sums[m][t][i] (i < 2, and one more for i >= 2) belongs to.
  __device__ int element(int m) const {
    constexpr int kTiles = Shape::kValueElements / 2;  // of a piece
    return Shape::value_piece(m / kTiles, lane_ / 4) * Shape::kValueElements + m % kTiles * 2;
  }

  std::uint32_t queries[kDim / 16][kRowTiles][2];  // B fragments
  DecodeColumn columns[kRowTiles][2];
  float largest[kRowTiles][2];
  float weight[kRowTiles][2];
  float sums[kDim / 16][kRowTiles][4];

 private:
  // Dense rows as bytes, 16 at a time, which pass the L1 cache by.
  __device__ void request_bytes(std::uint32_t at, const std::uint8_t* k, const std::uint8_t* v,
                                int rows) const {
    constexpr int kBytes = Shape::kKeys * Shape::kPitch;
#pragma unroll
    for (int i = 0; i < kBytes; i += 512) {
      const int byte = i + lane_ * 16;
      if (byte >= kBytes) continue;
      const int count = min(16, max(0, rows * Shape::kPitch - byte));
      copy_16_async(at + byte, k + byte, count);
      copy_16_async(at + Shape::kValuesAt + byte, v + byte, count);
    }
  }

  // Row by row. Those beyond `last` are replaced by it; they get no weight.
  __device__ void request_rows(std::uint32_t at, const std::uint8_t* k, const std::uint8_t* v,
                               int last) const {
    constexpr int kRowsAtOnce = 32 / Shape::kRowPieces;
    const int piece = lane_ % Shape::kRowPieces;
    const bool exists = piece * Shape::kKeyElements < keys_.head_dim;
    const auto k_stride = static_cast<unsigned>(keys_.k_stride);
    const auto v_stride = static_cast<unsigned>(keys_.v_stride);
    const unsigned from = Shape::Traits::kHeader + piece * Shape::kKeyBytes;
    // What value_place is for pieces of kKeyBytes.
    constexpr int kPart = Shape::kKeyBytes / Shape::kValueBytes;
#pragma unroll
    for (int r = 0; r < Shape::kKeys; r += kRowsAtOnce) {
      const int row = r + lane_ / Shape::kRowPieces;
      const unsigned source = min(row, last);
      copy_async<Shape::kKeyBytes>(at + Shape::key_place(row, piece),
                                   k + (source * k_stride + from), exists);
      copy_async<Shape::kKeyBytes>(at + Shape::value_place(row, piece * kPart),
                                   v + (source * v_stride + from), exists);
    }
    if constexpr (kCodes) {
      static_assert(Shape::kKeys == 32, "a lane copies the header of one key and one value");
      const unsigned source = min(lane_, last);
      const std::uint32_t to = at + lane_ * Shape::kPitch;
      copy_async<8>(to, k + source * k_stride, true);
      copy_async<8>(to + Shape::kValuesAt, v + source * v_stride, true);
    }
  }

  __device__ static float2 key_header(const std::uint8_t* at, int row) {
    if constexpr (!kCodes) return float2{};
    const float2 header = *reinterpret_cast<const float2*>(at + row * Shape::kPitch);
    return {header.x * Shape::Traits::kUnit, header.y};
  }
  __device__ static float2 value_header(const std::uint8_t* at, int row) {
    return key_header(at + Shape::kValuesAt, row);
  }

  // Scores of keys [first, first + 16) of a step, even and odd products in sums of their own: a sum
  // waits for the one before.
  __device__ void multiply_keys(const std::uint8_t* at, int first,
                                float (&scores)[kRowTiles][4]) const {
    constexpr int kBytes = Shape::kKeyBytes;
    constexpr int kProducts = Shape::kKeyElements / 4;  // of 16 elements, a piece
    float odd[kRowTiles][4] = {};
#pragma unroll
    for (int n = 0; n < Shape::kKeyPieces; ++n) {
      const int row = first + lane_ / 4;  // and 8 more, with the same swizzle
      const std::uint8_t* from = at + Shape::key_place(row, Shape::key_piece(n, lane_ % 4));
      std::uint32_t low[2 * kProducts];
      std::uint32_t high[2 * kProducts];
      pairs_of_row<kType>(load_piece<kBytes>(from), low);
      pairs_of_row<kType>(load_piece<kBytes>(from + 8 * Shape::kPitch), high);
#pragma unroll
      for (int p = 0; p < kProducts; ++p) {
        const int s = n * kProducts + p;
#pragma unroll
        for (int t = 0; t < kRowTiles; ++t) {
          Pairs::multiply(s % 2 == 0 ? scores[t] : odd[t], low[2 * p], high[2 * p], low[2 * p + 1],
                          high[2 * p + 1], queries[s][t][0], queries[s][t][1]);
        }
      }
    }
#pragma unroll
    for (int t = 0; t < kRowTiles; ++t) {
#pragma unroll
      for (int i = 0; i < 4; ++i) scores[t][i] += odd[t][i];
    }
  }

  // The score of a key in units of log 2, -infinity for a key that the row does not see.
  __device__ float score(float product, float2 header, int key, const DecodeColumn& column) const {
    float x = product;
    if constexpr (kCodes) {
      const float zero = fmaf(header.x, Shape::Traits::kZero, header.y);
      x = fmaf(header.x, product, zero * column.query_sum);
    }
    x *= column.scale;
    if (softcap_ > 0) x = capped(x, softcap_, 1 / softcap_) * kLog2E;
    x = fmaf(column.slope, static_cast<float>(key), x);
    return key >= column.begin && key < column.end ? x : -INFINITY;
  }

  // Products to weights of the softmax, relative to the largest score so far; `key` is that of row
  // `first` of the step.
  __device__ void weigh(const std::uint8_t* at, int first, int key, float (&scores)[kRowTiles][4]) {
    bool grew = false;
    float factor[kRowTiles][2];
#pragma unroll
    for (int t = 0; t < kRowTiles; ++t) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float most = largest[t][i];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = 8 * half + lane_ / 4;
          float& x = scores[t][2 * half + i];
          x = score(x, key_header(at, first + row), key + row, columns[t][i]);
          most = fmaxf(most, x);
        }
#pragma unroll
        for (int lanes = 4; lanes < 32; lanes *= 2) {
          most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, lanes));
        }
        const float base = most == -INFINITY ? 0 : most;
        factor[t][i] = power_of_2(largest[t][i] - base);
        grew = grew || most > largest[t][i];
        largest[t][i] = most;
        weight[t][i] *= factor[t][i];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float& x = scores[t][2 * half + i];
          x = power_of_2(x - base);
          weight[t][i] += x;
        }
      }
    }
    if (__any_sync(0xffffffffu, grew)) shrink(factor);
  }

  // Weights times scales must fit f16: they are divided by a power of two near the largest scale.
  __device__ void grow_unit(const std::uint8_t* at) {
    const std::uint32_t mine = __float_as_uint(value_header(at, lane_).x) & 0x7f800000u;
    const float unit = __uint_as_float(__reduce_max_sync(0xffffffffu, mine));
    if (unit <= unit_) return;
    const float factor = unit_ / unit;
    unit_ = unit;
    inverse_unit_ = 1 / unit;
#pragma unroll
    for (int t = 0; t < kRowTiles; ++t) {
#pragma unroll
      for (int m = 0; m < kDim / 16; ++m) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[m][t][i] *= factor;
      }
    }
  }

  __device__ void shrink(const float (&factor)[kRowTiles][2]) {
#pragma unroll
    for (int t = 0; t < kRowTiles; ++t) {
      offset_[t][0] *= factor[t][0];
      offset_[t][1] *= factor[t][1];
#pragma unroll
      for (int m = 0; m < kDim / 16; ++m) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[m][t][i] *= factor[t][i % 2];
      }
    }
  }

  // Weights of one half (8 keys) of a subtile as a B fragment's register. Of codes the scale goes
  // into the weight and the offset, with the weight as it was rounded, into a sum of its own.
  __device__ std::uint32_t fragment(const float* weights, float2 header, float (&offset)[2]) const {
    if constexpr (!kCodes) return transpose_8x8(Pairs::pack(weights[0], weights[1]));
    const float scale = header.x * inverse_unit_;
    const float zero = Shape::Traits::kZero * unit_;
    const std::uint32_t pair = Pairs::pack(weights[0] * scale, weights[1] * scale);
    const float2 rounded = Pairs::unpack(pair);
    offset[0] += fmaf(weights[0], header.y, rounded.x * zero);
    offset[1] += fmaf(weights[1], header.y, rounded.y * zero);
    return transpose_8x8(pair);
  }

  __device__ void multiply_values(const std::uint8_t* at, int first,
                                  const float (&weights)[kRowTiles][4]) {
    constexpr int kBytes = Shape::kValueBytes;
    constexpr int kElements = Shape::kValueElements;
    std::uint32_t b[kRowTiles][2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float2 header = value_header(at, first + 8 * half + lane_ / 4);
#pragma unroll
      for (int t = 0; t < kRowTiles; ++t) {
        b[t][half] = fragment(&weights[t][2 * half], header, offset_[t]);
      }
    }
#pragma unroll
    for (int n = 0; n < Shape::kValuePieces; ++n) {
      const int row = first + lane_ % 4 * 2;  // and 1, 8 and 9 more, with the same swizzle
      const std::uint8_t* from = at + Shape::value_place(row, Shape::value_piece(n, lane_ / 4));
      std::uint32_t low[kElements];
      std::uint32_t high[kElements];
      pairs_of_rows<kType>(load_piece<kBytes>(from), load_piece<kBytes>(from + Shape::kPitch), low);
      pairs_of_rows<kType>(load_piece<kBytes>(from + 8 * Shape::kPitch),
                           load_piece<kBytes>(from + 9 * Shape::kPitch), high);
#pragma unroll
      for (int w = 0; w < kElements / 2; ++w) {
#pragma unroll
        for (int t = 0; t < kRowTiles; ++t) {
          Pairs::multiply(sums[n * kElements / 2 + w][t], low[2 * w], low[2 * w + 1], high[2 * w],
                          high[2 * w + 1], b[t][0], b[t][1]);
        }
      }
    }
  }

  std::uint8_t* queue_;  // of this warp: kSteps steps
  DecodeKeys keys_;
  int lane_;
  float softcap_;
  float offset_[kRowTiles][2];
  float unit_ = kLeastUnit;  // of the sums of codes
  float inverse_unit_ = 1 / kLeastUnit;
};

}  // namespace nibble::cuda
