#include "model/rope_config.h"

#include <array>
#include <utility>

#include "base/error.h"

namespace nibble {
namespace {

constexpr std::int64_t kMaxPositions = std::int64_t{1} << 31;
constexpr double kHuge = 1e15;

RopeKind rope_kind(const ConfigReader& parameters) {
  constexpr std::array<std::pair<const char*, RopeKind>, 7> kKinds = {{
      {"default", RopeKind::kDefault},
      {"linear", RopeKind::kLinear},
      {"dynamic", RopeKind::kDynamic},
      {"llama3", RopeKind::kLlama3},
      {"yarn", RopeKind::kYarn},
      {"longrope", RopeKind::kLongRope},
      {"su", RopeKind::kLongRope},  // the first name that Phi-3 gave it
  }};
  const std::string legacy = parameters.text_or({"type"}, "default");
  std::string name = parameters.text_or({"rope_type"}, legacy);
  // Early Phi-3 files say yarn and mean longrope; only the latter has these lists.
  if (name == "yarn" && parameters.has("long_factor")) name = "longrope";
  for (const auto& [known, kind] : kKinds) {
    if (name == known) return kind;
  }
  fail(ErrorKind::kUnsupported, "{}: rope_type '{}'", parameters.where(), name);
}

// Reads one set of parameters; `config` is the top level, which older files use.
class RopeReader {
 public:
  RopeReader(const ConfigReader& config, const ConfigReader& parameters,
             const RopeDefaults& defaults)
      : config_(config), parameters_(parameters), defaults_(defaults) {}

  RopeSpec read() {
    spec_.kind = rope_kind(parameters_);
    spec_.max_positions = defaults_.max_positions;
    spec_.theta = parameters_.number_or({"rope_theta"}, 1e-6, kHuge, top_level_theta());
    spec_.rotary_dim = rotary_dim();
    if (spec_.kind != RopeKind::kDefault) read_scaling();
    return spec_;
  }

 private:
  double top_level_theta() const {
    return config_.number_or({"rotary_emb_base"}, 1e-6, kHuge,
                             config_.number_or({"rope_theta"}, 1e-6, kHuge, defaults_.theta));
  }

  std::int64_t rotary_dim() const {
    const double top_level =
        config_.number_or({"partial_rotary_factor", "rotary_pct"}, 0, 1, defaults_.partial_factor);
    const double factor = parameters_.number_or({"partial_rotary_factor"}, 0, 1, top_level);
    if (!defaults_.partial && factor != 1) {
      fail(ErrorKind::kUnsupported, "{}: partial_rotary_factor {} in this architecture",
           config_.where(), factor);
    }
    const auto dim = static_cast<std::int64_t>(static_cast<double>(defaults_.head_dim) * factor);
    if (dim + dim % 2 > defaults_.head_dim) {
      fail(ErrorKind::kUnsupported, "{}: rotary embedding over an odd head size {}",
           config_.where(), defaults_.head_dim);
    }
    return dim;
  }

  void read_scaling() {
    switch (spec_.kind) {
      case RopeKind::kDefault:
        break;
      case RopeKind::kLinear:
        spec_.factor = parameters_.number({"factor"}, 1e-6, kHuge);
        break;
      case RopeKind::kDynamic:
        read_dynamic();
        break;
      case RopeKind::kLlama3:
        read_llama3();
        break;
      case RopeKind::kYarn:
        read_yarn();
        break;
      case RopeKind::kLongRope:
        read_longrope();
        break;
    }
  }

  void read_dynamic() {
    spec_.factor = parameters_.number({"factor"}, 1, kHuge);
    if (spec_.rotary_dim <= 2) {
      fail(ErrorKind::kUnsupported, "{}: dynamic scaling of {} rotary elements",
           parameters_.where(), spec_.rotary_dim);
    }
    require_max_positions();
  }

  void read_llama3() {
    read_original_positions();
    spec_.factor = parameters_.number({"factor"}, 1e-6, kHuge);
    spec_.low_freq_factor = parameters_.number({"low_freq_factor"}, 1e-6, kHuge);
    spec_.high_freq_factor = parameters_.number({"high_freq_factor"}, 1e-6, kHuge);
    if (spec_.low_freq_factor == spec_.high_freq_factor) {
      fail(ErrorKind::kCorrupt, "{}: low_freq_factor and high_freq_factor are both {}",
           parameters_.where(), spec_.low_freq_factor);
    }
  }

  void read_yarn() {
    read_original_positions();
    read_factor();
    read_attention_factor();
    if (parameters_.has("mscale")) spec_.mscale = parameters_.number({"mscale"}, 0, kHuge);
    if (parameters_.has("mscale_all_dim")) {
      spec_.mscale_all_dim = parameters_.number({"mscale_all_dim"}, 0, kHuge);
    }
    // Zero means the default here, as in transformers.
    spec_.beta_fast = parameters_.number_or({"beta_fast"}, 0, kHuge, 32);
    spec_.beta_slow = parameters_.number_or({"beta_slow"}, 0, kHuge, 1);
    if (spec_.beta_fast == 0) spec_.beta_fast = 32;
    if (spec_.beta_slow == 0) spec_.beta_slow = 1;
    spec_.truncate = parameters_.flag_or({"truncate"}, true);
    if (spec_.theta == 1) fail(ErrorKind::kCorrupt, "{}: rope_theta 1", parameters_.where());
  }

  void read_longrope() {
    read_original_positions();
    read_factor();
    read_attention_factor();
    spec_.short_factor = parameters_.numbers("short_factor", 1e-6, kHuge);
    spec_.long_factor = parameters_.numbers("long_factor", 1e-6, kHuge);
    const auto needed = static_cast<std::size_t>((spec_.rotary_dim + 1) / 2);
    for (const auto* list : {&spec_.short_factor, &spec_.long_factor}) {
      if (list->size() != needed) {
        fail(ErrorKind::kCorrupt, "{}: {} has {} values, {} are needed", parameters_.where(),
             list == &spec_.short_factor ? "short_factor" : "long_factor", list->size(), needed);
      }
    }
  }

  void require_max_positions() const {
    if (defaults_.max_positions <= 0) {
      fail(ErrorKind::kCorrupt, "{}: 'max_position_embeddings' is missing", config_.where());
    }
  }

  // A top-level value goes before that of the parameters.
  void read_original_positions() {
    const char* key = "original_max_position_embeddings";
    std::int64_t fallback = defaults_.original_max_positions;
    if (config_.has(key)) {
      fallback = config_.integer({key}, 1, kMaxPositions);
    } else if (parameters_.has(key) && fallback == 0) {
      fallback = parameters_.integer({key}, 1, kMaxPositions);
    }
    if (fallback == 0) {
      require_max_positions();
      fallback = defaults_.max_positions;
    }
    spec_.original_max_positions = fallback;
  }

  void read_factor() {
    if (parameters_.has("factor")) {
      spec_.factor = parameters_.number({"factor"}, 1e-6, kHuge);
    } else {
      require_max_positions();
      spec_.factor = static_cast<double>(defaults_.max_positions) /
                     static_cast<double>(spec_.original_max_positions);
    }
  }

  void read_attention_factor() {
    if (parameters_.has("attention_factor")) {
      spec_.attention_factor = parameters_.number({"attention_factor"}, 0, kHuge);
    }
  }

  const ConfigReader& config_;
  const ConfigReader& parameters_;
  const RopeDefaults& defaults_;
  RopeSpec spec_;
};

}  // namespace

void read_rope(const ConfigReader& config, const RopeDefaults& defaults, AttentionSpec& attention) {
  const Json empty = Json::object();
  const char* key = config.has("rope_scaling") && !config.json()["rope_scaling"].empty()
                        ? "rope_scaling"
                        : "rope_parameters";
  const ConfigReader parameters =
      config.has(key) ? config.object(key) : ConfigReader(empty, config.where());
  if (!parameters.has("full_attention") && !parameters.has("sliding_attention")) {
    attention.rope = RopeReader(config, parameters, defaults).read();
    return;
  }
  const auto nested = [&](const char* layer_type) {
    return RopeReader(config, parameters.object(layer_type), defaults).read();
  };
  if (parameters.has("full_attention")) attention.rope = nested("full_attention");
  if (parameters.has("sliding_attention")) attention.window_rope = nested("sliding_attention");
  if (!attention.rope) attention.rope = attention.window_rope;
}

}  // namespace nibble
