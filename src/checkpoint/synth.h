// Random Llama checkpoints of real sizes, for tests of size and speed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/log.h"
#include "base/thread_pool.h"
#include "checkpoint/encoding.h"

namespace nibble {

struct SynthShape {
  const char* name;
  std::int64_t hidden, intermediate, layers, heads, kv_heads, vocab, max_positions;
  double rope_theta;
};

const std::vector<SynthShape>& synth_shapes();
// kUsage with the nearest names when there is none.
const SynthShape& find_synth_shape(const std::string& name);

// What a checkpoint of that shape consists of: its config.json and its tensors, all BF16.
Json synth_config(const SynthShape& shape);
std::vector<StoredTensor> synth_tensors(const SynthShape& shape);

// Writes a Hugging Face Llama in bf16 with a working byte-level tokenizer. Linear weights and the
// embedding follow N(0, 0.02^2), but for a few input channels that are kOutlierGain times larger;
// norm weights lie near 1. The same name and seed give the same bytes. Memory is a few megabytes a
// thread. kUsage for a shape that is not known or a directory that exists, kDisk when it cannot be
// written; nothing half-written stays.
void synthesize(const std::filesystem::path& directory, const std::string& shape_name,
                std::uint64_t seed, ThreadPool& pool, const ProgressSink& sink = {},
                std::uint64_t max_shard_bytes = 2'000'000'000);

}  // namespace nibble
