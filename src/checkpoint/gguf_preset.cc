#include "checkpoint/gguf_preset.h"

#include <algorithm>
#include <cctype>

#include "base/error.h"

namespace nibble {
namespace {

using enum BlockType;

GgufType plain(DType type) { return gguf_type_of(type).value(); }

enum class Role {
  kOther,
  kOutput,
  kEmbedding,
  kQuery,
  kKey,
  kValue,
  kQkv,
  kAttentionOutput,
  kGate,
  kUp,
  kDown
};

Role role_of(std::string_view name) {
  constexpr std::pair<std::string_view, Role> kRoles[] = {
      {"attn_qkv.weight", Role::kQkv}, {"attn_v.weight", Role::kValue},
      {"attn_k.weight", Role::kKey},   {"attn_q.weight", Role::kQuery},
      {"ffn_up", Role::kUp},           {"attn_output.weight", Role::kAttentionOutput},
      {"ffn_gate", Role::kGate},       {"ffn_down", Role::kDown}};
  if (name == "output.weight") return Role::kOutput;
  if (name == "token_embd.weight") return Role::kEmbedding;
  for (const auto& [part, role] : kRoles) {
    if (name.find(part) != std::string_view::npos) return role;
  }
  return Role::kOther;
}

// The rules of one preset, for one tensor.
class Rules {
 public:
  Rules(const GgufMixture& mixture, Role role, std::int64_t layer, std::int64_t cols)
      : mixture_(mixture),
        preset_(mixture.preset->name),
        role_(role),
        layer_(layer),
        cols_(cols),
        type_(mixture.preset->base) {}

  GgufType apply() {
    if (!type_.block) return type_;
    if (preset_ == "MXFP4_MOE") return type_of_mxfp4_moe();
    switch (role_) {
      case Role::kOutput:
        head();
        break;
      case Role::kEmbedding:
        if (!mixture_.has_output) {
          head();
        } else if (is({"TQ1_0", "TQ2_0"})) {
          set(kQ4_K);
        }
        break;
      case Role::kValue:
      case Role::kQkv:
        value();
        break;
      case Role::kKey:
        if (mixture_.experts == 8) set(kQ8_0);
        break;
      case Role::kAttentionOutput:
        attention_output();
        break;
      case Role::kDown:
        down();
        break;
      default:
        break;
    }
    return type_;
  }

  // Experts are 3-dimensional there; all else is Q8_0.
  GgufType type_of_mxfp4_moe() const {
    const bool expert = mixture_.experts > 1 &&
                        (role_ == Role::kGate || role_ == Role::kUp || role_ == Role::kDown);
    return expert ? type_ : gguf_type_of(kQ8_0);
  }

 private:
  bool is(std::initializer_list<std::string_view> presets) const {
    return std::ranges::find(presets, preset_) != presets.end();
  }
  void set(BlockType type) { type_ = gguf_type_of(type); }
  // The first and the last eighth of the layers, and every third between.
  bool more_bits() const {
    const std::int64_t n = mixture_.layers;
    return layer_ < n / 8 || layer_ >= 7 * n / 8 || (layer_ - n / 8) % 3 == 2;
  }
  bool in_first(std::int64_t share) const { return layer_ < mixture_.layers / share; }
  bool shares_heads() const { return mixture_.heads / mixture_.kv_heads >= 4; }

  void head() {
    if (cols_ % type_.elements() != 0) {
      set(kQ8_0);
    } else if (type_.block != kQ8_0) {
      set(kQ6_K);
    }
  }

  void value() {
    if (is({"Q2_K"})) set(shares_heads() ? kQ4_K : kQ3_K);
    if (is({"Q2_K_S"}) && shares_heads()) set(kQ4_K);
    if (is({"Q3_K_M"})) set(layer_ < 2 ? kQ5_K : kQ4_K);
    if (is({"Q3_K_L"})) set(kQ5_K);
    if (is({"IQ4_NL", "IQ4_XS"}) && shares_heads()) set(kQ5_K);
    if (is({"Q4_K_M", "Q5_K_M"}) && more_bits()) set(kQ6_K);
    if (is({"Q4_K_S"}) && layer_ < 4) set(kQ5_K);
    constexpr std::int64_t kLayersOf70b = 80;
    const bool is_70b =
        mixture_.is_llama && mixture_.layers == kLayersOf70b && mixture_.heads != mixture_.kv_heads;
    if (is_70b && (type_.block == kQ3_K || type_.block == kQ4_K)) set(kQ5_K);
    if (mixture_.experts == 8) set(kQ8_0);
  }

  void attention_output() {
    if (mixture_.experts == 8) {
      if (is({"Q2_K", "Q3_K_S", "Q3_K_M", "IQ4_NL", "Q4_K_S", "Q4_K_M", "IQ4_XS"})) set(kQ5_K);
      return;
    }
    if (is({"Q2_K"})) set(kQ3_K);
    if (is({"Q3_K_M"})) set(kQ4_K);
    if (is({"Q3_K_L"})) set(kQ5_K);
  }

  void down() {
    if (is({"Q2_K"})) set(kQ3_K);
    if (is({"Q2_K_S"}) && in_first(8)) set(kQ4_K);
    if (is({"Q3_K_M"})) set(in_first(16) ? kQ5_K : kQ4_K);
    if (is({"Q3_K_L"})) set(kQ5_K);
    if (is({"Q4_K_M", "Q5_K_M"}) && more_bits()) set(kQ6_K);
    if (is({"Q4_K_S"}) && in_first(8)) set(kQ5_K);
    if (!in_first(8)) return;
    if (is({"IQ4_NL", "IQ4_XS"}) && !mixture_.has_imatrix) set(kQ5_K);
    if (is({"Q4_0"}) && mixture_.has_imatrix) set(kQ4_1);
    if (is({"Q5_0"}) && mixture_.has_imatrix) set(kQ5_1);
  }

  const GgufMixture& mixture_;
  std::string_view preset_;
  Role role_;
  std::int64_t layer_, cols_;
  GgufType type_;
};

// A type of smaller blocks for rows that the blocks do not divide.
GgufType fitting(GgufType type, std::int64_t cols) {
  if (cols % type.elements() == 0) return type;
  constexpr std::pair<BlockType, BlockType> kSmaller[] = {
      {kIq4Xs, kIq4Nl}, {kQ2_K, kQ4_0}, {kQ3_K, kQ4_0}, {kTq1_0, kQ4_0},
      {kTq2_0, kQ4_0},  {kQ4_K, kQ5_0}, {kQ5_K, kQ5_1}, {kQ6_K, kQ8_0}};
  const auto smaller =
      std::ranges::find(kSmaller, type.block, &std::pair<BlockType, BlockType>::first);
  if (smaller != std::end(kSmaller)) type = gguf_type_of(smaller->second);
  return cols % type.elements() == 0 ? type : plain(DType::kF16);
}

}  // namespace

const std::vector<GgufPreset>& gguf_presets() {
  static const std::vector<GgufPreset> presets = {
      {"F32", 0, plain(DType::kF32)},          {"F16", 1, plain(DType::kF16)},
      {"BF16", 32, plain(DType::kBF16)},       {"Q8_0", 7, gguf_type_of(kQ8_0)},
      {"Q4_0", 2, gguf_type_of(kQ4_0)},        {"Q4_1", 3, gguf_type_of(kQ4_1)},
      {"Q5_0", 8, gguf_type_of(kQ5_0)},        {"Q5_1", 9, gguf_type_of(kQ5_1)},
      {"Q2_K", 10, gguf_type_of(kQ2_K)},       {"Q2_K_S", 21, gguf_type_of(kQ2_K)},
      {"Q3_K_S", 11, gguf_type_of(kQ3_K)},     {"Q3_K_M", 12, gguf_type_of(kQ3_K)},
      {"Q3_K_L", 13, gguf_type_of(kQ3_K)},     {"Q4_K_S", 14, gguf_type_of(kQ4_K)},
      {"Q4_K_M", 15, gguf_type_of(kQ4_K)},     {"Q5_K_S", 16, gguf_type_of(kQ5_K)},
      {"Q5_K_M", 17, gguf_type_of(kQ5_K)},     {"Q6_K", 18, gguf_type_of(kQ6_K)},
      {"IQ4_NL", 25, gguf_type_of(kIq4Nl)},    {"IQ4_XS", 30, gguf_type_of(kIq4Xs)},
      {"TQ1_0", 36, gguf_type_of(kTq1_0)},     {"TQ2_0", 37, gguf_type_of(kTq2_0)},
      {"MXFP4_MOE", 38, gguf_type_of(kMxfp4)}, {"NVFP4", 39, gguf_type_of(kNvfp4)},
  };
  return presets;
}

const GgufPreset& find_gguf_preset(std::string_view name) {
  std::string capitals(name), names;
  std::ranges::transform(capitals, capitals.begin(),
                         [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  for (const GgufPreset& preset : gguf_presets()) {
    if (capitals == preset.name) return preset;
    names += (names.empty() ? "" : ", ") + std::string(preset.name);
  }
  fail(ErrorKind::kUsage, "no preset '{}'; there are {}", name, names);
}

bool gguf_can_quantize(std::string_view name, std::size_t dims) {
  constexpr std::string_view kNever[] = {"_norm.weight", "ffn_gate_inp.weight", "position_embd",
                                         "token_types"};
  if (dims < 2 || !name.ends_with("weight")) return false;
  return std::ranges::none_of(
      kNever, [&](std::string_view part) { return name.find(part) != std::string_view::npos; });
}

GgufType gguf_type_in(const GgufMixture& mixture, std::string_view name, std::int64_t layer,
                      std::int64_t cols) {
  const GgufType type = Rules(mixture, role_of(name), layer, cols).apply();
  return type.block ? fitting(type, cols) : type;
}

std::uint32_t gguf_file_type_of(const GgufType& type) {
  // The preset without exceptions, where a type has one.
  const auto found = std::ranges::find_if(gguf_presets(), [&](const GgufPreset& preset) {
    return preset.base.id == type.id && !std::string_view(preset.name).ends_with("_M") &&
           !std::string_view(preset.name).ends_with("_L");
  });
  constexpr std::uint32_t kGuessed = 1024;
  return found == gguf_presets().end() ? kGuessed : found->file_type;
}

}  // namespace nibble
