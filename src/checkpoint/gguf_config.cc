// The sizes of a model, from the keys of a GGUF file to those of config.json.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "checkpoint/gguf_arch.h"

namespace nibble {
namespace {

// Keys of one architecture: get("embedding_length") is "<arch>.embedding_length".
class Keys {
 public:
  Keys(const Json& metadata, std::string arch, std::string_view what)
      : metadata_(metadata), arch_(std::move(arch)), what_(what) {}

  const Json* find(const std::string& key) const {
    const auto found = metadata_.find(arch_ + "." + key);
    return found == metadata_.end() ? nullptr : &*found;
  }
  bool has(const std::string& key) const { return find(key) != nullptr; }

  // A key may hold one number for each layer; all must be equal.
  Json number(const std::string& key) const {
    const Json* value = find(key);
    if (value == nullptr) {
      fail(ErrorKind::kCorrupt, "{}: key '{}.{}' is missing", what_, arch_, key);
    }
    const Json& one = value->is_array() && !value->empty() ? value->front() : *value;
    if (!one.is_number()) {
      fail(ErrorKind::kCorrupt, "{}: key '{}.{}' is no number", what_, arch_, key);
    }
    const bool unlike =
        value->is_array() && std::ranges::any_of(*value, [&](const Json& v) { return v != one; });
    if (unlike) {
      fail(ErrorKind::kUnsupported, "{}: key '{}.{}' differs between layers", what_, arch_, key);
    }
    return one;
  }
  std::int64_t integer(const std::string& key) const {
    constexpr std::int64_t kMost = std::int64_t{1} << 40;
    const Json value = number(key);
    if (!value.is_number_integer() || value < 1 || value > kMost) {
      fail(ErrorKind::kCorrupt, "{}: key '{}.{}' is {}", what_, arch_, key, value.dump());
    }
    return value.get<std::int64_t>();
  }
  Json number_or(const std::string& key, const Json& fallback) const {
    return has(key) ? number(key) : fallback;
  }
  std::string text_or(const std::string& key, const std::string& fallback) const {
    const Json* value = find(key);
    return value != nullptr && value->is_string() ? value->get<std::string>() : fallback;
  }
  bool flag_or(const std::string& key, bool fallback) const {
    const Json* value = find(key);
    return value != nullptr && value->is_boolean() ? value->get<bool>() : fallback;
  }

 private:
  const Json& metadata_;
  std::string arch_;
  std::string_view what_;
};

// float32 values as the short decimal numbers that they came from: 1e-05, not 9.99999975e-06.
double decimal(const Json& value) {
  if (!value.is_number_float()) return value.get<double>();
  return std::stod(fmt::format("{}", value.get<float>()));
}

const GgufTensor* find(const std::vector<GgufTensor>& tensors, std::string_view name) {
  const auto found = std::ranges::find(tensors, name, &GgufTensor::name);
  return found == tensors.end() ? nullptr : &*found;
}

std::int64_t rows_of(const std::vector<GgufTensor>& tensors, const char* name,
                     std::string_view what) {
  const GgufTensor* tensor = find(tensors, name);
  if (tensor == nullptr || tensor->shape.size() != 2) {
    fail(ErrorKind::kCorrupt, "{}: no matrix '{}'", what, name);
  }
  return tensor->shape[0];
}

Json heads_of_keys(const Keys& keys) {
  return keys.number_or("attention.head_count_kv", keys.number("attention.head_count"));
}

// Which kind of rotation is scaled how. `factors` are what each frequency is divided by.
Json rope_scaling(const Keys& keys, const std::vector<double>& factors) {
  const std::string type = keys.text_or("rope.scaling.type", "none");
  const Json original =
      keys.number_or("rope.scaling.original_context_length", keys.number("context_length"));
  if (!factors.empty()) {
    return {{"rope_type", "longrope"},
            {"short_factor", factors},
            {"long_factor", factors},
            {"factor", 1.0},
            {"attention_factor", decimal(keys.number_or("rope.scaling.attn_factor", 1.0))},
            {"original_max_position_embeddings", original}};
  }
  if (type == "none" || type == "longrope") return nullptr;
  Json scaling = {{"rope_type", type}, {"factor", decimal(keys.number("rope.scaling.factor"))}};
  if (type == "yarn") {
    scaling["original_max_position_embeddings"] = original;
    if (keys.has("rope.scaling.yarn_beta_fast")) {
      scaling["beta_fast"] = decimal(keys.number("rope.scaling.yarn_beta_fast"));
      scaling["beta_slow"] = decimal(keys.number("rope.scaling.yarn_beta_slow"));
    }
  }
  return scaling;
}

// What the descendants of Llama share.
Json llama_like(const Keys& keys, const std::vector<double>& factors) {
  const std::int64_t heads = keys.integer("attention.head_count");
  const std::int64_t hidden = keys.integer("embedding_length");
  Json config = {{"hidden_size", hidden},
                 {"num_hidden_layers", keys.number("block_count")},
                 {"intermediate_size", keys.number("feed_forward_length")},
                 {"num_attention_heads", heads},
                 {"num_key_value_heads", heads_of_keys(keys)},
                 {"head_dim", keys.number_or("attention.key_length", hidden / heads)},
                 {"rms_norm_eps", decimal(keys.number("attention.layer_norm_rms_epsilon"))},
                 {"rope_theta", decimal(keys.number_or("rope.freq_base", 10000.0))},
                 {"max_position_embeddings", keys.number("context_length")},
                 {"hidden_act", "silu"}};
  const Json scaling = rope_scaling(keys, factors);
  if (!scaling.is_null()) config["rope_scaling"] = scaling;
  return config;
}

Json llama(const Keys& keys, const std::vector<GgufTensor>& tensors,
           const std::vector<double>& factors) {
  Json config = llama_like(keys, factors);
  config["model_type"] = "llama";
  config["architectures"] = {"LlamaForCausalLM"};
  config["attention_bias"] = find(tensors, "blk.0.attn_output.bias") != nullptr;
  config["mlp_bias"] = find(tensors, "blk.0.ffn_down.bias") != nullptr;
  if (keys.number_or("expert_count", 0) != 0) {
    config["model_type"] = "mixtral";
    config["architectures"] = {"MixtralForCausalLM"};
    config["num_local_experts"] = keys.number("expert_count");
    config["num_experts_per_tok"] = keys.number("expert_used_count");
  } else if (keys.has("attention.sliding_window")) {
    config["model_type"] = "mistral";
    config["architectures"] = {"MistralForCausalLM"};
  }
  config["sliding_window"] = keys.number_or("attention.sliding_window", nullptr);
  return config;
}

Json qwen2(const Keys& keys, const std::vector<GgufTensor>& /*tensors*/,
           const std::vector<double>& factors) {
  Json config = llama_like(keys, factors);
  config["model_type"] = "qwen2";
  config["architectures"] = {"Qwen2ForCausalLM"};
  return config;
}

Json qwen3(const Keys& keys, const std::vector<GgufTensor>& tensors,
           const std::vector<double>& factors) {
  Json config = llama_like(keys, factors);
  config["model_type"] = "qwen3";
  config["architectures"] = {"Qwen3ForCausalLM"};
  config["attention_bias"] = find(tensors, "blk.0.attn_q.bias") != nullptr;
  return config;
}

Json gemma2(const Keys& keys, const std::vector<GgufTensor>& /*tensors*/,
            const std::vector<double>& factors) {
  Json config = llama_like(keys, factors);
  config["model_type"] = "gemma2";
  config["architectures"] = {"Gemma2ForCausalLM"};
  config["hidden_activation"] = "gelu_pytorch_tanh";
  config["attn_logit_softcapping"] = decimal(keys.number_or("attn_logit_softcapping", 50.0));
  config["final_logit_softcapping"] = decimal(keys.number_or("final_logit_softcapping", 30.0));
  config["sliding_window"] = keys.number_or("attention.sliding_window", 4096);
  // llama.cpp knows the one size that divides by something else by its layers.
  constexpr int kLayersOf27b = 46;
  config["query_pre_attn_scalar"] = config["head_dim"];
  if (config["num_hidden_layers"] == kLayersOf27b) {
    config["query_pre_attn_scalar"] =
        keys.integer("embedding_length") / keys.integer("attention.head_count");
  }
  return config;
}

Json phi3(const Keys& keys, const std::vector<GgufTensor>& /*tensors*/,
          const std::vector<double>& factors) {
  Json config = llama_like(keys, factors);
  config["model_type"] = "phi3";
  config["architectures"] = {"Phi3ForCausalLM"};
  config["sliding_window"] = nullptr;
  const Json window = keys.number_or("attention.sliding_window", 0);
  if (window != 0) config["sliding_window"] = window;
  config["original_max_position_embeddings"] =
      keys.number_or("rope.scaling.original_context_length", keys.number("context_length"));
  const auto head_dim = config["head_dim"].get<double>();
  config["partial_rotary_factor"] =
      keys.number_or("rope.dimension_count", head_dim).get<double>() / head_dim;
  return config;
}

Json gpt2(const Keys& keys, const std::vector<GgufTensor>& /*tensors*/,
          const std::vector<double>& /*factors*/) {
  return {{"model_type", "gpt2"},
          {"architectures", {"GPT2LMHeadModel"}},
          {"n_embd", keys.number("embedding_length")},
          {"n_layer", keys.number("block_count")},
          {"n_head", keys.number("attention.head_count")},
          {"n_positions", keys.number("context_length")},
          {"n_inner", keys.number("feed_forward_length")},
          {"activation_function", "gelu_new"},
          {"layer_norm_epsilon", decimal(keys.number("attention.layer_norm_epsilon"))}};
}

Json bloom(const Keys& keys, const std::vector<GgufTensor>& /*tensors*/,
           const std::vector<double>& /*factors*/) {
  return {{"model_type", "bloom"},
          {"architectures", {"BloomForCausalLM"}},
          {"hidden_size", keys.number("embedding_length")},
          {"n_layer", keys.number("block_count")},
          {"n_head", keys.number("attention.head_count")},
          {"layer_norm_epsilon", decimal(keys.number("attention.layer_norm_epsilon"))}};
}

Json gpt_neox(const Keys& keys, const std::vector<GgufTensor>& /*tensors*/,
              const std::vector<double>& /*factors*/) {
  const auto heads = keys.number("attention.head_count").get<double>();
  const auto hidden = keys.number("embedding_length").get<double>();
  return {{"model_type", "gpt_neox"},
          {"architectures", {"GPTNeoXForCausalLM"}},
          {"hidden_size", keys.number("embedding_length")},
          {"num_hidden_layers", keys.number("block_count")},
          {"intermediate_size", keys.number("feed_forward_length")},
          {"num_attention_heads", keys.number("attention.head_count")},
          {"max_position_embeddings", keys.number("context_length")},
          {"rotary_pct", keys.number("rope.dimension_count").get<double>() * heads / hidden},
          {"rotary_emb_base", decimal(keys.number_or("rope.freq_base", 10000.0))},
          {"use_parallel_residual", keys.flag_or("use_parallel_residual", true)},
          {"hidden_act", "gelu"},
          {"layer_norm_eps", decimal(keys.number("attention.layer_norm_epsilon"))}};
}

Json bert(const Keys& keys, const std::vector<GgufTensor>& tensors,
          const std::vector<double>& /*factors*/) {
  const GgufTensor* types = find(tensors, "token_types.weight");
  return {{"model_type", "bert"},
          {"architectures", {"BertModel"}},
          {"hidden_size", keys.number("embedding_length")},
          {"num_hidden_layers", keys.number("block_count")},
          {"intermediate_size", keys.number("feed_forward_length")},
          {"num_attention_heads", keys.number("attention.head_count")},
          {"max_position_embeddings", keys.number("context_length")},
          {"type_vocab_size", types == nullptr ? 2 : types->shape.front()},
          {"hidden_act", "gelu"},
          {"layer_norm_eps", decimal(keys.number("attention.layer_norm_epsilon"))}};
}

using Builder = Json (*)(const Keys&, const std::vector<GgufTensor>&, const std::vector<double>&);
constexpr std::pair<std::string_view, Builder> kBuilders[] = {
    {"llama", llama}, {"qwen2", qwen2}, {"qwen3", qwen3},      {"gemma2", gemma2}, {"phi3", phi3},
    {"gpt2", gpt2},   {"bloom", bloom}, {"gptneox", gpt_neox}, {"bert", bert}};

void add_token_ids(const Json& metadata, Json& config) {
  constexpr std::pair<const char*, const char*> kIds[] = {{"bos_token_id", "bos_token_id"},
                                                          {"padding_token_id", "pad_token_id"}};
  const auto id = [&](const char* name) {
    return metadata.value(std::string("tokenizer.ggml.") + name, Json());
  };
  for (const auto& [gguf, name] : kIds) {
    if (id(gguf).is_number_integer()) config[name] = id(gguf);
  }
  // Generation ends with any of these.
  Json ends = Json::array();
  for (const char* name : {"eos_token_id", "eot_token_id", "eom_token_id"}) {
    const Json end = id(name);
    if (end.is_number_integer() && std::ranges::find(ends, end) == ends.end()) ends.push_back(end);
  }
  if (ends.size() == 1) config["eos_token_id"] = ends[0];
  if (ends.size() > 1) config["eos_token_id"] = ends;
}

}  // namespace

Json config_from_gguf(const Json& metadata, const std::vector<GgufTensor>& tensors,
                      const std::vector<double>& rope_factors, std::string_view what) {
  const Json name = metadata.value("general.architecture", Json());
  if (!name.is_string()) {
    fail(ErrorKind::kCorrupt, "{}: key 'general.architecture' is missing", what);
  }
  const auto arch = name.get<std::string>();
  const auto builder =
      std::ranges::find(kBuilders, arch, [](const auto& row) { return std::string(row.first); });
  if (builder == std::end(kBuilders)) {
    std::string known;
    for (const auto& [gguf, function] : kBuilders) {
      known += (known.empty() ? "" : ", ") + std::string(gguf);
    }
    fail(ErrorKind::kUnsupported, "{}: architecture '{}'; of GGUF nibble has {}", what,
         arch.substr(0, 64), known);
  }
  Json config = builder->second(Keys(metadata, arch, what), tensors, rope_factors);
  config["vocab_size"] = rows_of(tensors, "token_embd.weight", what);
  if (arch != "bert") config["tie_word_embeddings"] = find(tensors, "output.weight") == nullptr;
  const bool bf16 = std::ranges::any_of(
      tensors, [](const GgufTensor& t) { return t.type.dtype == DType::kBF16 && !t.type.block; });
  config["torch_dtype"] = bf16 ? "bfloat16" : "float16";
  add_token_ids(metadata, config);
  return config;
}

}  // namespace nibble
