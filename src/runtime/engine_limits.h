// What an engine can hold, by the arithmetic of memory.
#pragma once

#include <cstdint>

#include "runtime/engine.h"

namespace nibble {

struct EngineLimits {
  std::int64_t model_len = 0;   // tokens of prompt and answer
  std::int64_t block_rows = 0;  // of a block of the cache
  std::int64_t blocks = 0;
  std::int64_t kept_blocks = 0;  // of swap_bytes
};

// What an engine needs at least beside the weights on a device: the keys and values of one request
// of the length that is asked for, or of one block, and a step.
Room engine_room(const ModelSpec& spec, const KvFormat& kv_type, const EngineOptions& options);

// kMemory when the cache cannot hold one request of the length that was asked for.
EngineLimits engine_limits(const Session& session, const EngineOptions& options);

}  // namespace nibble
