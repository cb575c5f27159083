#include "model/inventory.h"

#include "backends/backend.h"
#include "formats/low_rank.h"
#include "model/model.h"

namespace nibble {
namespace {

double bits_over(std::int64_t bytes, std::int64_t weights) {
  return weights == 0 ? 0 : 8.0 * static_cast<double>(bytes) / static_cast<double>(weights);
}

std::int64_t parameters(const QuantTensor& tensor) {
  return tensor.format == nullptr ? 0 : tensor.rows * tensor.cols;
}
std::int64_t parameters(const Tensor& tensor) { return tensor.empty() ? 0 : tensor.elements(); }
std::int64_t parameters(const Norm& norm) {
  return parameters(norm.weight) + parameters(norm.bias);
}
std::int64_t parameters(const Linear& linear) {
  return parameters(linear.weight.canonical) + parameters(linear.bias);
}

std::int64_t parameters(LayerWeights& layer) {
  std::int64_t count = parameters(layer.router);
  for (const Norm* norm : layer.norms()) count += parameters(*norm);
  for (const Linear* linear : layer.linears()) count += parameters(*linear);
  return count;
}

std::int64_t parameters(const EmbeddingWeights& embedding) {
  return parameters(embedding.table) + parameters(embedding.positions) +
         parameters(embedding.token_types) + parameters(embedding.norm) +
         parameters(embedding.project_in);
}

std::int64_t parameters(const ModelSpec& spec, const HeadWeights& head) {
  return parameters(head.final_norm) + parameters(head.project_out) +
         (spec.tied_head ? 0 : parameters(head.head));
}

}  // namespace

Inventory take_inventory(const ModelSpec& spec, const WeightSource& source, Backend& backend) {
  Inventory inventory;
  std::int64_t linear_weights = 0;
  std::int64_t linear_bytes = 0;
  for (std::int64_t layer = 0; layer < spec.layers; ++layer) {
    LayerWeights weights = load_layer(spec, layer, source, backend);
    inventory.parameters += parameters(weights);
    for (const Linear* linear : weights.linears()) {
      const QuantTensor& w = linear->weight.canonical;
      auto bytes = static_cast<std::int64_t>(w.byte_size());
      std::string format = w.format->name();
      if (linear->added != nullptr) {
        const QuantTensor& in = linear->added->in.canonical;
        const QuantTensor& out = linear->added->out.canonical;
        bytes += static_cast<std::int64_t>(in.byte_size() + out.byte_size());
        format = with_low_rank(w.format, static_cast<int>(in.rows))->name();
      }
      inventory.linears.push_back({linear->module, layer, format, w.rows, w.cols, bytes});
      linear_weights += w.rows * w.cols;
      linear_bytes += bytes;
    }
  }
  const EmbeddingWeights embedding = load_embedding(spec, source, backend);
  inventory.parameters += parameters(embedding);
  inventory.parameters += parameters(spec, load_head(spec, embedding, source, backend));
  for (const std::string& name : source.names()) {
    inventory.bytes += static_cast<std::int64_t>(source.tensor(name).byte_size());
    ++inventory.tensors;
  }
  inventory.bits_per_weight = bits_over(linear_bytes, linear_weights);
  inventory.bits_per_weight_total = bits_over(inventory.bytes, inventory.parameters);
  return inventory;
}

}  // namespace nibble
