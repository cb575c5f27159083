// config.json -> ModelSpec: spellings, defaults, and what is refused.
#include "model/arch.h"

#include <fstream>
#include <regex>
#include <set>

#include "model/oracles.h"
#include "support/exact_backend.h"

namespace nibble {
namespace {

Json golden_config(const std::string& name) {
  return read_json_file(
      (test::source_dir() / "tests/golden/archs" / name / "config.json").string());
}

Json llama() {
  return {{"model_type", "llama"},  {"vocab_size", 64},
          {"hidden_size", 32},      {"intermediate_size", 48},
          {"num_hidden_layers", 2}, {"num_attention_heads", 4},
          {"rms_norm_eps", 1e-6},   {"max_position_embeddings", 64}};
}

Json with(Json config, const std::string& key, Json value) {
  config[key] = std::move(value);
  return config;
}

Json without(Json config, const std::string& key) {
  config.erase(key);
  return config;
}

TEST(Registry, HasOneLineForEachFileOfArchs) {
  std::set<std::string> files;
  for (const auto& entry :
       std::filesystem::directory_iterator(test::source_dir() / "src/model/archs")) {
    if (entry.path().extension() == ".cc") files.insert(entry.path().stem().string());
  }
  std::set<std::string> names;
  for (const Arch& arch : archs()) names.insert(arch.name);
  EXPECT_EQ(names, files);
  EXPECT_EQ(names.size(), archs().size());
}

TEST(Registry, EveryArchitectureHasAGolden) {
  std::set<std::string> covered;
  for (const auto& path : test::directories_in(test::source_dir() / "tests/golden/archs")) {
    covered.insert(build_spec(golden_config(path.filename())).arch);
  }
  for (const Arch& arch : archs()) EXPECT_TRUE(covered.contains(arch.name)) << arch.name;
}

TEST(Config, DefaultsFollowTransformers) {
  const ModelSpec spec = build_spec(llama());
  EXPECT_EQ(spec.attention.kv_heads, 4);
  EXPECT_EQ(spec.attention.head_dim, 8);
  EXPECT_FALSE(spec.tied_head);
  EXPECT_EQ(spec.attention.rope->theta, 10000);
  EXPECT_EQ(build_spec(with(llama(), "num_key_value_heads", nullptr)).attention.kv_heads, 4);
  EXPECT_EQ(build_spec(with(llama(), "head_dim", nullptr)).attention.head_dim, 8);

  const auto typed = [](const char* type, int heads = 32) {
    const Json wide = with(with(llama(), "hidden_size", 256), "num_attention_heads", heads);
    return with(wide, "model_type", type);
  };
  EXPECT_EQ(build_spec(typed("qwen3")).attention.head_dim, 128);
  EXPECT_EQ(build_spec(typed("mixtral")).attention.rope->theta, 1e6);
  EXPECT_TRUE(build_spec(typed("gemma2")).tied_head);
  EXPECT_EQ(build_spec(typed("mistral")).attention.windows[0], 4096);
  EXPECT_EQ(build_spec(typed("mistral", 16)).attention.kv_heads, 8);
  EXPECT_EQ(build_spec(typed("mixtral", 16)).attention.kv_heads, 8);
  EXPECT_EQ(build_spec(typed("qwen2")).attention.kv_heads, 32);
  EXPECT_EQ(build_spec(typed("gemma2", 16)).attention.kv_heads, 4);
  Json null_heads = with(typed("mistral", 16), "num_key_value_heads", nullptr);
  EXPECT_EQ(build_spec(null_heads).attention.kv_heads, 16);
  Json no_window = with(typed("mistral"), "sliding_window", nullptr);
  EXPECT_EQ(build_spec(no_window).attention.windows[1], 0);
  EXPECT_TRUE(build_spec(golden_config("bloom_three_heads_old")).tied_head);
  const Json neox = without(golden_config("gpt_neox_serial_old"), "rotary_pct");
  EXPECT_EQ(build_spec(neox).attention.rope->rotary_dim, 2);  // a quarter of 8
}

TEST(Config, RopeOfEachLayerType) {
  Json config =
      with(golden_config("gemma2_old"), "rope_parameters",
           {{"full_attention", {{"rope_type", "linear"}, {"factor", 8.0}, {"rope_theta", 1e6}}},
            {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 1e4}}}});
  config.erase("rope_scaling");
  const AttentionSpec attention = build_spec(config).attention;
  EXPECT_EQ(attention.rope->kind, RopeKind::kLinear);
  EXPECT_EQ(attention.rope->theta, 1e6);
  ASSERT_TRUE(attention.window_rope);
  EXPECT_EQ(attention.window_rope->theta, 1e4);
  EXPECT_EQ(attention.windows, (std::vector<std::int64_t>{6, 0}));
}

TEST(Config, MissingOrAbsurdSizesAreCorrupt) {
  for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                          "num_attention_heads"}) {
    EXPECT_ERROR(build_spec(without(llama(), key)), ErrorKind::kCorrupt, key);
    const std::vector<Json> absurd = {0,
                                      -1,
                                      1e18,
                                      1e300,
                                      1.5,
                                      "64",
                                      true,
                                      Json::array(),
                                      std::int64_t{1} << 62,
                                      ~std::uint64_t{0}};
    for (const Json& value : absurd) {
      EXPECT_ERROR(build_spec(with(llama(), key, value)), ErrorKind::kCorrupt, key);
    }
  }
  EXPECT_ERROR(build_spec(with(llama(), "num_key_value_heads", 3)), ErrorKind::kCorrupt, "share");
  EXPECT_ERROR(build_spec(with(llama(), "num_attention_heads", 5)), ErrorKind::kCorrupt, "divide");
  EXPECT_ERROR(build_spec(with(llama(), "rms_norm_eps", -1)), ErrorKind::kCorrupt, "rms_norm_eps");
  EXPECT_ERROR(build_spec(with(llama(), "rms_norm_eps", std::nan(""))), ErrorKind::kCorrupt,
               "rms_norm_eps");
  EXPECT_ERROR(build_spec(with(llama(), "tie_word_embeddings", "yes")), ErrorKind::kCorrupt,
               "tie_word_embeddings");
  EXPECT_ERROR(build_spec(Json::array()), ErrorKind::kCorrupt, "object");
  EXPECT_ERROR(build_spec(without(llama(), "model_type")), ErrorKind::kCorrupt, "model_type");
}

// Every key of every golden, replaced by every kind of nonsense: an Error or a spec, nothing else.
TEST(Config, NonsenseUnderAnyKeyIsAnErrorOrIgnored) {
  const std::vector<Json> nonsense = {nullptr, 0,         -7,   1e18,          "x",
                                      true,    1e-40,     3.25, Json::array(), Json::object(),
                                      {1, 2},  {{"a", 1}}};
  int refused = 0;
  for (const auto& path : test::directories_in(test::source_dir() / "tests/golden/archs")) {
    const Json config = golden_config(path.filename());
    for (const auto& [key, ignored] : config.items()) {
      for (const Json& value : nonsense) {
        try {
          build_spec(with(config, key, value));
        } catch (const Error& error) {
          EXPECT_NE(error.kind(), ErrorKind::kInternal) << key << " " << error.what();
          ++refused;
        }
      }
    }
  }
  EXPECT_GT(refused, 1000);
}

TEST(Config, UnknownChoicesAreUnsupported) {
  const auto unsupported = [](const Json& config, const char* text) {
    EXPECT_ERROR(build_spec(config), ErrorKind::kUnsupported, text);
  };
  unsupported(with(llama(), "model_type", "mamba"), "mamba");
  unsupported(with(llama(), "hidden_act", "mish"), "mish");
  unsupported(with(llama(), "rope_scaling", {{"type", "mrope"}}), "mrope");
  unsupported(with(llama(), "rope_parameters", {{"rope_type", "proportional"}}), "proportional");
  unsupported(with(llama(), "partial_rotary_factor", 0.5), "partial_rotary_factor");
  unsupported(with(with(llama(), "hidden_size", 36), "num_attention_heads", 4), "odd head size");
  unsupported(with(golden_config("bert_relu_one_type"), "is_decoder", true), "is_decoder");
  unsupported(with(golden_config("bert_relu_one_type"), "position_embedding_type", "relative_key"),
              "relative_key");
  unsupported(with(golden_config("gpt2_unscaled_untied"), "add_cross_attention", true),
              "add_cross_attention");
  unsupported(with(golden_config("gemma2_old"), "use_bidirectional_attention", true),
              "use_bidirectional_attention");
  unsupported(with(golden_config("qwen3_windows_bias"), "layer_types",
                   {"full_attention", "linear_attention"}),
              "linear_attention");
}

TEST(Config, ContradictionsAreCorrupt) {
  const auto corrupt = [](const Json& config, const char* text) {
    EXPECT_ERROR(build_spec(config), ErrorKind::kCorrupt, text);
  };
  corrupt(with(golden_config("bloom_three_heads_old"), "hidden_size", 48), "n_embed");
  corrupt(with(golden_config("qwen3_windows_bias"), "layer_types", {"full_attention"}),
          "layer_types");
  corrupt(with(golden_config("qwen3_windows_bias"), "use_sliding_window", false), "sliding_window");
  corrupt(with(golden_config("mixtral_window_old"), "num_experts_per_tok", 5), "experts");
  corrupt(with(llama(), "rope_scaling", {{"type", "linear"}}), "factor");
  corrupt(with(llama(), "rope_scaling", "linear"), "object");
  corrupt(with(llama(), "rope_scaling", {{"rope_type", 3}}), "rope_type");
  Json phi3 = golden_config("phi3_longrope_short");
  phi3["rope_parameters"]["long_factor"] = {1.0};
  corrupt(phi3, "long_factor");
}

TEST(Loading, ShapesThatContradictTheConfigNameTheTensorAndBothShapes) {
  const auto path = test::source_dir() / "tests/golden/archs/llama_mqa_bias_headdim";
  const auto checkpoint = open_checkpoint(path);
  const auto backend = test::exact_backend();
  const auto load = [&](const std::string& key, Json value) {
    return Model(build_spec(with(checkpoint->config(), key, std::move(value))), *checkpoint,
                 *backend);
  };
  EXPECT_ERROR(load("vocab_size", 65), ErrorKind::kCorrupt,
               "'model.embed_tokens.weight': its shape is [64, 32], but config.json asks for "
               "[65, 32]");
  EXPECT_ERROR(load("intermediate_size", 50), ErrorKind::kCorrupt,
               "'model.layers.0.mlp.gate_proj.weight': its shape is [48, 32]");
  EXPECT_ERROR(load("num_key_value_heads", 2), ErrorKind::kCorrupt, "self_attn.k_proj.weight");
  EXPECT_ERROR(load("num_hidden_layers", 3), ErrorKind::kCorrupt, "model.layers.2.");
  EXPECT_ERROR(load("model_type", "qwen3"), ErrorKind::kCorrupt, "q_norm.weight");
  EXPECT_ERROR(load("model_type", "gpt2"), ErrorKind::kCorrupt, "transformer.wte.weight");

  const auto untied = open_checkpoint(test::source_dir() / "tests/golden/archs/qwen3_mqa_old");
  const ModelSpec spec = build_spec(with(untied->config(), "tie_word_embeddings", false));
  EXPECT_ERROR(Model(spec, *untied, *backend), ErrorKind::kCorrupt, "lm_head.weight");
}

TEST(Loading, TiedHeadsShareTheBytesOfTheEmbedding) {
  const auto backend = test::exact_backend();
  for (const char* name : {"qwen2_layer_types_tied", "qwen3_mqa_old"}) {  // one stores the head too
    const auto checkpoint = open_checkpoint(test::source_dir() / "tests/golden/archs" / name);
    const ModelSpec spec = build_spec(checkpoint->config());
    const EmbeddingWeights embedding = load_embedding(spec, *checkpoint, *backend);
    const HeadWeights head = load_head(spec, embedding, *checkpoint, *backend);
    EXPECT_EQ(head.head.weight.canonical.planes[0].bytes().data(),
              embedding.table.planes[0].bytes().data());
    EXPECT_EQ(embedding.table.planes[0].dtype(),
              std::string(name) == "qwen3_mqa_old" ? DType::kF32 : DType::kBF16);
  }
}

}  // namespace
}  // namespace nibble
