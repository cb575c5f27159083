#include "runtime/execution.h"

#include <algorithm>

namespace nibble {
namespace {

void count(std::string part, std::string format, bool is_true, std::vector<ExecutedPart>& parts) {
  const auto found = std::ranges::find_if(parts, [&](const ExecutedPart& p) {
    return p.part == part && p.format == format && p.is_true == is_true;
  });
  if (found != parts.end()) {
    ++found->modules;
    return;
  }
  parts.push_back({std::move(part), std::move(format), 1, is_true});
}

bool multiplies_codes(const Model& model, const Linear& linear) {
  LinearArgs args;
  args.m = 1;
  args.w = &linear.weight;
  args.activations = linear.activations.get();
  return model.backend().arithmetic_of(args) != Arithmetic::kFloat32;
}

}  // namespace

std::vector<ExecutedPart> executed_parts(const Model& model) {
  std::vector<ExecutedPart> weights;
  std::vector<ExecutedPart> activations;
  const auto count_input = [&](const Linear& linear) {
    if (linear.activations == nullptr) return;
    count("activations", linear.activations->name(), multiplies_codes(model, linear), activations);
  };
  for (LayerWeights layer : model.layers()) {  // a copy: linears() hands out mutable pointers
    for (const Linear* linear : layer.linears()) {
      const Format& format = *linear->weight.canonical.format;
      if (!format.is_float()) count("weights", format.name(), true, weights);
      count_input(*linear);
    }
  }
  count_input(model.head_weights().head);
  std::vector<ExecutedPart> parts = std::move(weights);
  parts.insert(parts.end(), activations.begin(), activations.end());
  const QuantTensor& table = model.embedding_weights().table;
  if (!table.format->is_float()) count("embeddings", table.format->name(), true, parts);
  return parts;
}

}  // namespace nibble
