#include <algorithm>
#include <vector>

#include "backends/cpu/drivers.h"
#include "backends/cpu/scratch.h"
#include "backends/cpu/weight_view.h"

namespace nibble::cpu {
namespace {

const unsigned char* head_begin(const HeadView<const void>& view, std::int64_t head,
                                std::int64_t element_bytes) {
  return static_cast<const unsigned char*>(view.data) + head * view.head_stride * element_bytes;
}

// All queries of one sequence that share the keys of one head.
AttentionTask group_task(const AttentionArgs& args, const AttentionSequence& sequence,
                         std::int64_t kv_head) {
  const std::int64_t group = args.heads / args.kv_heads;
  const auto bytes = static_cast<std::int64_t>(dtype_size(args.kv_dtype));
  const std::int64_t head = kv_head * group;
  return {.q = args.q.data + sequence.q_begin * args.q.row_stride + head * args.q.head_stride,
          .q_row_stride = args.q.row_stride,
          .q_head_stride = args.q.head_stride,
          .t_count = sequence.q_rows,
          .group = group,
          .head_dim = args.head_dim,
          .kv_type = storage_of(args.kv_dtype),
          .k = head_begin(sequence.k, kv_head, bytes),
          .k_row_bytes = sequence.k.row_stride * bytes,
          .v = head_begin(sequence.v, kv_head, bytes),
          .v_row_bytes = sequence.v.row_stride * bytes,
          .kv_rows = sequence.kv_rows,
          .q_offset = sequence.q_offset,
          .causal = args.causal,
          .window = args.window,
          .scale = args.scale,
          .softcap = args.softcap,
          .alibi_slopes = args.alibi_slopes == nullptr ? nullptr : args.alibi_slopes + head,
          .out = args.out + sequence.q_begin * args.out_stride + head * args.head_dim,
          .out_row_stride = args.out_stride};
}

// Cuts a group task into blocks of queries that one call of a kernel takes, the last queries (which
// see the most keys) first.
void append_blocks(const AttentionTask& whole, std::int64_t max_rows,
                   std::vector<AttentionTask>& tasks) {
  const std::int64_t queries = std::max<std::int64_t>(1, max_rows / whole.group);
  for (std::int64_t end = whole.t_count; end > 0; end -= std::min(end, queries)) {
    AttentionTask task = whole;
    task.t_begin = std::max<std::int64_t>(0, end - queries);
    task.t_count = end - task.t_begin;
    tasks.push_back(task);
  }
}

std::int64_t row_scratch(const AttentionTask& task) {
  constexpr std::int64_t kPad = 16;  // vectors round up
  return (1 + 2 * task.group) * (task.head_dim + kPad) + task.group * (task.kv_rows + kPad);
}

}  // namespace

Support attention_fits(const KernelTable& kernels, const AttentionArgs& args) {
  if (args.heads / args.kv_heads > kernels.attention_tile_rows) {
    return Support::no("too many heads share one head of keys");
  }
  return Support::yes();
}

void run_attention(const KernelTable& kernels, const AttentionArgs& args, ExecContext& context) {
  std::vector<AttentionTask> tasks;
  for (const AttentionSequence& sequence : args.sequences) {
    for (std::int64_t head = 0; head < args.kv_heads; ++head) {
      const AttentionTask whole = group_task(args, sequence, head);
      const bool tiles = whole.t_count * whole.group >= kernels.attention_min_rows;
      append_blocks(whole, tiles ? kernels.attention_tile_rows : 1, tasks);
    }
  }
  const auto count = static_cast<std::int64_t>(tasks.size());
  context.pool.parallel_for(count, 1, [&](std::int64_t begin, std::int64_t end) {
    thread_local Scratch scratch;
    for (std::int64_t i = begin; i < end; ++i) {
      AttentionTask task = tasks[static_cast<std::size_t>(i)];
      if (task.t_count * task.group >= kernels.attention_min_rows) {
        task.scratch = scratch.floats(kernels.attention_scratch(task.head_dim));
        kernels.attention_tiles(task);
      } else {
        task.scratch = scratch.floats(row_scratch(task));
        kernels.attention_rows(task);
      }
    }
  });
}

}  // namespace nibble::cpu
