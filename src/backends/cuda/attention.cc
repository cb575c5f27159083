// Attention and the cache it reads: what the kernels are told of a call.
#include <algorithm>
#include <bit>
#include <initializer_list>
#include <vector>

#include "backends/cuda/impls.h"
#include "backends/cuda/kernels/attention_decode.h"
#include "backends/cuda/kernels/attention_exact.h"
#include "backends/cuda/kernels/attention_prefill.h"
#include "backends/cuda/kernels/attention_prefill_sm90.h"
#include "backends/cuda/kernels/kv_write.h"
#include "backends/cuda/queue.h"
#include "backends/cuda/rounded_attention.h"

namespace nibble::cuda {
namespace {

// Lengths change at every step; a launch is told a bound that seldom does, so that a recorded step
// can be played for long.
std::int64_t bound(std::int64_t rows) {
  constexpr std::int64_t kLeast = 256;
  return std::max(kLeast,
                  static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(rows))));
}

// Rows of a block; 0 when the rows of every sequence lie one after the other.
std::int64_t block_rows_of(const AttentionArgs& args) {
  for (const AttentionSequence& s : args.sequences) {
    if (!s.blocks.empty()) return s.block_rows;
  }
  return 0;
}

// Whether every sequence lies in blocks of so many rows, or in one that is no longer.
bool lie_in_blocks_of(std::int64_t block_rows, const AttentionArgs& args) {
  return std::ranges::all_of(args.sequences, [&](const AttentionSequence& s) {
    return s.blocks.empty() ? s.kv_rows <= block_rows : s.block_rows == block_rows;
  });
}

AttentionLaunch shape_of(const AttentionArgs& args, const DeviceCaps& caps) {
  AttentionLaunch launch;
  launch.q = args.q.data;
  launch.q_row_stride = args.q.row_stride;
  launch.q_head_stride = args.q.head_stride;
  launch.sequence_count = static_cast<int>(args.sequences.size());
  for (const AttentionSequence& sequence : args.sequences) {
    launch.max_q_rows = std::max(launch.max_q_rows, sequence.q_rows);
    launch.max_kv_rows = std::max(launch.max_kv_rows, bound(sequence.kv_rows));
  }
  launch.blocks.block_rows = static_cast<std::int32_t>(block_rows_of(args));
  launch.heads = static_cast<int>(args.heads);
  launch.kv_heads = static_cast<int>(args.kv_heads);
  launch.head_dim = static_cast<int>(args.head_dim);
  launch.kv_type = args.kv_type;
  launch.causal = args.causal;
  launch.window = args.window;
  launch.scale = args.scale;
  launch.softcap = args.softcap;
  launch.out = args.out;
  launch.out_stride = args.out_stride;
  launch.sm_count = caps.multiprocessors;
  launch.dependent_launch = true;
  return launch;
}

// Where the blocks of all sequences begin. The table is as wide as the bound on keys needs, so that
// its address changes as seldom as that.
std::vector<std::int64_t> offsets_of(std::span<const AttentionSequence> sequences,
                                     std::int64_t block_rows, std::int64_t stride) {
  std::vector<std::int64_t> offsets(sequences.size() * static_cast<std::size_t>(stride));
  auto row = offsets.begin();
  for (const AttentionSequence& s : sequences) {
    const auto used = (s.kv_rows + block_rows - 1) / block_rows;
    if (!s.blocks.empty()) std::copy_n(s.blocks.begin(), used, row);
    row += stride;
  }
  return offsets;
}

// Layers have tables of the same sequences in common. Of one step: lists of blocks do not change
// while it is made.
std::uint64_t name_of_offsets(std::span<const AttentionSequence> sequences, std::int64_t stride) {
  std::uint64_t name =
      DeviceQueue::mixed(DeviceQueue::kNoValues, static_cast<std::uint64_t>(stride));
  for (const AttentionSequence& s : sequences) {
    name = DeviceQueue::mixed(name, reinterpret_cast<std::uintptr_t>(s.blocks.data()));
    name = DeviceQueue::mixed(name, static_cast<std::uint64_t>(s.kv_rows));
  }
  return name;
}

KvBlocks put_blocks(const AttentionArgs& args, const AttentionLaunch& launch, DeviceQueue& queue) {
  KvBlocks blocks = launch.blocks;
  if (blocks.block_rows == 0) return blocks;
  const std::int64_t stride = (launch.max_kv_rows + blocks.block_rows - 1) / blocks.block_rows;
  blocks.offsets = queue.put_once<std::int64_t>(name_of_offsets(args.sequences, stride), [&] {
    return offsets_of(args.sequences, blocks.block_rows, stride);
  });
  blocks.stride = static_cast<std::int32_t>(stride);
  return blocks;
}

// With everything that lies in device memory. rounded_out: as in AttentionLaunch.
AttentionLaunch launch_of(const AttentionArgs& args, void* rounded_out, ExecContext& context) {
  AttentionLaunch launch = shape_of(args, context.caps);
  launch.rounded_out = rounded_out;
  std::vector<DeviceSequence> sequences;
  sequences.reserve(args.sequences.size());
  for (const AttentionSequence& s : args.sequences) {
    sequences.push_back({s.q_begin, s.q_rows, s.kv_rows, s.q_offset, const_cast<void*>(s.k.data),
                         s.k.row_stride, s.k.head_stride, const_cast<void*>(s.v.data),
                         s.v.row_stride, s.v.head_stride});
  }
  launch.sequences = context.queue->put(std::span<const DeviceSequence>(sequences));
  launch.blocks = put_blocks(args, launch, *context.queue);
  if (!args.alibi_slopes.empty()) launch.alibi_slopes = context.queue->put(args.alibi_slopes);
  if (!args.sinks.empty()) launch.sinks = context.queue->put(args.sinks);
  return launch;
}

// Bytes of one number of a row.
std::int64_t number_bytes(KvType type) {
  return type == KvType::kF16 || type == KvType::kBF16 ? 2 : 4;
}

// What a kernel cannot see before it runs.
bool are_blocks_aligned(const AttentionArgs& args, std::int64_t unit) {
  return std::ranges::all_of(args.sequences, [&](const AttentionSequence& s) {
    return std::ranges::all_of(s.blocks, [&](std::int64_t at) { return at % unit == 0; });
  });
}

bool are_rows_aligned(const AttentionArgs& args, std::int64_t unit) {
  return std::ranges::all_of(args.sequences, [&](const AttentionSequence& s) {
    return std::ranges::all_of(std::initializer_list<HeadView<const void>>{s.k, s.v}, [&](auto& v) {
      return reinterpret_cast<std::intptr_t>(v.data) % unit == 0 && v.row_stride % unit == 0 &&
             v.head_stride % unit == 0;
    });
  });
}

template <const char* (*kWhyNot)(const AttentionLaunch&)>
Support supports(const AttentionArgs& args, const DeviceCaps& caps) {
  const std::int64_t block_rows = block_rows_of(args);
  if (block_rows > INT32_MAX || (block_rows > 0 && !lie_in_blocks_of(block_rows, args))) {
    return Support::no("keys and values lie in unlike blocks");
  }
  const char* const why = kWhyNot(shape_of(args, caps));
  return why == nullptr ? Support::yes() : Support::no(why);
}

void run_decode_rounded(const AttentionArgs& args, void* rounded_out, ExecContext& context) {
  AttentionLaunch launch = launch_of(args, rounded_out, context);
  launch.workspace = context.queue->own_workspace(DeviceQueue::Family::kAttention,
                                                  attention_decode_workspace(launch));
  context.queue->launch("attention", launch, attention_decode);
}

void run_decode(const AttentionArgs& args, ExecContext& context) {
  run_decode_rounded(args, nullptr, context);
}

void run_exact(const AttentionArgs& args, ExecContext& context) {
  context.queue->launch("attention", launch_of(args, nullptr, context), attention_exact);
}

// Of the kernels that load vectors.
Support fast_supports(const AttentionArgs& args, const DeviceCaps& caps) {
  if (!args.sinks.empty()) return Support::no("a sink takes part in the softmax");
  if (caps.exact_activations) return Support::no("it rounds queries");
  if (!are_rows_aligned(args, is_quantized(args.kv_type) ? 8 : 16) ||
      !are_blocks_aligned(args, 16)) {
    return Support::no("keys or values are not aligned");
  }
  return Support::yes();
}

Support exact_supports(const AttentionArgs& args, const DeviceCaps& caps) {
  const std::int64_t unit = number_bytes(args.kv_type);
  if (!are_rows_aligned(args, unit) || !are_blocks_aligned(args, unit)) {
    return Support::no("keys or values are not aligned to their numbers");
  }
  return supports<attention_exact_unsupported>(args, caps);
}

Support decode_supports(const AttentionArgs& args, const DeviceCaps& caps) {
  if (const Support fast = fast_supports(args, caps); !fast.ok) return fast;
  return supports<attention_decode_unsupported>(args, caps);
}

constexpr std::int64_t kLeastTileRows = 16;  // of a sequence, for the kernels for many

// Of the kernels for many rows.
Support tiles_support(const AttentionArgs& args, const DeviceCaps& caps) {
  if (const Support fast = fast_supports(args, caps); !fast.ok) return fast;
  const bool long_one = std::ranges::any_of(
      args.sequences, [](const AttentionSequence& s) { return s.q_rows >= kLeastTileRows; });
  return long_one ? Support::yes() : Support::no("few query rows a sequence");
}

Support prefill_supports(const AttentionArgs& args, const DeviceCaps& caps) {
  if (const Support tiles = tiles_support(args, caps); !tiles.ok) return tiles;
  return supports<attention_prefill_unsupported>(args, caps);
}

Support prefill_sm90_supports(const AttentionArgs& args, const DeviceCaps& caps) {
  if (caps.compute_capability != 90) return Support::no("the device is not of capability 9.0");
  if (const Support tiles = tiles_support(args, caps); !tiles.ok) return tiles;
  return supports<attention_prefill_sm90_unsupported>(args, caps);
}

void launch_prefill(const AttentionArgs& args, void* rounded_out, ExecContext& context) {
  AttentionLaunch launch = launch_of(args, rounded_out, context);
  launch.workspace = context.queue->workspace(attention_prefill_workspace(launch));
  context.queue->launch("attention", launch, attention_prefill);
}

void launch_prefill_sm90(const AttentionArgs& args, void* rounded_out, ExecContext& context) {
  AttentionLaunch launch = launch_of(args, rounded_out, context);
  launch.workspace = context.queue->workspace(attention_prefill_sm90_workspace(launch));
  context.queue->launch("attention", launch, attention_prefill_sm90);
}

// A step that goes on with some answers and reads some prompts: answers, of a row each, go to the
// kernel for few rows, which reads their caches as they are; a tile of rows for each of them, and
// their caches unpacked, would be most of the step.
template <AttentionRun kLaunchTiles>
void run_prefill_rounded(const AttentionArgs& args, void* rounded_out, ExecContext& context) {
  std::vector<AttentionSequence> sequences(args.sequences.begin(), args.sequences.end());
  const auto few = std::ranges::stable_partition(
      sequences, [](const AttentionSequence& s) { return s.q_rows >= kLeastTileRows; });
  AttentionArgs rest = args;
  rest.sequences = few;
  if (few.empty() || !decode_supports(rest, context.caps).ok) {
    return kLaunchTiles(args, rounded_out, context);
  }
  AttentionArgs tiles = args;
  tiles.sequences = std::span(sequences).first(sequences.size() - few.size());
  kLaunchTiles(tiles, rounded_out, context);
  run_decode_rounded(rest, rounded_out, context);
}

template <AttentionRun kLaunchTiles>
void run_prefill(const AttentionArgs& args, ExecContext& context) {
  run_prefill_rounded<kLaunchTiles>(args, nullptr, context);
}

KvWriteLaunch write_of(const KvWriteArgs& args, ExecContext& context) {
  KvWriteLaunch launch;
  std::vector<DeviceSequence> sequences;
  sequences.reserve(args.sequences.size());
  for (const KvWriteSequence& s : args.sequences) {
    launch.rows = std::max(launch.rows, s.begin + s.rows);
    sequences.push_back({s.begin, s.rows, s.rows, 0, s.k.data, s.k.row_stride, s.k.head_stride,
                         s.v.data, s.v.row_stride, s.v.head_stride});
  }
  launch.k = args.k.data;
  launch.v = args.v.data;
  launch.k_row_stride = args.k.row_stride;
  launch.v_row_stride = args.v.row_stride;
  launch.k_head_stride = args.k.head_stride;
  launch.v_head_stride = args.v.head_stride;
  launch.kv_heads = static_cast<int>(args.heads);
  launch.head_dim = static_cast<int>(args.head_dim);
  launch.kv_type = args.type;
  launch.sequences = context.queue->put(std::span<const DeviceSequence>(sequences));
  launch.sequence_count = static_cast<int>(sequences.size());
  launch.dependent_launch = true;
  return launch;
}

RopeLaunch rotation_of(const RopeArgs& args, ExecContext& context) {
  RopeLaunch launch;
  launch.q = args.x.data;
  launch.q_row_stride = args.x.row_stride;
  launch.q_head_stride = args.x.head_stride;
  launch.heads = static_cast<int>(args.heads);
  launch.rotary_dim = static_cast<int>(args.rotary_dim);
  launch.interleaved = args.interleaved;
  launch.inv_freq = context.queue->put(args.inv_freq);
  launch.positions = context.queue->put(args.positions);
  launch.scale = args.scale;
  return launch;
}

struct RotatedWrite {
  KvWriteLaunch write;
  RopeLaunch rope;
};

void write_kv(const KvWriteArgs& args, ExecContext& context) {
  const KvWriteLaunch write = write_of(args, context);
  if (args.rope == nullptr) {
    context.queue->launch("kv_write", write, kv_write);
    return;
  }
  const auto run = [](const RotatedWrite& both, cudaStream_t stream) {
    return rope_and_store(both.write, both.rope, stream);
  };
  context.queue->launch("kv_write", RotatedWrite{write, rotation_of(*args.rope, context)}, +run);
}

}  // namespace

ImplList<KvWriteArgs> kv_write_impls() {
  static constexpr Impl<KvWriteArgs> kImpls[] = {
      {"cuda", [](const KvWriteArgs&, const DeviceCaps&) { return Support::yes(); }, write_kv}};
  return kImpls;
}

ImplList<AttentionArgs> attention_impls() {
  static constexpr Impl<AttentionArgs> kImpls[] = {
      {"prefill_sm90", prefill_sm90_supports, run_prefill<launch_prefill_sm90>, Arithmetic::kBf16,
       rounds},
      {"prefill", prefill_supports, run_prefill<launch_prefill>, Arithmetic::kBf16, rounds},
      {"decode", decode_supports, run_decode, Arithmetic::kBf16, rounds},
      {"exact", exact_supports, run_exact},
  };
  return kImpls;
}

AttentionRun rounded_attention_of(std::string_view impl) {
  if (impl == "prefill_sm90") return run_prefill_rounded<launch_prefill_sm90>;
  if (impl == "prefill") return run_prefill_rounded<launch_prefill>;
  if (impl == "decode") return run_decode_rounded;
  return nullptr;
}

}  // namespace nibble::cuda
