// Weights from a source to the parts of the forward pass, checked against the spec.
#include <algorithm>
#include <set>

#include "backends/encoded.h"
#include "base/error.h"
#include "formats/ggml_input.h"
#include "formats/low_rank.h"
#include "formats/split_format.h"
#include "model/fused_experts.h"
#include "model/model.h"
#include "model/module_name.h"
#include "model/stored_tensor.h"
#include "tensor/transpose.h"

namespace nibble {
namespace {

// Loads parts by name, all under one prefix and for one layer.
class Loader {
 public:
  Loader(const ModelSpec& spec, const WeightSource& source, Backend& backend,
         const ModelFormat& rounding, bool as_f32 = false)
      : spec_(spec),
        source_(source),
        backend_(backend),
        rounding_(rounding),
        prefix_(find_prefix(spec, source)),
        as_f32_(as_f32) {}

  void set_layer(std::int64_t layer) { layer_ = layer; }

  std::string name(const std::string& pattern, std::int64_t expert = 0) const {
    return prefix_ + expand_pattern(pattern, layer_, expert);
  }

  // A matrix in the layout of the file.
  QuantTensor matrix(const std::string& module, std::int64_t rows, std::int64_t cols) const {
    QuantTensor weight = source_.linear(module);
    check_shape(module + ".weight", {weight.rows, weight.cols}, {rows, cols});
    return weight;
  }

  // The embedding, or a head of its own.
  QuantTensor outer_matrix(const std::string& module, std::int64_t rows, std::int64_t cols) const {
    return rounded(module, matrix(module, rows, cols), rounding_.embeddings);
  }

  // A linear layer of a block.
  Linear block_linear(const std::string& module, std::int64_t rows, std::int64_t cols,
                      bool with_bias) const {
    return linear(module, rows, cols, with_bias, true);
  }

  Linear linear(const std::string& module, std::int64_t rows, std::int64_t cols, bool with_bias,
                bool of_block = false) const {
    QuantTensor weight = source_.linear(module);
    if (spec_.transposed_linears && weight.format->is_float()) {
      check_shape(module + ".weight", {weight.rows, weight.cols}, {cols, rows});
      weight = dense(transposed(weight.planes[0]));
    }
    check_shape(module + ".weight", {weight.rows, weight.cols}, {rows, cols});
    Linear result =
        of_block ? wrap_of_block(module, std::move(weight)) : wrap(module, std::move(weight));
    if (with_bias) result.bias = vector(module + ".bias", rows);
    return result;
  }

  Linear wrap_of_block(const std::string& module, QuantTensor weight) const {
    ActivationFormatPtr activations =
        rounding_.activations != nullptr ? rounding_.activations : source_.activations(module);
    weight = rounded(module, std::move(weight), rounding_.weights);
    activations = of_weight(std::move(activations), weight);
    const std::int64_t mixed = input_hadamard(module, weight.cols);
    Linear result = wrap(module, std::move(weight), activations);
    result.input_hadamard = mixed;
    if (result.activations != nullptr && !result.activations->is_complete()) {
      fail(ErrorKind::kUsage, "module '{}': {} needs a scale from calibration; use {} here", module,
           result.activations->name(), "a dynamic format");
    }
    if (result.activations != nullptr) {
      LinearArgs args;
      args.m = 1;
      args.w = &result.weight;
      args.activations = result.activations.get();
      backend_.arithmetic_of(args);  // fails now, with a reason, where the device cannot do it
    }
    return result;
  }

  // The head. Its input is rounded by formats that follow from the program, not from the model.
  Linear head(const std::string& module, QuantTensor weight) const {
    ActivationFormatPtr activations = rounding_.activations;
    if (activations != nullptr && !activations->descriptor().by_ggml) activations = nullptr;
    activations = of_weight(std::move(activations), weight);
    return wrap(module, std::move(weight), activations);
  }

  Linear wrap(const std::string& module, QuantTensor weight,
              const ActivationFormatPtr& activations = nullptr) const {
    if (as_f32_) {
      Tensor decoded = Tensor::allocate(DType::kF32, {weight.rows, weight.cols});
      decode_all(weight, decoded.mutable_data<float>(), backend_.codec());
      weight = dense(std::move(decoded));
    }
    std::shared_ptr<const LowRankProduct> added;
    if (is_low_rank(*weight.format)) {
      LowRankParts parts = low_rank_parts(weight);
      added = std::make_shared<LowRankProduct>(LowRankProduct{
          backend_.prepare(dense(std::move(parts.in)), module + ".low_rank_in", activations.get()),
          backend_.prepare(dense(std::move(parts.out)), module + ".low_rank_out")});
      weight = std::move(parts.base);
    }
    return {module,
            backend_.prepare(std::move(weight), module, activations.get()),
            {},
            activations,
            std::move(added),
            0};
  }

  Norm norm(const std::string& module, const NormSpec& spec, std::int64_t cols) const {
    Norm result;
    result.module = module;
    // BERT's oldest files have TensorFlow's names.
    if (spec.has_weight) {
      result.weight = vector(first_of(module + ".weight", module + ".gamma"), cols);
    }
    if (spec.has_bias) result.bias = vector(first_of(module + ".bias", module + ".beta"), cols);
    return result;
  }

  // All experts of one tensor.
  FusedExperts experts(const std::string& pattern, std::int64_t rows, std::int64_t cols) const {
    return {source_, pattern.empty() ? "" : name(pattern), spec_.mlp, rows, cols};
  }

  // One of them, under a name of its own.
  Linear expert_linear(const std::string& pattern, const FusedExperts& all, std::int64_t expert,
                       const RowSet& rows) const {
    Linear result = wrap_of_block(name(pattern, expert), all.weight(expert, rows));
    if (spec_.mlp.bias) result.bias = backend_.memory().upload(all.bias(expert, rows));
    return result;
  }

  // A vector that stays in the host's memory.
  std::vector<float> host_vector(const std::string& name, std::int64_t size) const {
    const Tensor values = float_vector(name, size);
    return {values.data<float>(), values.data<float>() + size};
  }

  const WeightSource& source() const { return source_; }

 private:
  // The format for this weight, of those that need one.
  static ActivationFormatPtr of_weight(ActivationFormatPtr format, const QuantTensor& weight) {
    if (format == nullptr) return format;
    if (format->descriptor().by_ggml) return ggml_input(*weight.format);
    if (!format->descriptor().weight_outliers) return format;
    return format->with_columns(outlier_columns(weight));
  }

  // As the source has it, in columns.
  std::int64_t input_hadamard(const std::string& module, std::int64_t cols) const {
    std::int64_t block = source_.input_hadamard(module);
    if (block == WeightSource::kWholeInput) block = cols;
    if (block != 0 && (block < 1 || hadamard_size(cols) % block != 0)) {
      fail(ErrorKind::kUnsupported,
           "module '{}': {} columns are not multiplied by Hadamard matrices of {}", module, cols,
           block);
    }
    return block;
  }

  // Encoded in the format that fits, if one is asked for.
  QuantTensor rounded(const std::string& module, QuantTensor weight,
                      const FormatPtr& wanted) const {
    if (wanted == nullptr || as_f32_) return weight;
    const FormatPtr format = fitting_format(wanted, weight.rows, weight.cols);
    if (format == nullptr) {
      fail(ErrorKind::kUnsupported, "module '{}': {}", module,
           wanted->why_not(weight.rows, weight.cols));
    }
    return encoded(backend_, weight, format);
  }

  std::string first_of(const std::string& name, const std::string& old_name) const {
    return !source_.has(name) && source_.has(old_name) ? old_name : name;
  }

  Tensor float_vector(const std::string& name, std::int64_t size) const {
    const Tensor stored = source_.tensor(name);
    check_floats(name, stored, {size});
    return to_float(stored);
  }

  Tensor vector(const std::string& name, std::int64_t size) const {
    return backend_.memory().upload(float_vector(name, size));
  }

  const ModelSpec& spec_;
  const WeightSource& source_;
  Backend& backend_;
  const ModelFormat& rounding_;
  std::string prefix_;
  bool as_f32_;
  std::int64_t layer_ = 0;
};

void load_latent(const ModelSpec& spec, const Loader& loader, LayerWeights& weights) {
  const AttentionSpec& attention = spec.attention;
  const LatentSpec& latent = *attention.latent;
  const NameSpec& names = spec.names;
  const bool bias = attention.qkv_bias;
  if (latent.q_rank > 0) {
    weights.q_a = loader.block_linear(loader.name(names.q_a), latent.q_rank, spec.hidden, bias);
    weights.q_a_norm = loader.norm(loader.name(names.q_a_norm), latent.norm, latent.q_rank);
  }
  weights.q = loader.block_linear(loader.name(names.q), attention.heads * attention.head_dim,
                                  latent.q_rank > 0 ? latent.q_rank : spec.hidden, false);
  weights.kv_a = loader.block_linear(loader.name(names.kv_a), latent.kv_rank + latent.rope_dim,
                                     spec.hidden, bias);
  weights.kv_a_norm = loader.norm(loader.name(names.kv_a_norm), latent.norm, latent.kv_rank);
  weights.kv_b = loader.block_linear(loader.name(names.kv_b),
                                     attention.heads * (latent.nope_dim + latent.value_dim),
                                     latent.kv_rank, false);
}

void load_attention(const ModelSpec& spec, const Loader& loader, LayerWeights& weights) {
  const AttentionSpec& attention = spec.attention;
  const NameSpec& names = spec.names;
  const std::int64_t q_rows = attention.heads * attention.head_dim;
  const std::int64_t kv_rows = attention.kv_heads * attention.head_dim;
  const bool bias = attention.qkv_bias;
  if (attention.layout == QkvLayout::kSeparate) {
    weights.q = loader.block_linear(loader.name(names.q), q_rows, spec.hidden, bias);
    weights.k = loader.block_linear(loader.name(names.k), kv_rows, spec.hidden, bias);
    weights.v = loader.block_linear(loader.name(names.v), kv_rows, spec.hidden, bias);
  } else if (attention.layout == QkvLayout::kLatent) {
    load_latent(spec, loader, weights);
  } else {
    weights.qkv =
        loader.block_linear(loader.name(names.qkv), q_rows + 2 * kv_rows, spec.hidden, bias);
  }
  weights.o = loader.block_linear(loader.name(names.o), spec.hidden,
                                  attention.heads * attention.value_dim(), attention.o_bias);
  if (attention.sinks) {
    weights.sinks = loader.host_vector(loader.name(names.sinks), attention.heads);
  }
  if (attention.qk_norm) {
    weights.q_norm = loader.norm(loader.name(names.q_norm), *attention.qk_norm, attention.head_dim);
    weights.k_norm = loader.norm(loader.name(names.k_norm), *attention.qk_norm, attention.head_dim);
  }
}

// The modules of one feed-forward network, by their patterns.
struct MlpNames {
  const std::string& gate;
  const std::string& up;
  const std::string& gate_up;
  const std::string& down;
};

MlpWeights load_mlp(const ModelSpec& spec, const Loader& loader, const MlpNames& names,
                    std::int64_t width, std::int64_t expert = 0) {
  const MlpSpec& mlp = spec.mlp;
  const auto load = [&](const std::string& pattern, std::int64_t rows, std::int64_t cols) {
    return loader.block_linear(loader.name(pattern, expert), rows, cols, mlp.bias);
  };
  MlpWeights weights;
  if (mlp.concat_gate_up) {
    weights.gate_up = load(names.gate_up, 2 * width, spec.hidden);
  } else {
    if (mlp.gated) weights.gate = load(names.gate, width, spec.hidden);
    weights.up = load(names.up, width, spec.hidden);
  }
  weights.down = load(names.down, spec.hidden, width);
  return weights;
}

// One expert out of the tensors of all.
MlpWeights split_expert(const ModelSpec& spec, const Loader& loader, const FusedExperts& gate_up,
                        const FusedExperts& down, std::int64_t expert) {
  const NameSpec& names = spec.names;
  const std::int64_t rows = spec.mlp.intermediate;
  const bool in_turns = spec.mlp.alternating_gate_up;
  const std::int64_t step = in_turns ? 2 : 1;
  MlpWeights weights;
  weights.gate = loader.expert_linear(names.gate, gate_up, expert, {0, rows, step});
  weights.up = loader.expert_linear(names.up, gate_up, expert, {in_turns ? 1 : rows, rows, step});
  weights.down = loader.expert_linear(names.down, down, expert, {0, spec.hidden, 1});
  return weights;
}

void load_experts(const ModelSpec& spec, const Loader& loader, LayerWeights& weights) {
  const NameSpec& names = spec.names;
  const MlpSpec& mlp = spec.mlp;
  const std::string fused_router = loader.name(names.fused_experts_router);
  const bool use_fused_router =
      !names.fused_experts_router.empty() && loader.source().has_linear(fused_router);
  weights.router = loader.linear(use_fused_router ? fused_router : loader.name(names.router),
                                 mlp.experts, spec.hidden, mlp.router_bias);
  if (mlp.choice_bias) {
    weights.choice_bias = loader.host_vector(loader.name(names.router_choice_bias), mlp.experts);
  }
  const FusedExperts gate_up =
      loader.experts(names.fused_experts_gate_up, 2 * mlp.intermediate, spec.hidden);
  const FusedExperts down = loader.experts(names.fused_experts_down, spec.hidden, mlp.intermediate);
  const bool fused = gate_up.stored() && down.stored();
  const MlpNames apart = {names.gate, names.up, names.gate_up, names.down};
  for (std::int64_t e = 0; e < mlp.experts; ++e) {
    weights.experts.push_back(fused ? split_expert(spec, loader, gate_up, down, e)
                                    : load_mlp(spec, loader, apart, mlp.intermediate, e));
  }
  if (mlp.shared_intermediate > 0) {
    weights.shared = load_mlp(
        spec, loader, {names.shared_gate, names.shared_up, names.gate_up, names.shared_down},
        mlp.shared_intermediate);
  }
}

void load_feed_forward(const ModelSpec& spec, std::int64_t layer, const Loader& loader,
                       LayerWeights& weights) {
  const NameSpec& names = spec.names;
  if (spec.mlp.has_experts(layer)) {
    load_experts(spec, loader, weights);
  } else if (spec.mlp.experts > 0) {
    weights.mlp =
        load_mlp(spec, loader, {names.dense_gate, names.dense_up, names.gate_up, names.dense_down},
                 spec.mlp.dense_intermediate);
  } else {
    weights.mlp = load_mlp(spec, loader, {names.gate, names.up, names.gate_up, names.down},
                           spec.mlp.intermediate);
  }
}

// Only what is written for one linear alone is multiplied in place.
void check_mixed_inputs(LayerWeights& weights) {
  std::set<const Linear*> last = {&weights.o, &weights.mlp.down, &weights.shared.down};
  for (const MlpWeights& expert : weights.experts) last.insert(&expert.down);
  for (const Linear* linear : weights.linears()) {
    if (linear->input_hadamard == 0 || last.contains(linear)) continue;
    fail(
        ErrorKind::kUnsupported,
        "module '{}': Hadamard matrices in front of it; nibble has them before the output and down "
        "projections alone",
        linear->module);
  }
}

LayerWeights load_layer_as(const ModelSpec& spec, std::int64_t layer, const WeightSource& source,
                           Backend& backend, const ModelFormat& rounding, bool as_f32) {
  NIBBLE_CHECK(layer >= 0 && layer < spec.layers);
  Loader loader(spec, source, backend, rounding, as_f32);
  loader.set_layer(layer);
  const NameSpec& names = spec.names;
  LayerWeights weights;
  const auto load_norm = [&](const std::string& pattern, Norm& norm) {
    if (!pattern.empty()) norm = loader.norm(loader.name(pattern), spec.norm, spec.hidden);
  };
  load_norm(names.attn_norm, weights.attn_norm);
  load_norm(names.attn_post_norm, weights.attn_post_norm);
  load_norm(names.mlp_norm, weights.mlp_norm);
  load_norm(names.mlp_post_norm, weights.mlp_post_norm);
  load_attention(spec, loader, weights);
  load_feed_forward(spec, layer, loader, weights);
  check_mixed_inputs(weights);
  return weights;
}

bool same_matrix(const QuantTensor& a, const QuantTensor& b) {
  if (a.rows != b.rows || a.cols != b.cols || a.format->name() != b.format->name()) return false;
  return std::ranges::equal(a.planes, b.planes, [](const Tensor& x, const Tensor& y) {
    return x.byte_size() == y.byte_size() &&
           std::memcmp(x.bytes().data(), y.bytes().data(), x.byte_size()) == 0;
  });
}

}  // namespace

std::vector<Linear*> LayerWeights::linears() {
  std::vector<Linear*> all = {&q_a, &q, &k, &v, &qkv, &kv_a, &kv_b, &o};
  const auto add = [&](MlpWeights& weights) {
    all.insert(all.end(), {&weights.gate, &weights.up, &weights.gate_up, &weights.down});
  };
  add(mlp);
  for (MlpWeights& expert : experts) add(expert);
  add(shared);
  std::erase_if(all, [](const Linear* linear) { return !linear->exists(); });
  return all;
}

std::vector<Norm*> LayerWeights::norms() {
  std::vector<Norm*> all = {&attn_norm, &attn_post_norm, &mlp_norm, &mlp_post_norm,
                            &q_norm,    &k_norm,         &q_a_norm, &kv_a_norm};
  std::erase_if(all, [](const Norm* norm) { return norm->module.empty(); });
  return all;
}

std::string find_prefix(const ModelSpec& spec, const WeightSource& source) {
  for (const std::string& prefix : spec.names.prefixes) {
    if (source.has_linear(prefix + spec.names.embed)) return prefix;
  }
  fail(ErrorKind::kCorrupt, "tensor '{}{}.weight', the embedding of model type '{}', is not stored",
       spec.names.prefixes.front(), spec.names.embed, spec.arch);
}

EmbeddingWeights load_embedding(const ModelSpec& spec, const WeightSource& source, Backend& backend,
                                const ModelFormat& rounding) {
  const Loader loader(spec, source, backend, rounding);
  const NameSpec& names = spec.names;
  EmbeddingWeights weights;
  const auto table = [&](const std::string& pattern, std::int64_t rows, std::int64_t cols) {
    return backend.prepare_table(loader.matrix(loader.name(pattern), rows, cols));
  };
  weights.table = backend.prepare_table(
      loader.outer_matrix(loader.name(names.embed), spec.vocab, spec.embed_dim));
  if (spec.learned_positions > 0) {
    weights.positions = table(names.positions, spec.learned_positions, spec.hidden);
  }
  if (spec.token_types > 0) {
    weights.token_types = table(names.token_types, spec.token_types, spec.hidden);
  }
  if (spec.embed_norm) {
    weights.norm = loader.norm(loader.name(names.embed_norm), *spec.embed_norm, spec.hidden);
  }
  if (!names.project_in.empty()) {
    weights.project_in =
        loader.linear(loader.name(names.project_in), spec.hidden, spec.embed_dim, false);
  }
  return weights;
}

LayerWeights load_layer(const ModelSpec& spec, std::int64_t layer, const WeightSource& source,
                        Backend& backend, const ModelFormat& rounding) {
  return load_layer_as(spec, layer, source, backend, rounding, false);
}

LayerWeights load_layer_f32(const ModelSpec& spec, std::int64_t layer, const WeightSource& source,
                            Backend& backend) {
  return load_layer_as(spec, layer, source, backend, {}, true);
}

void prepare_layer(LayerWeights& weights, Backend& backend) {
  std::vector<Linear*> all = weights.linears();
  if (weights.router.exists()) all.push_back(&weights.router);
  for (Linear* linear : all) {
    linear->weight = backend.prepare(linear->weight.canonical, "", linear->activations.get());
  }
}

LayerWeights place_layer(LayerWeights weights, Backend& backend) {
  DeviceMemory& memory = backend.memory();
  if (memory.is_host()) return weights;
  prepare_layer(weights, backend);
  for (Linear* linear : weights.linears()) linear->bias = memory.upload(linear->bias);
  weights.router.bias = memory.upload(weights.router.bias);
  for (Norm* norm : weights.norms()) {
    norm->weight = memory.upload(norm->weight);
    norm->bias = memory.upload(norm->bias);
  }
  return weights;
}

HeadWeights load_head(const ModelSpec& spec, const EmbeddingWeights& embedding,
                      const WeightSource& source, Backend& backend, const ModelFormat& rounding) {
  const Loader loader(spec, source, backend, rounding);
  HeadWeights weights;
  if (spec.final_norm) {
    weights.final_norm =
        loader.norm(loader.name(spec.names.final_norm), *spec.final_norm, spec.hidden);
  }
  if (!spec.decoder) return weights;
  if (!spec.names.project_out.empty()) {
    weights.project_out =
        loader.linear(loader.name(spec.names.project_out), spec.embed_dim, spec.hidden, false);
  }
  std::string stored;
  for (const std::string& module : spec.names.head) {
    if (stored.empty() && source.has_linear(module)) stored = module;
  }
  if (stored.empty()) {
    if (!spec.tied_head) {
      fail(ErrorKind::kCorrupt,
           "tensor '{}.weight' is not stored, and tie_word_embeddings is false",
           spec.names.head.front());
    }
    weights.head = loader.head(loader.name(spec.names.embed), embedding.table);
    return weights;
  }
  QuantTensor head = loader.matrix(stored, spec.vocab, spec.embed_dim);
  const auto table = [&] {
    return loader.matrix(loader.name(spec.names.embed), spec.vocab, spec.embed_dim);
  };
  if (spec.tied_head && same_matrix(head, table())) {
    head = embedding.table;
  } else if (rounding.embeddings != nullptr) {
    head = loader.outer_matrix(stored, spec.vocab, spec.embed_dim);
  }
  weights.head = loader.head(stored, std::move(head));
  return weights;
}

}  // namespace nibble
