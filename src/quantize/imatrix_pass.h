// Importance matrices of a model's own activations.
#pragma once

#include <cstdint>
#include <span>

#include "backends/backend.h"
#include "base/log.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/imatrix.h"

namespace nibble {

// Runs `ids` through the model in windows of `context` tokens (or the whole text, when it is
// shorter), one block in memory at a time, and sums the squares of what meets each column of the
// blocks' linear layers, by their names in GGUF; the head has no entry, nor have experts of layers
// where none saw a token. kUnsupported for architectures that GGUF has not (keys_for_gguf()),
// kUsage when there are no ids, kCorrupt when an activation is no number.
Imatrix measure_imatrix(const Checkpoint& source, Backend& backend,
                        std::span<const std::int32_t> ids, std::int64_t context,
                        const ProgressSink& progress = {});

}  // namespace nibble
