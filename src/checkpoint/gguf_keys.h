// The sizes of a model, from the keys of config.json to those of a GGUF file: the way back of
// config_from_gguf(). Source: llama.cpp's gguf-py/gguf/constants.py and convert_hf_to_gguf.py.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "checkpoint/container/gguf_writer.h"
#include "checkpoint/gguf_arch.h"

namespace nibble {

struct GgufTable {
  std::string tensor;
  std::vector<float> values;
};

struct GgufKeys {
  const GgufArch* arch = nullptr;
  GgufMetadata metadata;
  // Tensors that hold what config.json says in lists: factors that frequencies are divided by.
  std::vector<GgufTable> tables;
  std::vector<std::string> ignored;  // what nibble reads back and llama.cpp does not heed
  std::int64_t layers = 0, heads = 0, kv_heads = 0, experts = 0;
};

// `what` names the model in errors. kCorrupt when keys are missing or of the wrong kind,
// kUnsupported for architectures and settings that GGUF, or nibble in GGUF, cannot say.
GgufKeys keys_for_gguf(const Json& config, std::string_view what);

}  // namespace nibble
