// Launches of the kernels of device/large_kernel.cuh.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <climits>
#include <cstdint>

#include "backends/cuda/device/dependent_launch.cuh"
#include "backends/cuda/device/large_kernel.cuh"
#include "backends/cuda/kernels/tensor_map.h"

namespace nibble::cuda {

inline std::int64_t tile_count(std::int64_t size, std::int64_t tile_size) {
  return (size + tile_size - 1) / tile_size;
}

inline cudaError_t count_multiprocessors(int* count) {
  int device = 0;
  if (const cudaError_t error = cudaGetDevice(&device)) return error;
  return cudaDeviceGetAttribute(count, cudaDevAttrMultiProcessorCount, device);
}

inline TensorBox planes_box(const void* data, int element_bytes, const std::int64_t (&sizes)[3],
                            int middle_box, int outer_box) {
  const std::int64_t bytes = sizes[0] * element_bytes;
  return {data,
          element_bytes,
          {sizes[0], sizes[1], sizes[2]},
          {bytes, sizes[1] * bytes},
          {static_cast<int>(sizes[0]), middle_box, outer_box},
          false};
}

template <class C>
cudaError_t make_part_maps(const W4Large& args, const FragmentPart& part, LargePart* to) {
  const FragmentMatrix& w = part.w;
  const int slots = args.silu_pair ? C::kSlots / 2 : C::kSlots;
  const std::int64_t blocks = w.rows / 64;
  const TensorBox codes =
      planes_box(w.codes, 8, {kCodeBytes / 8, w.cols / 64, blocks}, C::kUnits, slots);
  const TensorBox scales = planes_box(w.scales, 2, {64, w.groups, blocks}, C::kGroups, slots);
  const TensorBox zeros = planes_box(w.zeros, 1, {64, w.groups, blocks}, C::kGroups, slots);
  cudaError_t error = make_tensor_map(codes, &to->codes);
  if (error == cudaSuccess) error = make_tensor_map(scales, &to->scales);
  if (error == cudaSuccess && w.zeros != nullptr) error = make_tensor_map(zeros, &to->zeros);
  if (C::kSums) {
    TensorBox of_box = scales;
    of_box.box[1] = kFp8SumGroups;
    if (error == cudaSuccess) error = make_tensor_map(of_box, &to->scales_of_box);
    of_box = zeros;
    of_box.box[1] = kFp8SumGroups;
    if (error == cudaSuccess && w.zeros != nullptr) {
      error = make_tensor_map(of_box, &to->zeros_of_box);
    }
  }
  if (error == cudaSuccess && C::kStoresBoxes) {
    error = make_tensor_map({part.y,
                             4,
                             {w.rows, args.m, 1},
                             {part.y_stride * 4, args.m * part.y_stride * 4},
                             {32, kOutTokens, 1},
                             true},
                            &to->out);
  }
  to->bias = part.bias;
  to->y = part.y;
  to->y_stride = part.y_stride;
  to->rows = static_cast<int>(w.rows);
  return error;
}

template <class C>
cudaError_t make_x_maps(const W4Large& args, const W4LargeTile& tile, LargeParams* p) {
  const auto make = [&](const void* x, std::int64_t cols, int elements, CUtensorMap* map) {
    const int element_bytes = 128 / elements;
    const std::int64_t row_bytes = cols * element_bytes;
    return make_tensor_map({x,
                            element_bytes,
                            {cols, args.m, 1},
                            {row_bytes, args.m * row_bytes},
                            {elements, C::kTokens / tile.share, 1},
                            true},
                           map);
  };
  const std::int64_t cols = args.parts[0].w.cols;
  const cudaError_t error = make(args.x, cols, C::kBoxElements, &p->x);
  if (error != cudaSuccess || !C::kSums) return error;
  return make(args.x_sums, fp8_sum_columns(cols), kFp8SumBox, &p->x_sums);
}

template <class C>
LargeGrid make_grid(const W4Large& args, const W4LargeTile& tile) {
  const std::int64_t rows = (args.silu_pair ? C::kRows / 2 : C::kRows) * tile.share;
  LargeGrid grid{};
  grid.k_blocks = static_cast<int>(args.parts[0].w.cols / (64 * C::kUnits));
  grid.sum_boxes =
      C::kSums ? static_cast<int>(fp8_sum_columns(args.parts[0].w.cols) / kFp8SumBox) : 0;
  grid.token_tiles = static_cast<int>(tile_count(args.m, C::kTokens));
  grid.share = tile.share;
  grid.split = tile.split;
  const int parts = args.silu_pair ? 1 : args.part_count;
  for (int i = 0; i < parts; ++i) {
    grid.first_tile[i] = grid.row_tiles;
    grid.row_tiles += static_cast<int>(tile_count(args.parts[i].w.rows, rows));
  }
  for (int i = parts; i < kW4LargeMaxParts; ++i) grid.first_tile[i] = INT_MAX;
  return grid;
}

template <class C>
cudaError_t make_params(const W4Large& args, const W4LargeTile& tile, LargeParams* p) {
  const FragmentMatrix& w = args.parts[0].w;
  const std::int64_t stage = 64 * C::kUnits;
  const std::int64_t group = w.cols / w.groups;
  if (const cudaError_t error = make_x_maps<C>(args, tile, p)) return error;
  for (int i = 0; i < args.part_count; ++i) {
    if (const cudaError_t error = make_part_maps<C>(args, args.parts[i], &p->parts[i])) {
      return error;
    }
  }
  p->grid = make_grid<C>(args, tile);
  p->x_scales = args.x_scales;
  p->rounded_y = static_cast<__nv_bfloat16*>(args.rounded_y);
  p->counters = static_cast<unsigned*>(args.workspace);
  p->sums = reinterpret_cast<float4*>(static_cast<char*>(args.workspace) + kW4LargeCounterBytes);
  p->m = static_cast<int>(args.m);
  p->blocks_of_group = group < stage ? 1 : static_cast<int>(group / stage);
  p->group_mask = w.groups == 1 ? INT_MAX : p->blocks_of_group - 1;
  p->has_zeros = w.zeros != nullptr;
  p->scales_are_bf16 = w.bf16_scales;
  p->accumulate = args.accumulate;
  p->silu_pair = args.silu_pair;
  return cudaSuccess;
}

template <class C, template <class> class M>
cudaError_t launch_large(const W4Large& args, const W4LargeTile& tile, cudaStream_t stream) {
  LargeParams params{};
  if (const cudaError_t error = make_params<C>(args, tile, &params)) return error;
  int multiprocessors = 0;
  if (const cudaError_t error = count_multiprocessors(&multiprocessors)) return error;
  void (*const kernel)(LargeParams) = large_kernel<C, M>;
  if (const cudaError_t error =
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, C::kAllBytes)) {
    return error;
  }
  LargeGrid& grid = params.grid;
  const int tiles = grid.row_tiles * grid.token_tiles;
  const int room = std::max(1, multiprocessors / grid.share);
  const bool shares_k = tile.split > 1 || tile.spreads;
  const int rest = shares_k ? tiles % room : 0;
  // They wait for each other.
  if (rest * grid.split > room) return cudaErrorInvalidValue;
  grid.whole = tiles - rest;
  int clusters = room;
  if (!shares_k) {
    clusters = std::min(tiles, room);
  } else if (grid.whole == 0 && !tile.spreads) {
    clusters = rest * grid.split;
  }
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim = {static_cast<unsigned>(grid.share), 1, 1};
  attributes[1] = dependent_launch_attribute(args.dependent_launch);
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(clusters * grid.share));
  config.blockDim = dim3(kLargeThreads);
  config.dynamicSmemBytes = C::kAllBytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = args.dependent_launch ? 2 : 1;
  return cudaLaunchKernelEx(&config, kernel, params);
}

}  // namespace nibble::cuda
