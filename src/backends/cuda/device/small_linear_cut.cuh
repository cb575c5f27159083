// What a cut of the work of kernels/small_linear.h takes of a device. Host code.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>

#include "backends/cuda/device/small_linear_shape.cuh"

namespace nibble::cuda::small {

inline constexpr int kMaxSlices = 8;  // blocks of a cluster that any Hopper device can run

// Of the device that is current.
struct Device {
  int major = 0;
  int multiprocessors = 0;
  int block_bytes = 0;           // of shared memory, at most, barriers of the kernel aside
  int multiprocessor_bytes = 0;  // for all blocks on one, each of which takes 1 KiB more
};

inline cudaError_t current_device(Device& device) {
  int id = 0;
  cudaError_t error = cudaGetDevice(&id);
  const auto get = [&](int& value, cudaDeviceAttr attribute) {
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&value, attribute, id);
  };
  get(device.major, cudaDevAttrComputeCapabilityMajor);
  get(device.multiprocessors, cudaDevAttrMultiProcessorCount);
  get(device.block_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin);
  get(device.multiprocessor_bytes, cudaDevAttrMaxSharedMemoryPerMultiprocessor);
  constexpr int kBarrierBytes = 2 * kWarps * 8;
  device.block_bytes -= kBarrierBytes;
  device.multiprocessor_bytes -= 2 * (kBarrierBytes + 1024);
  return error;
}

constexpr int token_tiles_of(int m) { return m <= kDigitRows ? 0 : m <= 8 ? 1 : m <= 16 ? 2 : 4; }

// Four tiles a task keep more products under way, where registers and lanes suffice; short stages
// let more of the weights be on their way. Two tiles of 8 bits are as many bytes as four of 4.
constexpr int tiles_of(int wanted, int bits, int token_tiles, int groups) {
  return wanted == 4 && bits == 4 && token_tiles == 1 && groups <= 2 ? 4 : 2;
}
constexpr int stages_of(int tiles, int bits, int token_tiles, int groups) {
  return tiles == 4 || bits == 8 ? 2 : token_tiles == 1 && groups <= 2 ? 4 : 3;
}
// Of digits, by how much there is room for.
constexpr int digit_stages(int bits, bool deep) { return (deep ? 24 : 16) / bits; }

// Columns of a chunk that share a scale, as the number of such groups.
inline int groups_of_chunk(const FragmentMatrix& w) {
  return w.groups == 1 ? 1 : std::max(1, static_cast<int>(128 * w.groups / w.cols));
}

// Shared memory of a block, for a ring of so many stages.
inline int shared_bytes(const FragmentMatrix& w, int m, const SmallLinearTile& tile, int stages) {
  const int token_tiles = token_tiles_of(m);
  const int groups = groups_of_chunk(w);
  const int tiles = tiles_of(tile.tiles, w.bits, token_tiles, groups);
  const int stage = tiles * (2 * (w.bits / 4) * kLoadBytes + groups * 48);
  const int chunks = static_cast<int>(((w.cols / 64 + 1) / 2 + tile.slices - 1) / tile.slices);
  const int x = token_tiles == 0 ? digit_row_bytes(groups) : 2 * kUnitBytes;  // of a row of a chunk
  return kWarps * stages * stage +
         exchange_bytes(cells_of(tiles, token_tiles), tile.slices, tile.splits) + chunks * m * x;
}

// A block of digits leaves as much as it takes to the next kernel, whose ring fills while this one
// multiplies. What is left goes into the ring.
inline bool has_deep_ring(const Device& device, const FragmentMatrix& w, int m,
                          const SmallLinearTile& tile) {
  return token_tiles_of(m) == 0 &&
         2 * shared_bytes(w, m, tile, digit_stages(w.bits, true)) <= device.multiprocessor_bytes;
}

inline int shared_bytes(const Device& device, const FragmentMatrix& w, int m,
                        const SmallLinearTile& tile) {
  const int token_tiles = token_tiles_of(m);
  const int groups = groups_of_chunk(w);
  const int tiles = tiles_of(tile.tiles, w.bits, token_tiles, groups);
  const int stages = token_tiles == 0 ? digit_stages(w.bits, has_deep_ring(device, w, m, tile))
                                      : stages_of(tiles, w.bits, token_tiles, groups);
  return shared_bytes(w, m, tile, stages);
}

inline int blocks_of(const Device& device, int bytes, int m, const SmallLinearTile& tile) {
  return m <= 16 && 2 * bytes <= device.multiprocessor_bytes ? tile.blocks : 1;
}

inline bool valid(const SmallLinearTile& tile, std::int64_t cols, int major) {
  return tile.slices >= 1 && tile.slices <= kMaxSlices && tile.slices <= (cols / 64 + 1) / 2 &&
         (tile.splits == 1 || tile.splits == 2 || tile.splits == 4 || tile.splits == 8) &&
         (major >= 9 || tile.slices * tile.splits == 1) && (tile.tiles == 2 || tile.tiles == 4) &&
         (tile.blocks == 1 || tile.blocks == 2);
}

}  // namespace nibble::cuda::small
