#include "model/room.h"

#include <algorithm>
#include <set>
#include <string>

#include "base/error.h"
#include "model/model.h"
#include "model/module_name.h"

namespace nibble {
namespace {

constexpr std::size_t kLibraries = std::size_t{256} << 20;  // their workspace, recorded steps

// Adds up by how much tensors grow or shrink when they are rounded.
class SizeChange {
 public:
  SizeChange(const ModelSpec& spec, const WeightSource& source) : spec_(spec), source_(source) {}

  // A matrix as it is stored; of_block: GPT-2 stores such weights [in, out].
  void add(const std::string& name, const FormatPtr& wanted, bool of_block) {
    if (!source_.has(name)) return;
    const Shape shape = source_.tensor(name).shape();
    if (shape.size() != 2) return;  // loading it says so
    const bool turned = of_block && spec_.transposed_linears;
    add(name, wanted, shape[turned ? 1 : 0], shape[turned ? 0 : 1]);
  }

  // One that is [rows, cols] once it is loaded.
  void add(const std::string& name, const FormatPtr& wanted, std::int64_t rows, std::int64_t cols) {
    if (wanted == nullptr || !source_.has(name) || !seen_.insert(name).second) return;
    const Tensor stored = source_.tensor(name);
    const FormatPtr format = fitting_format(wanted, rows, cols);
    if (format == nullptr) return;  // loading it says so
    bytes_ += static_cast<std::int64_t>(QuantTensor{format, rows, cols, {}}.byte_size()) -
              static_cast<std::int64_t>(stored.byte_size());
  }

  std::int64_t bytes() const { return bytes_; }

 private:
  const ModelSpec& spec_;
  const WeightSource& source_;
  std::set<std::string> seen_;
  std::int64_t bytes_ = 0;
};

void add_blocks(const ModelSpec& spec, const std::string& prefix, const FormatPtr& wanted,
                SizeChange& change) {
  const NameSpec& n = spec.names;
  for (std::int64_t layer = 0; layer < spec.layers; ++layer) {
    for (const std::string& pattern :
         {n.q, n.k, n.v, n.qkv, n.o, n.q_a, n.kv_a, n.kv_b, n.gate, n.up, n.gate_up, n.down,
          n.dense_gate, n.dense_up, n.dense_down, n.shared_gate, n.shared_up, n.shared_down}) {
      const bool of_expert = pattern.find("{e}") != std::string::npos;
      const std::int64_t experts = of_expert ? spec.mlp.experts : 1;
      for (std::int64_t expert = 0; expert < experts; ++expert) {
        change.add(prefix + expand_pattern(pattern, layer, expert) + ".weight", wanted, true);
      }
    }
    const MlpSpec& mlp = spec.mlp;
    change.add(prefix + expand_pattern(n.fused_experts_gate_up, layer), wanted,
               mlp.experts * 2 * mlp.intermediate, spec.hidden);
    change.add(prefix + expand_pattern(n.fused_experts_down, layer), wanted,
               mlp.experts * spec.hidden, mlp.intermediate);
  }
}

}  // namespace

std::size_t loaded_bytes(const ModelSpec& spec, const WeightSource& source,
                         const ModelFormat& rounding) {
  const std::size_t stored = source.byte_size();
  if (rounding.weights == nullptr && rounding.embeddings == nullptr) return stored;
  const std::string prefix = find_prefix(spec, source);
  SizeChange rounded(spec, source);
  add_blocks(spec, prefix, rounding.weights, rounded);
  rounded.add(prefix + spec.names.embed + ".weight", rounding.embeddings, false);
  for (const std::string& module : spec.names.head) {
    if (spec.tied_head) break;  // a head that is stored all the same is hardly ever another one
    rounded.add(module + ".weight", rounding.embeddings, false);
  }
  return static_cast<std::size_t>(static_cast<std::int64_t>(stored) + rounded.bytes());
}

std::size_t workspace_bytes(const ModelSpec& spec, std::int64_t rows, std::int64_t results) {
  const std::int64_t heads = spec.attention.heads + 2 * spec.attention.kv_heads;
  // Residual, its norm and what is added to it; queries, keys, values and the attention's result;
  // gate, up and their product.
  const MlpSpec& mlp = spec.mlp;
  const std::int64_t widest =
      std::max({mlp.intermediate, mlp.dense_intermediate, mlp.shared_intermediate});
  const std::int64_t row = 4 * spec.hidden + 2 * heads * spec.attention.head_dim + 3 * widest;
  return kLibraries + static_cast<std::size_t>(rows * row + results * spec.vocab) * sizeof(float);
}

void require_room(const Room& room, const DeviceMemory& memory) {
  const std::size_t workspace = std::max(room.workspace, kLibraries);
  const std::size_t sum = room.weights + room.cache + workspace + room.left_alone;
  const std::size_t available = memory.available();
  if (sum <= available) return;
  fail(ErrorKind::kDevice,
       "the model does not fit on the device: weights {} bytes + keys and values {} + workspace {} "
       "+ left alone {} = {}, but {} are free; use fewer bits, a shorter context or batch, or "
       "--device cpu",
       room.weights, room.cache, workspace, room.left_alone, sum, available);
}

}  // namespace nibble
