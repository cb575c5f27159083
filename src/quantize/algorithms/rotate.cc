// Rotations of a whole model (QuaRot: arXiv 2404.00456): what the norms multiply by is folded into
// the linears that read them, after which the residual stream, and the values of each attention
// head, can be multiplied by an orthogonal matrix that is folded into the linears on both sides.
// Inputs of linears behind a non-linear function are multiplied at run time.
#include <algorithm>
#include <cmath>
#include <string>

#include "base/error.h"
#include "model/arch.h"
#include "model/fused_experts.h"
#include "model/sites.h"
#include "ops/args.h"
#include "quantize/algorithm.h"
#include "quantize/output_plan.h"
#include "quantize/rewritten_checkpoint.h"

namespace nibble {
namespace {

// Columns that are mixed at run time, at most: what a warp of a graphics card holds.
constexpr std::int64_t kMaxOnlineBlock = 1024;

// Why the residual stream of an architecture cannot be rotated; empty when it can.
std::string why_no_residual(const ModelSpec& spec) {
  if (!spec.decoder) return "its result is the residual stream itself";
  if (spec.embed_norm) {
    return "a norm with a factor for each channel stands between the embedding and the stream";
  }
  switch (spec.residual) {
    case ResidualForm::kPre:
    case ResidualForm::kParallel:
      return "";
    case ResidualForm::kSandwich:
      return "norms with a factor for each channel stand between its linears and the stream";
    case ResidualForm::kPreNormed:
    case ResidualForm::kPost:
      return "its norms multiply the stream itself by a factor for each channel";
  }
  return "";
}

// Collects what becomes of each tensor.
class Rotator {
 public:
  Rotator(const ModelSpec& spec, const Checkpoint& source, Backend& backend,
          const Parameters& parameters, std::vector<std::string>& notes)
      : spec_(spec),
        source_(source),
        backend_(backend),
        parameters_(parameters),
        notes_(notes),
        prefix_(find_prefix(spec, source)) {
    rewrite_.config = source.config();
    for (const std::string& name : fused_expert_tensors(spec, prefix_)) {
      if (source.has(name) || source.has_linear(name)) rewrite_.left_out.insert(name);
    }
  }

  Rewrite run() {
    choose_rotations();
    if (residual_ != nullptr) rotate_outside();
    for (std::int64_t layer = 0; layer < spec_.layers; ++layer) rotate_layer(layer);
    return std::move(rewrite_);
  }

 private:
  // A matrix for so many channels; null, and said aloud, where there is none.
  RotationPtr rotation_of(std::int64_t size, std::uint64_t number, const std::string& what,
                          bool keeps_mean = false) {
    const bool random = text(parameters_, "kind") == "random";
    const auto seed = static_cast<std::uint64_t>(number_of("seed"));
    auto rotation = std::make_shared<const Rotation>(
        RotationOptions{size, random, seed * 4 + number, keeps_mean});
    if (rotation->block() > 1) return rotation;
    notes_.push_back(fmt::format("{} not rotated: {} channels, an odd number", what, size));
    return nullptr;
  }
  double number_of(const char* name) const { return number(parameters_, name); }

  void choose_rotations() {
    if (flag(parameters_, "residual")) {
      const std::string reason = why_no_residual(spec_);
      if (reason.empty()) {
        const bool layer_norms = spec_.norm.kind == NormKind::kLayer;
        residual_ = rotation_of(spec_.hidden, 0, "the residual stream is", layer_norms);
        centers_ = layer_norms && spec_.final_norm && spec_.final_norm->kind == NormKind::kLayer;
      } else {
        notes_.push_back(
            fmt::format("the residual stream of {} is not rotated: {}", spec_.arch, reason));
      }
    }
    if (text(parameters_, "value_output") == "folded") {
      values_ = rotation_of(spec_.attention.value_dim(), 1, "the values of heads are");
    }
    if (!spec_.attention.latent || !flag(parameters_, "latent")) return;
    const LatentSpec& latent = *spec_.attention.latent;
    if (latent.q_rank > 0) queries_ = rotation_of(latent.q_rank, 2, "latent queries are");
    keys_ = rotation_of(latent.kv_rank, 3, "latent keys are");
  }

  void rotate_outside() {
    const EmbeddingWeights embedding = load_embedding(spec_, source_, backend_);
    const std::string table = prefix_ + spec_.names.embed;
    const bool narrow = embedding.project_in.exists();
    if (narrow) {
      writes(embedding.project_in, -1);
    } else {
      writes_by_row(table, embedding.table);
    }
    for (const auto& [name, weight] :
         {std::pair(spec_.names.positions, &embedding.positions),
          std::pair(spec_.names.token_types, &embedding.token_types)}) {
      if (weight->format != nullptr) writes_by_row(prefix_ + name, *weight);
    }
    HeadWeights head = load_head(spec_, embedding, source_, backend_);
    Linear reader = head.project_out.exists() ? head.project_out : head.head;
    if (reader.module == table) {
      reader.module = spec_.names.head.front();
      notes_.push_back(fmt::format("embedding and head are untied, which takes {} bytes more",
                                   reader.weight.canonical.planes[0].byte_size()));
    }
    require_plain(reader);
    if (!head.project_out.exists() && spec_.tied_head) {
      rewrite_.config["tie_word_embeddings"] = false;
    }
    if (spec_.final_norm) {
      fold(head.final_norm, *spec_.final_norm, {&reader}, -1, residual_);
    } else {
      rewrite_.matrices[reader.module].columns = residual_;
    }
    if (!source_.has_linear(reader.module)) rewrite_.matrices[reader.module].from = table;
  }

  void rotate_layer(std::int64_t layer) {
    LayerWeights weights = load_layer(spec_, layer, source_, backend_);
    for (const Linear* linear : weights.linears()) {
      require_plain(*linear);
      rewrite_.matrices[linear->module].layer = layer;
    }
    added_.clear();
    std::vector<Site> all = sites(spec_, weights);
    for (Site& site : all) rotate_site(weights, site, layer);
    std::vector<Linear*> linears = weights.linears();
    if (weights.router.exists()) linears.push_back(&weights.router);
    for (const Linear* linear : linears) rewrite_bias(*linear);
    // Experts of one tensor become modules of their own, whatever is done to them.
    std::erase_if(rewrite_.matrices, [&](const auto& entry) {
      const auto& [module, change] = entry;
      return change.layer == layer && is_same(change) && source_.has_linear(module);
    });
  }

  static bool is_same(const MatrixChange& change) {
    return change.columns == nullptr && change.rows == nullptr && change.gain.empty();
  }

  void rotate_site(LayerWeights& weights, Site& site, std::int64_t layer) {
    std::vector<Linear*> readers = site.consumers;
    readers.insert(readers.end(), site.compensated.begin(), site.compensated.end());
    switch (site.kind) {
      case SiteKind::kAttnIn:
        if (residual_ != nullptr) fold(weights.attn_norm, spec_.norm, readers, layer, residual_);
        return;
      case SiteKind::kMlpIn:
        if (residual_ != nullptr) fold(weights.mlp_norm, spec_.norm, readers, layer, residual_);
        return;
      case SiteKind::kQueryLatent:
        return rotate_latent(weights.q_a, weights.q_a_norm, readers, layer, queries_);
      case SiteKind::kKeyLatent:
        return rotate_latent(weights.kv_a, weights.kv_a_norm, readers, layer, keys_);
      case SiteKind::kAttnOut:
        if (values_ != nullptr && site.producer.kind == Producer::Kind::kLinear)
          rotate_values(site);
        if (text(parameters_, "value_output") == "online") multiply_online(weights.o);
        if (residual_ != nullptr) writes(weights.o, layer);
        return;
      case SiteKind::kMlpDown:
        for (Linear* linear : readers) {
          if (text(parameters_, "down") == "online") multiply_online(*linear);
          if (residual_ != nullptr) writes(*linear, layer);
        }
        return;
    }
  }

  // A norm and all that read it: the readers get its factors, and their inputs are rotated.
  void fold(const Norm& norm, const NormSpec& norm_spec, const std::vector<Linear*>& readers,
            std::int64_t layer, const RotationPtr& rotation) {
    std::vector<float> gain;
    if (!norm.weight.empty()) {
      const float* weight = norm.weight.data<float>();
      gain.assign(weight, weight + norm.weight.elements());
      for (float& value : gain) value += norm_spec.weight_offset;
      const std::vector<float> ones(gain.size(), 1 - norm_spec.weight_offset);
      replace(stored_norm_weight(source_, norm.module), ones);
    }
    if (!norm.bias.empty()) fold_bias(norm, gain, readers, rotation);
    for (const Linear* reader : readers) {
      MatrixChange& change = rewrite_.matrices[reader->module];
      change.layer = layer;
      change.gain = gain;
      change.columns = rotation;
    }
  }

  // Into the biases of the readers; where one has none, it stays with the norm, as what the readers
  // have to see.
  void fold_bias(const Norm& norm, const std::vector<float>& gain,
                 const std::vector<Linear*>& readers, const RotationPtr& rotation) {
    const float* bias = norm.bias.data<float>();
    std::vector<float> kept(bias, bias + norm.bias.elements());
    const bool folds =
        std::ranges::all_of(readers, [](const Linear* l) { return !l->bias.empty(); });
    if (folds) {
      for (const Linear* reader : readers) add_to_bias(*reader, kept);
      std::ranges::fill(kept, 0.0f);
    } else {
      for (std::size_t j = 0; j < gain.size(); ++j) {
        if (gain[j] == 0 && kept[j] != 0) {
          fail(ErrorKind::kUnsupported,
               "norm '{}': channel {} has the weight 0 and a bias, which cannot be rotated",
               norm.module, j);
        }
        if (kept[j] != 0) kept[j] /= gain[j];
      }
      rotation->apply(kept.data());
    }
    replace(stored_norm_bias(source_, norm.module), kept);
  }

  // W times the norm's bias.
  void add_to_bias(const Linear& reader, const std::vector<float>& bias) {
    const QuantTensor& weight = reader.weight.canonical;
    std::vector<float>& added = added_[reader.module];
    added.assign(static_cast<std::size_t>(weight.rows), 0.0f);
    std::vector<float> row(bias.size());
    for (std::int64_t r = 0; r < weight.rows; ++r) {
      to_float(weight.planes[0], r * weight.cols, weight.cols, row.data());
      double sum = 0;
      for (std::size_t j = 0; j < row.size(); ++j) {
        sum += static_cast<double>(row[j]) * static_cast<double>(bias[j]);
      }
      added[static_cast<std::size_t>(r)] = static_cast<float>(sum);
    }
  }

  // A linear whose result is added to the residual stream.
  void writes(const Linear& linear, std::int64_t layer) {
    require_plain(linear);
    MatrixChange& change = rewrite_.matrices[linear.module];
    change.layer = layer;
    change.rows = residual_;
    change.row_begins = {0};
    change.centers_rows = centers_;
  }

  // A table whose rows are.
  void writes_by_row(const std::string& module, const QuantTensor& table) {
    require_plain({module, {table, nullptr}, {}});
    MatrixChange& change = rewrite_.matrices[module];
    change.columns = residual_;
    change.centers_columns = centers_;
  }

  void rotate_latent(const Linear& writer, const Norm& norm, const std::vector<Linear*>& readers,
                     std::int64_t layer, const RotationPtr& rotation) {
    if (rotation == nullptr) return;
    fold(norm, spec_.attention.latent->norm, readers, layer, rotation);
    MatrixChange& change = rewrite_.matrices[writer.module];
    change.rows = rotation;
    change.row_begins = {0};
  }

  // The rows that make the values of each head, and the columns that read them.
  void rotate_values(const Site& site) {
    const std::int64_t dim = spec_.attention.value_dim();
    MatrixChange& change = rewrite_.matrices[site.producer.linear->module];
    change.rows = values_;
    for (std::size_t channel = 0; channel < site.producer.rows.size();
         channel += static_cast<std::size_t>(dim)) {
      const std::int64_t begin = site.producer.rows[channel];  // heads may share values
      if (std::ranges::find(change.row_begins, begin) == change.row_begins.end()) {
        change.row_begins.push_back(begin);
      }
    }
    for (const Linear* reader : site.consumers) rewrite_.matrices[reader->module].columns = values_;
  }

  void multiply_online(const Linear& linear) {
    const std::int64_t cols = linear.weight.canonical.cols;
    const std::int64_t block = std::min(hadamard_size(cols), kMaxOnlineBlock);
    if (block == 1) {
      notes_.push_back(fmt::format("the input of {} is not rotated: {} channels, an odd number",
                                   linear.module, cols));
      return;
    }
    if (source_.input_hadamard(linear.module) != 0) {
      fail(ErrorKind::kUnsupported, "module '{}': its input is rotated already", linear.module);
    }
    rewrite_.input_hadamards[linear.module] = block;
    std::shared_ptr<const Rotation>& rotation = online_[block];
    if (rotation == nullptr) {
      rotation = std::make_shared<const Rotation>(RotationOptions{.size = block});
    }
    rewrite_.matrices[linear.module].columns = rotation;
  }

  // After everything that a layer's matrices go through is known.
  void rewrite_bias(const Linear& linear) {
    const auto change = rewrite_.matrices.find(linear.module);
    if (linear.bias.empty() || change == rewrite_.matrices.end()) return;
    const float* bias = linear.bias.data<float>();
    std::vector<float> values(bias, bias + linear.bias.elements());
    if (const auto added = added_.find(linear.module); added != added_.end()) {
      for (std::size_t r = 0; r < values.size(); ++r) values[r] += added->second[r];
    }
    change_vector(change->second, values);
    const std::string name = linear.module + ".bias";
    const DType type = source_.has(name)
                           ? source_.tensor(name).dtype()
                           : linear.weight.canonical.format->descriptor().element.float_type;
    rewrite_.tensors[name] =
        from_float(values.data(), type, {static_cast<std::int64_t>(values.size())});
  }

  void replace(const std::string& name, const std::vector<float>& values) {
    if (name.empty()) return;
    rewrite_.tensors[name] = from_float(values.data(), source_.tensor(name).dtype(),
                                        {static_cast<std::int64_t>(values.size())});
  }

  static void require_plain(const Linear& linear) {
    const QuantTensor& weight = linear.weight.canonical;
    if (weight.format->is_float() && linear.added == nullptr) return;
    fail(ErrorKind::kUnsupported,
         "module '{}' is stored as {}; rotate the 16-bit checkpoint it was made from",
         linear.module, weight.format->name());
  }

  const ModelSpec& spec_;
  const Checkpoint& source_;
  Backend& backend_;
  const Parameters& parameters_;
  std::vector<std::string>& notes_;
  std::string prefix_;
  Rewrite rewrite_;
  RotationPtr residual_, values_, queries_, keys_;
  std::map<std::int64_t, RotationPtr> online_;  // by size
  bool centers_ = false;                        // nothing reads the mean of the residual stream
  std::map<std::string, std::vector<float>> added_;  // to the biases of the present layer
};

std::unique_ptr<Checkpoint> rewrite(RewriteSource source, const Parameters& parameters) {
  const ModelSpec spec = build_spec(source.checkpoint->config());
  Rewrite changes =
      Rotator(spec, *source.checkpoint, source.backend, parameters, source.notes).run();
  return std::make_unique<RewrittenCheckpoint>(std::move(source.checkpoint), spec,
                                               std::move(changes), source.backend);
}

}  // namespace

Algorithm make_rotate() {
  Algorithm algorithm;
  algorithm.name = "rotate";
  algorithm.summary = "spread large channels over all by orthogonal matrices folded into weights";
  algorithm.kind = StepKind::kRewrite;
  algorithm.needs = {CalibrationNeed::kNone, Scope::kModel};
  algorithm.parameters = {
      {.name = "residual", .value = true, .help = "rotate the residual stream", .choices = {}},
      {.name = "value_output",
       .value = std::string("folded"),
       .help = "rotate the values of each head (folded), or all heads together when they are read "
               "(online)",
       .choices = {"none", "folded", "online"}},
      {.name = "down",
       .value = std::string("none"),
       .help = "rotate the input of the down projection at run time",
       .choices = {"none", "online"}},
      {.name = "latent",
       .value = true,
       .help = "rotate the narrow vectors of latent attention",
       .choices = {}},
      {.name = "kind",
       .value = std::string("random"),
       .help = "Hadamard matrices under random signs, or as they are",
       .choices = {"random", "hadamard"}},
      {.name = "seed",
       .value = 1.0,
       .help = "of the signs",
       .min = 0,
       .max = 4294967295.0,
       .integer = true,
       .choices = {}},
  };
  algorithm.rewrite = rewrite;
  return algorithm;
}

}  // namespace nibble
