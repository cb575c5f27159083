// How a decode launch is cut into blocks, and what each has to do: one KV head of one sequence,
// some (query row, head of the group) pairs, one part of the keys.
#pragma once

#include "backends/cuda/device/attention_rows.cuh"
#include "backends/cuda/device/decode_shape.cuh"

namespace nibble::cuda {

// How the launch is cut, the same on host and device.
struct DecodePlan {
  int parts;       // of the keys, at most
  int row_blocks;  // of the query rows of a KV head, at most
  int items;       // sequences x KV heads x row blocks
  int steps;       // of a warp's queue
};

struct DecodeLaunch {
  AttentionLaunch args;
  DecodePlan plan;
  int group;  // query heads of a KV head
  float inverse_group;
  unsigned* counters;  // [items]
  float* partial;      // [items, parts, kRows, kDim + 2]
};

// Query row and head within the group of a (query row, head) pair. Exact below 2^20 pairs.
struct Pair {
  int t;
  int head;
};
__device__ inline Pair pair_of(const DecodeLaunch& launch, int number) {
  const auto t = static_cast<int>((static_cast<float>(number) + 0.5f) * launch.inverse_group);
  return {t, number - t * launch.group};
}

// Where a block works.
struct BlockWork {
  KeyRange keys;  // of all parts
  int part_keys;
  int parts;  // that have keys; 1 when there are none at all
  int first_row;
  int rows;  // (query row, head) pairs of this block
  int kv_head;
  int item;
};

// Of so many keys, in steps of step_keys.
__host__ __device__ inline int keys_of_part(int keys, int parts, int step_keys) {
  const int share = (keys + parts - 1) / parts;
  const int steps = (share + step_keys - 1) / step_keys;
  return (steps > kDecodeWarps ? steps : kDecodeWarps) * step_keys;
}

template <class Shape>
__device__ BlockWork find_work(const DecodeLaunch& launch, const DeviceSequence& sequence) {
  BlockWork work;
  const int row_block = static_cast<int>(blockIdx.y) % launch.plan.row_blocks;
  work.kv_head = static_cast<int>(blockIdx.y) / launch.plan.row_blocks;
  work.item = static_cast<int>(blockIdx.z * gridDim.y + blockIdx.y);
  work.first_row = row_block * Shape::kRows;
  const auto all_rows = static_cast<int>(sequence.q_rows) * launch.group;
  work.rows = min(Shape::kRows, all_rows - work.first_row);
  work.keys = visible_keys(launch.args, sequence, pair_of(launch, work.first_row).t,
                           pair_of(launch, work.first_row + work.rows - 1).t);
  // From an even row on rows of codes that lie one after the other begin on 16 bytes.
  if (Shape::Traits::kCodes) work.keys.begin &= ~1;
  if (launch.args.blocks.block_rows != 0) work.keys.begin &= ~(Shape::kKeys - 1);
  const int count = max(0, work.keys.end - work.keys.begin);
  work.part_keys = keys_of_part(count, launch.plan.parts, Shape::kKeys);
  work.parts = max(1, (count + work.part_keys - 1) / work.part_keys);
  return work;
}

}  // namespace nibble::cuda
