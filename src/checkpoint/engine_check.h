// What other engines would refuse of a checkpoint, told from names, formats and shapes alone.
// Sources: vLLM, vllm/model_executor/layers/quantization; compressed-tensors; llama.cpp,
// convert_hf_to_gguf.py and src/llama-arch.cpp. SGLang takes the same files as vLLM, and GGUF.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"

namespace nibble {

struct EngineFinding {
  bool refused = false;  // false: read, but slowly or otherwise than here
  std::string module;    // empty: of the checkpoint as a whole
  std::string what;      // what is wrong, and what could be done
};

// "vllm", "sglang", "llama.cpp".
const std::vector<std::string>& engine_names();

// Findings in the order of the modules; none: nothing known stands against it. `parallel` is the
// number of devices that share each matrix (1: none). kUsage for unknown engines.
std::vector<EngineFinding> check_for_engine(const Checkpoint& checkpoint, const std::string& engine,
                                            std::int64_t parallel);

}  // namespace nibble
