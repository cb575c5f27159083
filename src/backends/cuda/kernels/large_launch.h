// Launches of the kernels of device/large_tile.cuh.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "backends/cuda/device/dependent_launch.cuh"
#include "backends/cuda/device/large_tile.cuh"
#include "backends/cuda/kernels/tensor_map.h"

namespace nibble::cuda {

// Rows and tokens of a tile, and how many blocks share loads of x or split k.
struct LargeCut {
  int rows, tokens, share, split;
};

inline std::int64_t tile_count(std::int64_t size, std::int64_t tile_size) {
  return (size + tile_size - 1) / tile_size;
}

inline LargeGrid make_large_grid(std::int64_t m, std::int64_t n, std::int64_t k_blocks,
                                 const LargeCut& cut) {
  return {static_cast<int>(n),
          static_cast<int>(k_blocks),
          static_cast<int>(tile_count(n, std::int64_t{cut.rows} * cut.share)),
          static_cast<int>(tile_count(m, cut.tokens)),
          cut.share,
          cut.split};
}

// Of y [m, n], y_stride floats from row to row, for tiles of so many tokens.
inline cudaError_t make_out_map(float* y, std::int64_t m, std::int64_t n, std::int64_t y_stride,
                                int tokens, CUtensorMap* map) {
  return make_tensor_map(
      {y, 4, {n, m, 1}, {y_stride * 4, m * y_stride * 4}, {32, out_tokens(tokens), 1}, true}, map);
}

struct LargeLaunch {
  int threads;
  int shared_bytes;
  bool dependent;
};

inline cudaError_t count_multiprocessors(int* count) {
  int device = 0;
  if (const cudaError_t error = cudaGetDevice(&device)) return error;
  return cudaDeviceGetAttribute(count, cudaDevAttrMultiProcessorCount, device);
}

template <class Params>
cudaError_t launch_large(void (*kernel)(Params), const LargeLaunch& shape, const Params& params,
                         cudaStream_t stream) {
  int multiprocessors = 0;
  if (const cudaError_t error = count_multiprocessors(&multiprocessors)) return error;
  if (const cudaError_t error = cudaFuncSetAttribute(
          kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shape.shared_bytes)) {
    return error;
  }
  const LargeGrid& grid = params.grid;
  const int blocks = grid.share * grid.split;
  const int tiles = grid.row_tiles * grid.token_tiles;
  // Blocks that split k meet once and leave; others stay for tile after tile.
  const int clusters =
      grid.split > 1 ? tiles : std::min(tiles, std::max(1, multiprocessors / blocks));
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim = {static_cast<unsigned>(blocks), 1, 1};
  attributes[1] = dependent_launch_attribute(shape.dependent);
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(clusters * blocks));
  config.blockDim = dim3(static_cast<unsigned>(shape.threads));
  config.dynamicSmemBytes = static_cast<std::size_t>(shape.shared_bytes);
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = shape.dependent ? 2 : 1;
  return cudaLaunchKernelEx(&config, kernel, params);
}

}  // namespace nibble::cuda
