#include <algorithm>
#include <atomic>
#include <cstring>
#include <iterator>
#include <vector>

#include "backends/cpu/drivers.h"
#include "backends/cpu/kv_storage.h"
#include "backends/cpu/rounding.h"
#include "backends/cpu/scratch.h"

namespace nibble::cpu {
namespace {

const unsigned char* head_begin(const HeadView<const void>& view, std::int64_t head) {
  return static_cast<const unsigned char*>(view.data) + head * view.head_stride;
}

// All queries of one sequence that share the keys of one head.
AttentionTask group_task(const AttentionArgs& args, const AttentionSequence& sequence,
                         std::int64_t kv_head) {
  const std::int64_t group = args.heads / args.kv_heads;
  const std::int64_t head = kv_head * group;
  return {.q = args.q.data + sequence.q_begin * args.q.row_stride + head * args.q.head_stride,
          .q_row_stride = args.q.row_stride,
          .q_head_stride = args.q.head_stride,
          .t_count = sequence.q_rows,
          .group = group,
          .head_dim = args.head_dim,
          .kv_type = kv_storage(args.kv_type),
          .k = head_begin(sequence.k, kv_head),
          .k_row_bytes = sequence.k.row_stride,
          .v = head_begin(sequence.v, kv_head),
          .v_row_bytes = sequence.v.row_stride,
          .kv_rows = sequence.kv_rows,
          .q_offset = sequence.q_offset,
          .causal = args.causal,
          .window = args.window,
          .scale = args.scale,
          .softcap = args.softcap,
          .alibi_slopes = args.alibi_slopes.empty() ? nullptr : args.alibi_slopes.data() + head,
          .out = args.out + sequence.q_begin * args.out_stride + head * args.head_dim,
          .out_row_stride = args.out_stride};
}

// Keys and values of a task that lie in blocks and are read again and again: copied together first.
struct Gather {
  const AttentionSequence* sequence = nullptr;
  AttentionTask task;
  std::int64_t begin = 0;  // of the copies in their buffer, in bytes: keys, then values
};

void copy_rows(const unsigned char* from, std::int64_t stride, std::int64_t rows,
               std::int64_t row_bytes, unsigned char* to) {
  const std::int64_t at_once = stride == row_bytes ? rows : 1;
  for (std::int64_t row = 0; row < rows; row += at_once) {
    std::memcpy(to + row * row_bytes, from + row * stride,
                static_cast<std::size_t>(at_once * row_bytes));
  }
}

void gather_rows(const Gather& gather, std::int64_t row_bytes, unsigned char* to) {
  const AttentionSequence& sequence = *gather.sequence;
  const AttentionTask& task = gather.task;
  unsigned char* const values = to + task.kv_rows * row_bytes;
  for (std::int64_t row = 0; row < task.kv_rows; row += sequence.block_rows) {
    const std::int64_t rows = std::min(sequence.block_rows, task.kv_rows - row);
    copy_rows(task.k + row_offset(sequence, sequence.k, row), task.k_row_bytes, rows, row_bytes,
              to + row * row_bytes);
    copy_rows(task.v + row_offset(sequence, sequence.v, row), task.v_row_bytes, rows, row_bytes,
              values + row * row_bytes);
  }
}

// A block of queries for one call of the kernel.
struct Tile {
  AttentionTask task;
  std::int64_t gather = kInPlace;  // index of the copy of its keys and values
  static constexpr std::int64_t kInPlace = -1;
};

// A query for the row kernel, whose keys are cut into parts that threads take one by one.
struct RowQuery {
  AttentionTask task;
  std::int64_t first_part = 0;
  std::int64_t parts = 0;
};
struct KeyPart {
  std::size_t query = 0;
  KeyRange keys = {};
  // Where key and value 0 would lie, were all in the block of this part.
  const unsigned char* k = nullptr;
  const unsigned char* v = nullptr;
};

// The tasks of one call. How work is cut depends on the arguments alone, never on the threads, and
// so do the results.
class Plan {
 public:
  Plan(const AttentionChoice& choice, const AttentionArgs& args)
      : choice_(choice), row_bytes_(kv_row_bytes(args.kv_type, args.head_dim)) {
    for (const AttentionSequence& sequence : args.sequences) {
      for (std::int64_t head = 0; head < args.kv_heads; ++head) {
        const AttentionTask whole = group_task(args, sequence, head);
        if (whole.t_count > choice.level.attention_row_queries) {
          append_tiles(whole, sequence);
        } else {
          append_queries(whole, sequence);
        }
      }
    }
    left_ = std::vector<std::atomic<std::int64_t>>(queries_.size());
    for (std::size_t i = 0; i < queries_.size(); ++i) left_[i] = queries_[i].parts;
  }

  void run(ThreadPool& pool) {
    thread_local Scratch scratch;
    const auto parts = static_cast<std::int64_t>(parts_.size());
    const auto tiles = static_cast<std::int64_t>(tiles_.size());
    gather_all(pool);
    if (parts > 0) {
      const AttentionTask& task = queries_.front().task;
      part_floats_ = choice_.level.attention_part_floats(task.head_dim, task.group);
      results_ = scratch.floats(parts * part_floats_);
    }
    pool.parallel_for(tiles + parts, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        if (i < tiles) {
          run_tile(tiles_[static_cast<std::size_t>(i)]);
        } else {
          run_part(i - tiles);
        }
      }
    });
  }

 private:
  // Blocks of queries that one call of the kernel takes, the last queries (which see the most keys)
  // first.
  void append_tiles(const AttentionTask& whole, const AttentionSequence& sequence) {
    std::int64_t gather = Tile::kInPlace;
    if (!sequence.blocks.empty()) {
      constexpr std::int64_t kLine = 64;
      gather = static_cast<std::int64_t>(gathers_.size());
      gathers_.push_back({&sequence, whole, gathered_bytes_});
      gathered_bytes_ += ceil_div(2 * whole.kv_rows * row_bytes_, kLine) * kLine;
    }
    const std::int64_t queries = std::max<std::int64_t>(1, choice_.tiles.rows / whole.group);
    for (std::int64_t end = whole.t_count; end > 0; end -= std::min(end, queries)) {
      AttentionTask task = whole;
      task.t_begin = std::max<std::int64_t>(0, end - queries);
      task.t_count = end - task.t_begin;
      tiles_.push_back({task, gather});
    }
  }

  void append_queries(const AttentionTask& whole, const AttentionSequence& sequence) {
    for (std::int64_t query = 0; query < whole.t_count; ++query) {
      RowQuery row = {.task = whole, .first_part = static_cast<std::int64_t>(parts_.size())};
      row.task.t_begin = query;
      row.task.t_count = 1;
      const KeyRange keys = visible_keys(whole, query);
      if (sequence.blocks.empty()) {
        append_parts(keys, whole.k, whole.v);
      } else {
        append_blocks(keys, whole, sequence);
      }
      row.parts = static_cast<std::int64_t>(parts_.size()) - row.first_part;
      if (row.parts == 0) {
        choice_.level.attention_merge(row.task, nullptr, 0);
      } else {
        queries_.push_back(row);
      }
    }
  }

  void append_blocks(const KeyRange& keys, const AttentionTask& whole,
                     const AttentionSequence& sequence) {
    const std::int64_t rows = sequence.block_rows;
    for (std::int64_t at = keys.begin; at < keys.end;) {
      const std::int64_t first = at / rows * rows;
      const std::int64_t end = std::min(keys.end, first + rows);
      append_parts({at, end},
                   whole.k + row_offset(sequence, sequence.k, first) - first * whole.k_row_bytes,
                   whole.v + row_offset(sequence, sequence.v, first) - first * whole.v_row_bytes);
      at = end;
    }
  }

  // Of equal size but for a block of 16.
  void append_parts(const KeyRange& keys, const unsigned char* k, const unsigned char* v) {
    const std::int64_t count = std::max<std::int64_t>(0, keys.end - keys.begin);
    const std::int64_t parts = ceil_div(count, choice_.level.attention_part_keys);
    for (std::int64_t i = 0; i < parts; ++i) {
      const auto cut = [&](std::int64_t n) {
        return std::min(keys.end, keys.begin + (count * n / parts + 15) / 16 * 16);
      };
      parts_.push_back({queries_.size(), {cut(i), cut(i + 1)}, k, v});
    }
  }

  void gather_all(ThreadPool& pool) {
    if (gathers_.empty()) return;
    thread_local Scratch scratch;
    constexpr auto kFloat = static_cast<std::int64_t>(sizeof(float));
    gathered_ = reinterpret_cast<unsigned char*>(scratch.floats(ceil_div(gathered_bytes_, kFloat)));
    pool.parallel_for(std::ssize(gathers_), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const Gather& gather = gathers_[static_cast<std::size_t>(i)];
        gather_rows(gather, row_bytes_, gathered_ + gather.begin);
      }
    });
  }

  void run_tile(const Tile& tile) const {
    thread_local Scratch scratch;
    AttentionTask task = tile.task;
    if (tile.gather != Tile::kInPlace) {
      task.k = gathered_ + gathers_[static_cast<std::size_t>(tile.gather)].begin;
      task.v = task.k + task.kv_rows * row_bytes_;
      task.k_row_bytes = task.v_row_bytes = row_bytes_;
    }
    task.scratch = scratch.floats(choice_.tiles.scratch(task.head_dim));
    choice_.tiles.run(task);
  }

  // The thread that computes the last part of a query puts the parts together.
  void run_part(std::int64_t index) {
    thread_local Scratch scratch;
    const KeyPart& part = parts_[static_cast<std::size_t>(index)];
    const RowQuery& query = queries_[part.query];
    AttentionTask task = query.task;
    task.k = part.k;
    task.v = part.v;
    const AttentionRows& rows = rows_for(task);
    task.scratch = scratch.floats(rows.scratch(task.head_dim, task.group));
    rows.run(task, part.keys, results_ + index * part_floats_);
    if (left_[part.query].fetch_sub(1) > 1) return;
    choice_.level.attention_merge(task, results_ + query.first_part * part_floats_, query.parts);
  }

  const AttentionRows& rows_for(const AttentionTask& task) const {
    for (const AttentionRows* rows : choice_.rows) {
      if (rows != nullptr && rows->fits(task)) return *rows;
    }
    return choice_.level.attention_rows;
  }

  AttentionChoice choice_;
  std::int64_t row_bytes_;  // of a row of keys or values
  std::vector<Tile> tiles_;
  std::vector<Gather> gathers_;
  std::int64_t gathered_bytes_ = 0;
  unsigned char* gathered_ = nullptr;
  std::vector<RowQuery> queries_;
  std::vector<KeyPart> parts_;
  std::vector<std::atomic<std::int64_t>> left_;  // parts of each query that are not done
  std::int64_t part_floats_ = 0;
  float* results_ = nullptr;  // [parts, part_floats_]
};

Support tiles_fit(const AttentionTiles& tiles, const AttentionArgs& args) {
  if (!args.sinks.empty()) return Support::no("a sink takes part in the softmax");
  if (args.heads / args.kv_heads <= tiles.rows) return Support::yes();
  return Support::no("too many heads share one head of keys");
}

}  // namespace

Support attention_fits(const KernelTable& kernels, const AttentionArgs& args) {
  return tiles_fit(kernels.attention_tiles, args);
}

void run_attention(const KernelTable& kernels, const AttentionArgs& args, ExecContext& context) {
  run_attention_by({kernels, kernels.attention_tiles}, args, context);
}

Support pair_attention_fits(const Bf16Kernels& kernels, const AttentionArgs& args) {
  if (args.kv_type == KvType::kF32 || args.kv_type == KvType::kF16) {
    return Support::no("keys and values are more precise than bf16");
  }
  return tiles_fit(kernels.attention_tiles, args);
}

Support code_attention_fits(const Int8Kernels& /*kernels*/, const AttentionArgs& args) {
  if (!args.sinks.empty()) return Support::no("a sink takes part in the softmax");
  const bool integers = args.kv_type == KvType::kInt8 || args.kv_type == KvType::kInt4;
  return integers ? Support::yes() : Support::no("keys and values are no integer codes");
}

void run_attention_by(const AttentionChoice& choice, const AttentionArgs& args,
                      ExecContext& context) {
  Plan(choice, args).run(context.pool);
}

}  // namespace nibble::cpu
