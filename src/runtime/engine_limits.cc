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

std::size_t step_bytes(const ModelSpec& spec, const EngineOptions& options) {
  return workspace_bytes(spec, options.max_num_batched_tokens,
                         options.max_num_seqs * (1 + options.speculative.tokens));
}

// On a device, of what was free before the model came.
std::size_t left_alone(std::size_t before, const EngineOptions& options) {
  return static_cast<std::size_t>(static_cast<double>(before) * (1 - options.memory_utilization));
}

// On the host half of what is free, since it is not ours alone. On a card the share that was asked
// for of what was free before the model came, less what is taken since and what a step will take.
std::int64_t cache_bytes_of(const Session& session, const EngineOptions& options) {
  const DeviceMemory& memory = session.model->backend().memory();
  if (options.kv_cache_bytes > 0) return static_cast<std::int64_t>(options.kv_cache_bytes);
  if (memory.is_host()) return available_memory_bytes() / 2;
  const std::size_t free = memory.available();
  const std::size_t before = options.device_bytes > 0 ? options.device_bytes : free;
  const std::size_t taken =
      left_alone(before, options) + step_bytes(session.model->spec(), options);
  return static_cast<std::int64_t>(free) - static_cast<std::int64_t>(taken);
}

}  // namespace

Room engine_room(const ModelSpec& spec, const KvFormat& kv_type, const EngineOptions& options) {
  const std::int64_t rows =
      options.max_model_len > 0 ? model_len_of(spec, options.max_model_len) : options.block_size;
  Room room;
  room.workspace = step_bytes(spec, options);
  if (options.kv_cache_bytes > 0) {
    room.cache = options.kv_cache_bytes;
    return room;
  }
  room.cache = static_cast<std::size_t>(KvPool::block_bytes(spec, rows, kv_type));
  room.left_alone = left_alone(options.device_bytes, options);
  return room;
}

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
