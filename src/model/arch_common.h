// What the architectures of archs/ share: limits of sizes, activations, windows, Llama's layout.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/config_reader.h"
#include "model/rope_config.h"
#include "model/spec.h"

namespace nibble {

// Upper bounds that keep every product of sizes far inside int64.
inline constexpr std::int64_t kMaxHidden = std::int64_t{1} << 20;
inline constexpr std::int64_t kMaxIntermediate = std::int64_t{1} << 22;
inline constexpr std::int64_t kMaxVocab = std::int64_t{1} << 24;
inline constexpr std::int64_t kMaxLayers = 4096;
inline constexpr std::int64_t kMaxHeads = 8192;
inline constexpr std::int64_t kMaxHeadDim = 8192;
inline constexpr std::int64_t kMaxExperts = 4096;
inline constexpr std::int64_t kMaxContext = (std::int64_t{1} << 31) - 1;

// The activation that transformers calls by the name under `key`; kUnsupported for others.
Activation read_activation(const ConfigReader& config, ConfigReader::Keys keys,
                           const char* fallback);

// Rejects, as kUnsupported, a flag that would change what is computed.
void reject_flag(const ConfigReader& config, const char* key);

// hidden / heads; kCorrupt when heads do not divide.
std::int64_t even_head_dim(const ConfigReader& config, std::int64_t hidden, std::int64_t heads);

// sliding_window: a width, or 0 when it is null; `fallback` when it is absent.
std::int64_t read_window(const ConfigReader& config, std::int64_t fallback);

// Windows from layer_types ("full_attention", "sliding_attention"); `fallback(layer)` says whether
// a layer slides when the list is absent. kCorrupt when a layer slides and window is 0.
template <class Slides>
std::vector<std::int64_t> layer_windows(const ConfigReader& config, std::int64_t layers,
                                        std::int64_t window, const Slides& fallback);

struct LlamaDefaults {
  double rope_theta = 10000;
  double norm_eps = 1e-6;
  bool tied = false;
  std::int64_t head_dim = 0;  // when the key is absent; 0 = hidden / heads
  std::int64_t kv_heads = 0;  // when the key is absent; 0 = heads
  const char* activation_key = "hidden_act";
  const char* activation = "silu";
  bool partial_rotary = false;
  std::int64_t original_max_positions = 0;
};

// A decoder with Llama's config keys, names and block; the architectures change what differs.
ModelSpec llama_like(const ConfigReader& config, const char* arch,
                     const LlamaDefaults& defaults = {});

// Experts and how many of them a token goes through; kCorrupt when those are more than there are.
void read_experts(const ConfigReader& config, ConfigReader::Keys keys, std::int64_t experts,
                  std::int64_t top_k, MlpSpec& mlp);

// The module names of most mixtures of experts over Llama's names, which stay those of layers
// without experts.
void name_experts(NameSpec& names);

// A cap on scores or logits. One that is null is none (0), which as a number would divide by zero.
float read_cap(const ConfigReader& config, const char* key, double fallback);

// What Gemma has since its second version: embeddings times the square root of their size, norms of
// 1 + weight, and a second norm behind attention and MLP.
void like_gemma(ModelSpec& spec);

// Checks of layer_windows() that do not depend on the fallback.
std::vector<std::int64_t> windows_from_types(const ConfigReader& config,
                                             const std::vector<std::string>& types,
                                             std::int64_t layers, std::int64_t window);

template <class Slides>
std::vector<std::int64_t> layer_windows(const ConfigReader& config, std::int64_t layers,
                                        std::int64_t window, const Slides& fallback) {
  std::vector<std::string> types;
  if (config.has("layer_types")) {
    types = config.texts("layer_types");
  } else {
    for (std::int64_t i = 0; i < layers; ++i) {
      types.push_back(fallback(i) ? "sliding_attention" : "full_attention");
    }
  }
  return windows_from_types(config, types, layers, window);
}

}  // namespace nibble
