// Keys and values of one sequence, for every layer, growing by append.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backends/memory.h"
#include "formats/kv_type.h"
#include "model/spec.h"
#include "ops/args.h"
#include "tensor/tensor.h"

namespace nibble {

class KvPool;

// Keys and values of a layer that lie one after the other: rows in the sense of KvWriteArgs.
struct KvRun {
  std::int64_t rows = 0;
  HeadView<void> k, v;
};

// One block of memory, or several of a pool. Layout of a block: [layers, K and V, kv_heads, rows]
// rows of kv_row_bytes(format.type, head_dim) bytes. The rows of one head lie one after the other,
// so that attention reads memory in order.
class KvCache {
 public:
  // Room for `capacity` tokens, all layers, in the memory of the backend that runs the model (which
  // must outlive the cache). kMemory or kDevice when it cannot be had.
  KvCache(const ModelSpec& spec, std::int64_t capacity, KvFormat format,
          DeviceMemory& memory = host_memory());
  // In blocks of a pool, which must outlive it; none at first.
  explicit KvCache(const KvPool& pool);

  const KvFormat& format() const { return format_; }
  std::int64_t size() const { return size_; }
  std::int64_t capacity() const { return capacity_; }
  // What one token takes, all layers together.
  std::int64_t bytes_per_token() const;

  // Tokens [0, size) stay; a later append overwrites the rest. size <= this->size().
  void truncate(std::int64_t size);
  // Called by the forward pass once a call's tokens are in every layer. kUsage beyond the capacity.
  void advance(std::int64_t rows);
  // Makes room for more tokens; those held are copied. Errors as the constructor's. Not of a pool.
  void grow(std::int64_t capacity);
  // Of a pool: the blocks that hold it from now on, by their numbers and in the order of tokens, of
  // which the first `size` are there already.
  void set_blocks(std::span<const std::int32_t> blocks, std::int64_t size);

  // Keys and values of a layer in the sense of AttentionSequence: with blocks() and block_rows().
  HeadView<void> k(std::int64_t layer) { return view(2 * layer); }
  HeadView<void> v(std::int64_t layer) { return view(2 * layer + 1); }
  std::span<const std::int64_t> blocks() const { return blocks_; }  // empty: there is one only
  std::int64_t block_rows() const { return block_rows_; }
  // Appends where tokens [begin, begin + count) of a layer lie; within the capacity.
  void append_runs(std::int64_t layer, std::int64_t begin, std::int64_t count,
                   std::vector<KvRun>& runs);

  // Whether tokens [begin, size()) hold what F16 cannot say (an infinity or NaN) in a layer; false
  // for other types.
  bool overflowed(std::int64_t layer, std::int64_t begin);

 private:
  HeadView<void> view(std::int64_t plane);
  void allocate(std::int64_t capacity);

  DeviceMemory* memory_;
  KvFormat format_;
  std::int64_t layers_;
  std::int64_t heads_;
  std::int64_t head_dim_;
  std::int64_t capacity_ = 0;
  std::int64_t size_ = 0;
  std::int64_t row_bytes_;
  std::int64_t head_bytes_ = 0;
  std::int64_t block_rows_ = 0;       // of a pool's blocks; 0 without
  std::int64_t block_bytes_ = 0;      // the same
  std::int64_t first_ = 0;            // where the first block begins in bytes_
  std::vector<std::int64_t> blocks_;  // where each begins behind the first; none when it is alone
  Tensor bytes_;                      // its own block, or all of the pool
};

// Memory for the keys and values of many sequences, in blocks of equal size that they share out
// among themselves; who holds which is up to the caller.
class KvPool {
 public:
  // kMemory or kDevice when the memory cannot be had.
  KvPool(const ModelSpec& spec, std::int64_t blocks, std::int64_t block_rows, KvFormat format,
         DeviceMemory& memory = host_memory());

  // What a block takes, all layers together.
  static std::int64_t block_bytes(const ModelSpec& spec, std::int64_t block_rows,
                                  const KvFormat& format);

  std::int64_t block_rows() const { return block_rows_; }

  // A block of one pool into a block of another of equal blocks; one of the two lies in the host's
  // memory.
  static void copy_block(const KvPool& from, std::int64_t block, KvPool& to, std::int64_t into);

 private:
  friend class KvCache;
  const ModelSpec& spec_;
  std::int64_t block_rows_;
  KvFormat format_;
  DeviceMemory* memory_;
  Tensor bytes_;  // [blocks, bytes of a block]
};

}  // namespace nibble
