// What a model takes of a device's memory, before anything is loaded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include "backends/memory.h"
#include "formats/registry.h"
#include "formats/weight_source.h"
#include "model/spec.h"

namespace nibble {

// Bytes.
struct Room {
  std::size_t weights = 0;
  std::size_t cache = 0;       // keys and values
  std::size_t workspace = 0;   // activations, logits, what libraries take
  std::size_t left_alone = 0;  // of what is free, for others
};

// What is needed beside the weights, once the model and the format of its cache are known.
using RoomRule = std::function<Room(const ModelSpec&, const KvFormat&)>;

// What the weights take once they are rounded as they are loaded: linear layers of the blocks,
// embedding and head by their formats, the rest, and what is stored in planes, as it is stored.
std::size_t loaded_bytes(const ModelSpec& spec, const WeightSource& source,
                         const ModelFormat& rounding);

// What a step takes beside weights and cache: activations of `rows` tokens, logits of `results` of
// them, and the workspace of libraries.
std::size_t workspace_bytes(const ModelSpec& spec, std::int64_t rows, std::int64_t results);

// kDevice, with the sum and what would help, unless all of it fits into what is free there.
void require_room(const Room& room, const DeviceMemory& memory);

}  // namespace nibble
