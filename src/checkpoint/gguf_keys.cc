#include "checkpoint/gguf_keys.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace nibble {
namespace {

// config.json, read by keys that may have several names.
class HfConfig {
 public:
  using Names = std::initializer_list<const char*>;

  HfConfig(const Json& json, std::string_view what) : json_(json), what_(what) {}

  const Json* find(Names names) const {
    for (const char* name : names) {
      const auto found = json_.find(name);
      if (found != json_.end() && !found->is_null()) return &*found;
    }
    return nullptr;
  }
  double number(Names names) const {
    const Json* found = find(names);
    if (found == nullptr || !found->is_number()) {
      fail(ErrorKind::kCorrupt, "{}: config.json has no number '{}'", what_, *names.begin());
    }
    return found->get<double>();
  }
  double number_or(Names names, double fallback) const {
    return find(names) == nullptr ? fallback : number(names);
  }
  std::int64_t integer(Names names) const {
    constexpr double kMost = 4294967295.0;  // what GGUF holds
    const double value = number(names);
    if (value < 0 || value > kMost || value != std::floor(value)) {
      fail(ErrorKind::kCorrupt, "{}: '{}' of config.json is {}", what_, *names.begin(), value);
    }
    return static_cast<std::int64_t>(value);
  }
  std::int64_t integer_or(Names names, std::int64_t fallback) const {
    return find(names) == nullptr ? fallback : integer(names);
  }
  std::string text_or(Names names, const std::string& fallback) const {
    const Json* found = find(names);
    return found != nullptr && found->is_string() ? found->get<std::string>() : fallback;
  }
  bool flag_or(Names names, bool fallback) const {
    const Json* found = find(names);
    return found != nullptr && found->is_boolean() ? found->get<bool>() : fallback;
  }
  std::vector<float> numbers(const char* name) const {
    const Json* found = find({name});
    const bool sound = found != nullptr && found->is_array() &&
                       std::ranges::all_of(*found, [](const Json& v) { return v.is_number(); });
    if (!sound) fail(ErrorKind::kCorrupt, "{}: config.json has no numbers '{}'", what_, name);
    return found->get<std::vector<float>>();
  }
  // What llama.cpp computes whatever the file says.
  void require(Names names, std::initializer_list<std::string_view> allowed) const {
    const std::string value = text_or(names, std::string(*allowed.begin()));
    if (std::ranges::find(allowed, value) != allowed.end()) return;
    fail(ErrorKind::kUnsupported, "{}: '{}' is {}, which a GGUF file cannot say", what_,
         *names.begin(), value);
  }
  // "rope_parameters", or "rope_scaling" of older files.
  HfConfig rope() const {
    static const Json kNothing = Json::object();
    const Json* found = find({"rope_parameters", "rope_scaling"});
    return {found != nullptr && found->is_object() ? *found : kNothing, what_};
  }
  std::string_view what() const { return what_; }

 private:
  const Json& json_;
  std::string_view what_;
};

class KeyWriter {
 public:
  KeyWriter(const HfConfig& config, const char* arch, GgufKeys& keys)
      : config_(config), arch_(arch), keys_(keys) {
    keys_.arch = gguf_arch_named(arch);
    keys_.metadata.add("general.architecture", arch);
  }

  const HfConfig& config() const { return config_; }
  void u32(const char* key, std::int64_t value) {
    keys_.metadata.add_u32(name(key), static_cast<std::uint64_t>(value));
  }
  void f32(const char* key, double value) { keys_.metadata.add_f32(name(key), value); }
  void flag(const char* key, bool value) { keys_.metadata.add(name(key), value); }
  void text(const char* key, std::string_view value) { keys_.metadata.add(name(key), value); }
  void table(const char* tensor, std::vector<float> values) {
    GgufTable& table = keys_.tables.emplace_back();
    table.tensor = tensor;
    table.values = std::move(values);
  }

  void sizes(std::int64_t context, std::int64_t ffn) {
    keys_.layers = config_.integer({"num_hidden_layers", "n_layer"});
    keys_.heads = config_.integer({"num_attention_heads", "n_head"});
    keys_.kv_heads = config_.integer_or({"num_key_value_heads"}, keys_.heads);
    if (keys_.heads < 1 || keys_.kv_heads < 1) {
      fail(ErrorKind::kCorrupt, "{}: config.json says 0 heads", config_.what());
    }
    u32("context_length", context);
    u32("embedding_length", hidden());
    u32("block_count", keys_.layers);
    u32("feed_forward_length", ffn);
    u32("attention.head_count", keys_.heads);
    u32("attention.head_count_kv", keys_.kv_heads);
    if (config_.find({"vocab_size"}) != nullptr) {
      u32("vocab_size", config_.integer({"vocab_size"}));
    }
  }
  std::int64_t hidden() const { return config_.integer({"hidden_size", "n_embd", "n_embed"}); }
  std::int64_t head_dim() const {
    return config_.integer_or({"head_dim"}, hidden() / std::max<std::int64_t>(keys_.heads, 1));
  }
  void ignored(const char* what) { keys_.ignored.emplace_back(what); }
  void experts(std::int64_t count, std::int64_t used) {
    keys_.experts = count;
    u32("expert_count", count);
    u32("expert_used_count", used);
  }

 private:
  std::string name(const char* key) const { return std::string(arch_) + "." + key; }

  const HfConfig& config_;
  const char* arch_;
  GgufKeys& keys_;
};

double rope_theta(const HfConfig& config, double fallback = 10000) {
  const double top = config.number_or({"rope_theta", "rotary_emb_base"}, fallback);
  return config.rope().number_or({"rope_theta"}, top);
}

std::int64_t rotary_dim(const HfConfig& config, std::int64_t head_dim, double fallback = 1) {
  const double top = config.number_or({"partial_rotary_factor", "rotary_pct"}, fallback);
  const double factor = config.rope().number_or({"partial_rotary_factor"}, top);
  return static_cast<std::int64_t>(static_cast<double>(head_dim) * factor);
}

// The frequencies of Llama 3: slow ones are divided by the factor, fast ones stay, and those
// between are interpolated (transformers, modeling_rope_utils.py, _compute_llama3_parameters).
std::vector<float> llama3_factors(const HfConfig& rope, double theta, std::int64_t dim) {
  const double factor = rope.number({"factor"});
  const double low = rope.number_or({"low_freq_factor"}, 1);
  const double high = rope.number_or({"high_freq_factor"}, 4);
  const double original = rope.number_or({"original_max_position_embeddings"}, 8192);
  if (!(factor > 0) || !(high > low)) {
    fail(ErrorKind::kCorrupt, "{}: rope_type llama3 with factors {}, {}, {}", rope.what(), factor,
         low, high);
  }
  std::vector<float> factors;
  for (std::int64_t i = 0; i < dim; i += 2) {
    const double wavelength =
        2 * std::numbers::pi * std::pow(theta, static_cast<double>(i) / static_cast<double>(dim));
    const double share = std::clamp((original / wavelength - low) / (high - low), 0.0, 1.0);
    factors.push_back(static_cast<float>(1 / ((1 - share) / factor + share)));
  }
  return factors;
}

void longrope(KeyWriter& keys, const HfConfig& rope) {
  const HfConfig& config = keys.config();
  const double most = config.number({"max_position_embeddings"});
  const double original =
      rope.number_or({"original_max_position_embeddings"},
                     config.number_or({"original_max_position_embeddings"}, most));
  const double stretch = rope.number_or({"factor"}, most / original);
  const double computed = stretch > 1 ? std::sqrt(1 + std::log(stretch) / std::log(original)) : 1;
  keys.u32("rope.scaling.original_context_length", static_cast<std::int64_t>(original));
  keys.f32("rope.scaling.attn_factor", rope.number_or({"attention_factor"}, computed));
  keys.table("rope_factors_long.weight", rope.numbers("long_factor"));
  keys.table("rope_factors_short.weight", rope.numbers("short_factor"));
}

void yarn(KeyWriter& keys, const HfConfig& rope) {
  for (const char* unsaid : {"attention_factor", "mscale", "mscale_all_dim"}) {
    if (rope.find({unsaid}) == nullptr) continue;
    fail(ErrorKind::kUnsupported, "{}: '{}' of rope_type yarn in a GGUF file", rope.what(), unsaid);
  }
  keys.text("rope.scaling.type", "yarn");
  keys.f32("rope.scaling.factor", rope.number({"factor"}));
  keys.u32("rope.scaling.original_context_length",
           rope.integer_or({"original_max_position_embeddings"},
                           keys.config().integer({"max_position_embeddings"})));
  keys.f32("rope.scaling.yarn_beta_fast", rope.number_or({"beta_fast"}, 32));
  keys.f32("rope.scaling.yarn_beta_slow", rope.number_or({"beta_slow"}, 1));
}

void rotation(KeyWriter& keys, std::int64_t dim) {
  const HfConfig& config = keys.config();
  const HfConfig rope = config.rope();
  const double theta = rope_theta(config);
  keys.u32("rope.dimension_count", dim);
  keys.f32("rope.freq_base", theta);
  std::string type = rope.text_or({"rope_type", "type"}, "default");
  if (rope.find({"long_factor"}) != nullptr) type = "longrope";
  if (type == "default") return;
  if (type == "llama3") {
    keys.table("rope_freqs.weight", llama3_factors(rope, theta, dim));
  } else if (type == "longrope" || type == "su") {
    longrope(keys, rope);
  } else if (type == "yarn") {
    yarn(keys, rope);
  } else if (type == "linear") {
    keys.text("rope.scaling.type", "linear");
    keys.f32("rope.scaling.factor", rope.number({"factor"}));
  } else {
    fail(ErrorKind::kUnsupported, "{}: rope_type '{}', which a GGUF file cannot say", config.what(),
         type);
  }
}

// What the descendants of Llama share.
void llama_like(KeyWriter& keys) {
  const HfConfig& config = keys.config();
  keys.sizes(config.integer({"max_position_embeddings"}), config.integer({"intermediate_size"}));
  keys.u32("attention.key_length", keys.head_dim());
  keys.u32("attention.value_length", keys.head_dim());
  keys.f32("attention.layer_norm_rms_epsilon", config.number({"rms_norm_eps"}));
  rotation(keys, rotary_dim(config, keys.head_dim()));
}

void llama(KeyWriter& keys) {
  const HfConfig& config = keys.config();
  config.require({"hidden_act"}, {"silu"});
  llama_like(keys);
  const std::string type = config.text_or({"model_type"}, "");
  if (type == "mixtral") {
    keys.experts(config.integer({"num_local_experts"}), config.integer({"num_experts_per_tok"}));
  }
  if (type != "llama" && config.find({"sliding_window"}) != nullptr) {
    keys.u32("attention.sliding_window", config.integer({"sliding_window"}));
    keys.ignored("sliding_window (llama.cpp attends to everything in this architecture)");
  }
}

void qwen(KeyWriter& keys) {
  const HfConfig& config = keys.config();
  config.require({"hidden_act"}, {"silu"});
  if (config.flag_or({"use_sliding_window"}, false)) {
    fail(ErrorKind::kUnsupported, "{}: use_sliding_window, which a GGUF file cannot say",
         config.what());
  }
  llama_like(keys);
}

void gemma2(KeyWriter& keys) {
  const HfConfig& config = keys.config();
  config.require({"hidden_activation", "hidden_act"}, {"gelu_pytorch_tanh"});
  llama_like(keys);
  keys.f32("attn_logit_softcapping", config.number_or({"attn_logit_softcapping"}, 50));
  keys.f32("final_logit_softcapping", config.number_or({"final_logit_softcapping"}, 30));
  keys.u32("attention.sliding_window", config.integer_or({"sliding_window"}, 4096));
  // llama.cpp knows the one size that divides by something else by its layers.
  constexpr std::int64_t kLayersOf27b = 46;
  const std::int64_t heads = config.integer({"num_attention_heads"});
  const std::int64_t known = config.integer({"num_hidden_layers"}) == kLayersOf27b
                                 ? keys.hidden() / heads
                                 : keys.head_dim();
  if (config.integer_or({"query_pre_attn_scalar"}, 256) != known) {
    fail(ErrorKind::kUnsupported, "{}: query_pre_attn_scalar {}, and a GGUF file can say {} alone",
         config.what(), config.integer_or({"query_pre_attn_scalar"}, 256), known);
  }
}

void phi3(KeyWriter& keys) {
  const HfConfig& config = keys.config();
  config.require({"hidden_act"}, {"silu"});
  llama_like(keys);
  keys.u32("attention.sliding_window", config.integer_or({"sliding_window"}, 0));
  const bool has_factors = config.rope().find({"long_factor"}) != nullptr;
  if (!has_factors) {
    keys.u32("rope.scaling.original_context_length",
             config.integer_or({"original_max_position_embeddings"},
                               config.integer({"max_position_embeddings"})));
  }
}

void gpt2(KeyWriter& keys) {
  const HfConfig& config = keys.config();
  config.require({"activation_function"}, {"gelu_new", "gelu_pytorch_tanh"});
  if (config.flag_or({"scale_attn_by_inverse_layer_idx"}, false)) {
    fail(ErrorKind::kUnsupported, "{}: scale_attn_by_inverse_layer_idx in a GGUF file",
         config.what());
  }
  keys.sizes(config.integer({"n_positions", "n_ctx"}),
             config.integer_or({"n_inner"}, 4 * keys.hidden()));
  keys.f32("attention.layer_norm_epsilon", config.number_or({"layer_norm_epsilon"}, 1e-5));
}

void bloom(KeyWriter& keys) {
  const HfConfig& config = keys.config();
  if (config.flag_or({"apply_residual_connection_post_layernorm"}, false)) {
    fail(ErrorKind::kUnsupported, "{}: apply_residual_connection_post_layernorm in a GGUF file",
         config.what());
  }
  keys.sizes(config.integer_or({"seq_length"}, 2048), 4 * keys.hidden());
  keys.f32("attention.layer_norm_epsilon", config.number_or({"layer_norm_epsilon"}, 1e-5));
}

void gpt_neox(KeyWriter& keys) {
  const HfConfig& config = keys.config();
  config.require({"hidden_act"}, {"gelu"});
  keys.sizes(config.integer({"max_position_embeddings"}), config.integer({"intermediate_size"}));
  keys.f32("attention.layer_norm_epsilon", config.number({"layer_norm_eps"}));
  keys.flag("use_parallel_residual", config.flag_or({"use_parallel_residual"}, true));
  rotation(keys, rotary_dim(config, keys.head_dim(), 0.25));
}

void bert(KeyWriter& keys) {
  const HfConfig& config = keys.config();
  config.require({"hidden_act"}, {"gelu"});
  config.require({"position_embedding_type"}, {"absolute"});
  keys.sizes(config.integer({"max_position_embeddings"}), config.integer({"intermediate_size"}));
  keys.f32("attention.layer_norm_epsilon", config.number({"layer_norm_eps"}));
  keys.flag("attention.causal", false);
}

struct Builder {
  std::string_view model_type;
  const char* arch;
  void (*build)(KeyWriter&);
};
constexpr Builder kBuilders[] = {
    {"llama", "llama", llama}, {"mistral", "llama", llama},      {"mixtral", "llama", llama},
    {"qwen2", "qwen2", qwen},  {"qwen3", "qwen3", qwen},         {"gemma2", "gemma2", gemma2},
    {"phi3", "phi3", phi3},    {"gpt2", "gpt2", gpt2},           {"bloom", "bloom", bloom},
    {"bert", "bert", bert},    {"gpt_neox", "gptneox", gpt_neox}};

}  // namespace

GgufKeys keys_for_gguf(const Json& config, std::string_view what) {
  const HfConfig reader(config, what);
  const std::string type = reader.text_or({"model_type"}, "");
  const auto builder = std::ranges::find(kBuilders, type, &Builder::model_type);
  if (builder == std::end(kBuilders)) {
    std::string known;
    for (const Builder& b : kBuilders) {
      known += (known.empty() ? "" : ", ") + std::string(b.model_type);
    }
    fail(ErrorKind::kUnsupported, "{}: model_type '{}'; as GGUF nibble writes {}", what,
         type.substr(0, 64), known);
  }
  GgufKeys keys;
  KeyWriter writer(reader, builder->arch, keys);
  builder->build(writer);
  return keys;
}

}  // namespace nibble
