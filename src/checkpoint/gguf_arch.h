// How GGUF names architectures, their tensors and sizes, and how its tensors differ from those of
// Hugging Face. Source: llama.cpp's gguf-py/gguf/constants.py and convert_hf_to_gguf.py.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "checkpoint/container/gguf.h"

namespace nibble {

// What becomes of a tensor between the two.
enum class GgufChange {
  kNone,
  // Rows of each head: here element i of the rotated halves is row i, there rows 2 i and 2 i + 1
  // hold the pair i.
  kQueryRows,  // heads of queries
  kKeyRows,    // heads of keys
  kQkvRows,    // here q, k, v of each head in turn; there all of q, then k, then v
  kPlusOne,    // there one more (norms of Gemma)
  kTransposed  // plain weights are [in, out] here (GPT-2)
};

// One module. "{}" stands for the layer in both names, "{e}" for the expert here; there all experts
// are in one tensor [experts, rows, cols].
struct GgufName {
  const char* gguf;    // "blk.{}.attn_q"
  const char* module;  // "layers.{}.self_attn.q_proj", after the prefix
  GgufChange change = GgufChange::kNone;
};

struct GgufArch {
  const char* name;    // general.architecture
  const char* prefix;  // of all modules but the head: "model."
  const char* head;    // module of the head, whole; there "output"
  std::span<const GgufName> names;
};

// Null when there is none.
const GgufArch* gguf_arch_named(std::string_view name);

// config.json with Hugging Face keys for what a file says; `what` names it in errors. kCorrupt when
// keys are missing or of the wrong kind, kUnsupported for architectures that nibble has not.
Json config_from_gguf(const Json& metadata, const std::vector<GgufTensor>& tensors,
                      const std::vector<double>& rope_factors, std::string_view what);

// Row `row` of a matrix here is row gguf_row() there. `rows` is the number of rows, `heads` that of
// the heads they belong to.
std::int64_t gguf_row(GgufChange change, std::int64_t row, std::int64_t rows, std::int64_t heads);

}  // namespace nibble
