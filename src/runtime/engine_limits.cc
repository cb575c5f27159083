#include "runtime/engine_limits.h"

#include <algorithm>

#include "base/memory.h"
#include "model/kv_cache.h"

namespace nibble {
namespace {

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

std::int64_t model_len_of(const ModelSpec& spec, std::int64_t asked) {
  constexpr std::int64_t kUnlimited = 4096;  // for models without a limit of their own
  if (spec.max_positions == 0) return asked > 0 ? asked : kUnlimited;
  return asked > 0 ? std::min(asked, spec.max_positions) : spec.max_positions;
}

// Bytes that a step takes beside weights and cache: its activations and logits.
std::int64_t step_bytes(const ModelSpec& spec, const EngineOptions& options) {
  constexpr std::int64_t kLibraries = std::int64_t{256} << 20;  // their workspace, recorded steps
  const std::int64_t heads = spec.attention.heads + 2 * spec.attention.kv_heads;
  // Residual, its norm and what is added to it; queries, keys, values and the attention's result;
  // gate, up and their product.
  const MlpSpec& mlp = spec.mlp;
  const std::int64_t widest =
      std::max({mlp.intermediate, mlp.dense_intermediate, mlp.shared_intermediate});
  const std::int64_t row = 4 * spec.hidden + 2 * heads * spec.attention.head_dim + 3 * widest;
  const std::int64_t results = options.max_num_seqs * (1 + options.speculative.tokens);
  const std::int64_t floats = options.max_num_batched_tokens * row + results * spec.vocab;
  return kLibraries + floats * static_cast<std::int64_t>(sizeof(float));
}

// On the host half of what is free, since it is not ours alone. On a card the share that was asked
// for of what was free before the model came, less what is taken since and what a step will take.
std::int64_t cache_bytes_of(const Session& session, const EngineOptions& options) {
  const DeviceMemory& memory = session.model->backend().memory();
  if (options.kv_cache_bytes > 0) return static_cast<std::int64_t>(options.kv_cache_bytes);
  if (memory.is_host()) return available_memory_bytes() / 2;
  const auto free = static_cast<std::int64_t>(memory.available());
  const auto before = static_cast<double>(options.device_bytes > 0 ? options.device_bytes : free);
  const auto left_alone = static_cast<std::int64_t>(before * (1 - options.memory_utilization));
  return free - left_alone - step_bytes(session.model->spec(), options);
}

}  // namespace

EngineLimits engine_limits(const Session& session, const EngineOptions& options) {
  const ModelSpec& spec = session.model->spec();
  EngineLimits limits;
  limits.model_len = model_len_of(spec, options.max_model_len);
  // Kernels of a device take as many keys at a time, all from one block.
  constexpr std::int64_t kStep = 32;
  const bool host = session.model->backend().memory().is_host();
  limits.block_rows = host ? options.block_size : ceil_div(options.block_size, kStep) * kStep;
  const std::int64_t block_bytes = KvPool::block_bytes(spec, limits.block_rows, session.kv_type);
  const std::int64_t cache_bytes = std::max<std::int64_t>(cache_bytes_of(session, options), 0);
  const std::int64_t wanted = ceil_div(limits.model_len, limits.block_rows) * options.max_num_seqs;
  limits.blocks = std::min(wanted, cache_bytes / block_bytes);
  const auto kept =
      static_cast<std::int64_t>(options.swap_bytes / static_cast<std::size_t>(block_bytes));
  limits.kept_blocks = std::min(wanted, kept);
  const std::int64_t room = limits.blocks * limits.block_rows;
  if (room == 0 || (options.max_model_len > 0 && room < limits.model_len)) {
    fail(ErrorKind::kMemory,
         "engine: a cache of {} bytes holds {} tokens of {} bytes, fewer than the {} of one "
         "request; give it more memory, fewer bits, or a smaller model length",
         cache_bytes, room, block_bytes / limits.block_rows, limits.model_len);
  }
  limits.model_len = std::min(limits.model_len, room);
  return limits;
}

}  // namespace nibble
