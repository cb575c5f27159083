// The mixtures of types that llama.cpp's file presets stand for. Source: llama.cpp,
// src/llama-quant.cpp, llama_tensor_get_type (types by role and layer, fall-backs for shapes).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/container/gguf.h"

namespace nibble {

struct GgufPreset {
  const char* name;         // "Q4_K_M"
  std::uint32_t file_type;  // general.file_type
  GgufType base;            // of what no rule says otherwise
};

// Those made of types that nibble writes.
const std::vector<GgufPreset>& gguf_presets();
// In capitals or not; kUsage, listing the names, when there is none.
const GgufPreset& find_gguf_preset(std::string_view name);

// What the rules look at.
struct GgufMixture {
  const GgufPreset* preset = nullptr;
  std::int64_t layers = 0, heads = 1, kv_heads = 1, experts = 0;
  bool has_output = true;  // false: the embedding is the head too
  bool is_llama = false;   // of that architecture, by which one size is known
  bool has_imatrix = false;
};

// Whether a tensor there ("blk.0.ffn_down.weight") is one that presets quantize.
bool gguf_can_quantize(std::string_view name, std::size_t dims);

// The type of one that is, in layer `layer` (-1: none) with rows of `cols` elements.
GgufType gguf_type_in(const GgufMixture& mixture, std::string_view name, std::int64_t layer,
                      std::int64_t cols);

// general.file_type of a file most of whose weights have this type.
std::uint32_t gguf_file_type_of(const GgufType& type);

}  // namespace nibble
