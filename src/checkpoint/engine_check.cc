#include "checkpoint/engine_check.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <span>

#include "base/error.h"
#include "checkpoint/gguf_keys.h"
#include "checkpoint/gguf_layout.h"
#include "checkpoint/name_pattern.h"
#include "checkpoint/source_modules.h"

namespace nibble {
namespace {

// Modules that vLLM makes one of.
constexpr std::array<std::array<std::string_view, 3>, 3> kFused = {
    {{"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"}, {"w1", "w3"}}};
// Whose columns are cut where a matrix is shared among devices; rows are cut of all others.
constexpr std::string_view kCutByColumns[] = {"o_proj", "down_proj",     "w2",  "dense",
                                              "c_proj", "dense_4h_to_h", "fc2", "out_proj"};

std::string parent_of(const std::string& module) { return module.substr(0, module.rfind('.') + 1); }
std::string last_of(const std::string& module) { return module.substr(module.rfind('.') + 1); }

class VllmCheck {
 public:
  VllmCheck(const Checkpoint& checkpoint, const std::string& engine, std::int64_t parallel)
      : checkpoint_(checkpoint), engine_(engine), parallel_(parallel) {}

  std::vector<EngineFinding> run() {
    if (!reads_convention()) return std::move(findings_);
    const SourceModules modules = list_modules(checkpoint_);
    for (const std::string& module : modules.quantized) {
      const QuantTensor weight = checkpoint_.linear(module);
      formats_[module] = weight.format->name();
      check_place(module);
      check_shape(module, weight);
    }
    check_fused();
    check_ignored(modules.plain);
    return std::move(findings_);
  }

 private:
  void refuse(const std::string& module, const std::string& what) {
    findings_.push_back({true, module, what});
  }
  void warn(const std::string& module, const std::string& what) {
    findings_.push_back({false, module, what});
  }

  bool reads_convention() {
    const std::string convention = checkpoint_.convention();
    const auto read_by = [&](const char* reader) {
      refuse("", fmt::format("convention '{}' is read by {} alone; `nibble convert --to "
                             "compressed-tensors` (or hf)",
                             convention, reader));
      return false;
    };
    if (convention == "nibble" || convention == "llama2c") return read_by("nibble");
    if (convention == "exl2" || convention == "exl3") return read_by("ExLlama");
    if (convention == "gguf" && engine_ == "vllm") {
      refuse("", "GGUF is read by a plugin of vLLM (vllm-gguf-plugin), no longer by itself");
    }
    return convention != "gguf";
  }

  void check_place(const std::string& module) {
    if (is_embedding(module)) {
      refuse(module, "a quantized table of embeddings; leave it in 16 bits");
    } else if (last_of(module) == "lm_head" && checkpoint_.convention() != "gptq") {
      refuse(module, "a quantized head; leave it in 16 bits");
    }
  }

  // The part of one device, and kernels that take it.
  void check_shape(const std::string& module, const QuantTensor& weight) {
    const bool by_columns =
        std::ranges::find(kCutByColumns, last_of(module)) != std::end(kCutByColumns);
    const std::int64_t rows = by_columns ? weight.rows : weight.rows / parallel_;
    const std::int64_t cols = by_columns ? weight.cols / parallel_ : weight.cols;
    if (rows * (by_columns ? 1 : parallel_) != weight.rows ||
        cols * (by_columns ? parallel_ : 1) != weight.cols) {
      return refuse(module, fmt::format("[{}, {}] cannot be shared among {} devices", weight.rows,
                                        weight.cols, parallel_));
    }
    const WeightDescriptor& descriptor = weight.format->descriptor();
    if (!weight.format->is_affine()) return;
    const std::int64_t group = descriptor.scheme.group;
    const bool grouped = descriptor.scheme.granularity == Granularity::kGroup;
    if (grouped && cols % group != 0) {
      return refuse(module,
                    fmt::format("{} columns of each device break groups of {}", cols, group));
    }
    const int bits = descriptor.element.bits;
    if (bits != 4 && bits != 8) {
      warn(module, fmt::format("{} bits: kernels for 4 and 8 are everywhere, others in late "
                               "versions only",
                               bits));
    } else if (grouped && group != 32 && group != 64 && group != 128) {
      warn(module,
           fmt::format("groups of {}: fast kernels take 32, 64, 128 and whole rows", group));
    } else if (rows % 64 != 0 || cols % 128 != 0) {
      warn(module,
           fmt::format("[{}, {}] of each device: Marlin takes rows in 64s and columns in 128s",
                       rows, cols));
    }
  }

  // Members of a fused group, and all experts of a layer, share one scheme.
  void check_fused() {
    std::set<std::string> parents;
    for (const auto& [module, format] : formats_) parents.insert(parent_of(module));
    for (const std::string& parent : parents) {
      for (const auto& group : kFused) check_group(parent, group);
    }
    std::map<std::string, std::string> of_experts;
    for (const auto& [module, format] : formats_) {
      const std::size_t at = module.find(".experts.");
      if (at == std::string::npos) continue;
      const auto [first, fresh] = of_experts.emplace(module.substr(0, at), format);
      if (!fresh && first->second != format) {
        refuse(module, "experts of one layer in " + first->second + " and " + format +
                           "; they must share one scheme");
        first->second = format;
      }
    }
  }

  void check_group(const std::string& parent, std::span<const std::string_view> members) {
    std::string first, first_format;
    for (const std::string_view member : members) {
      const std::string module = parent + std::string(member);
      if (member.empty() || !checkpoint_.has_linear(module)) continue;
      const auto found = formats_.find(module);
      const std::string format = found == formats_.end() ? "16 bits" : found->second;
      if (first.empty()) {
        first = module;
        first_format = format;
      } else if (format != first_format) {
        refuse(module, fmt::format("{} beside {} of '{}', with which it is fused; quantize both "
                                   "alike, or neither",
                                   format, first_format, first));
      }
    }
  }

  // compressed-tensors: plain linears must be ignored, or a scheme is expected of them.
  void check_ignored(const std::vector<std::string>& plain) {
    const Json config = checkpoint_.config().value("quantization_config", Json());
    if (checkpoint_.convention() != "compressed-tensors" || !config.is_object()) return;
    std::vector<NamePattern> ignored;
    const Json ignore = config.value("ignore", Json::array());
    const Json groups = config.value("config_groups", Json::object());
    for (const Json& entry : ignore) {
      if (entry.is_string()) ignored.emplace_back(entry.get<std::string>());
    }
    std::vector<NamePattern> targets;
    bool all_linears = false;
    for (const Json& group : groups) {
      const Json named = group.value("targets", Json::array());
      for (const Json& target : named) {
        if (target == "Linear") all_linears = true;
        if (target.is_string()) targets.emplace_back(target.get<std::string>());
      }
    }
    const auto in = [](const std::vector<NamePattern>& patterns, const std::string& module) {
      return std::ranges::any_of(patterns, [&](const auto& p) { return p.matches(module); });
    };
    for (const std::string& tensor : plain) {
      const std::string module = module_of(tensor);
      const bool linear = tensor.ends_with(".weight") && !is_embedding(module) &&
                          checkpoint_.tensor(tensor).shape().size() == 2;
      if (!linear || in(ignored, module)) continue;
      if (all_linears || in(targets, module)) {
        refuse(module, "plain weights that 'config_groups' claims; name it in 'ignore'");
      }
    }
  }

  const Checkpoint& checkpoint_;
  const std::string& engine_;
  std::int64_t parallel_;
  std::vector<EngineFinding> findings_;
  std::map<std::string, std::string> formats_;  // of quantized modules
};

// What a GGUF file of it would lack; of a file, what llama.cpp does otherwise.
std::vector<EngineFinding> check_for_llama_cpp(const Checkpoint& checkpoint) {
  std::vector<EngineFinding> findings;
  const bool is_file = checkpoint.convention() == "gguf";
  if (!is_file) {
    findings.push_back({true, "", "llama.cpp reads GGUF alone; `nibble convert --to gguf`"});
  }
  try {
    const GgufKeys keys = keys_for_gguf(checkpoint.config(), checkpoint.path().string());
    for (const std::string& key : keys.ignored) findings.push_back({false, "", key});
    for (const std::string& tensor : gguf_layout(checkpoint, *keys.arch).left_out) {
      findings.push_back({false, module_of(tensor), tensor + " has no place in GGUF"});
    }
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kUnsupported) throw;
    findings.push_back({true, "", error.what()});
  }
  for (const std::string& note : checkpoint.notes()) findings.push_back({false, "", note});
  return findings;
}

}  // namespace

const std::vector<std::string>& engine_names() {
  static const std::vector<std::string> names = {"vllm", "sglang", "llama.cpp"};
  return names;
}

std::vector<EngineFinding> check_for_engine(const Checkpoint& checkpoint, const std::string& engine,
                                            std::int64_t parallel) {
  if (std::ranges::find(engine_names(), engine) == engine_names().end() || parallel < 1) {
    fail(ErrorKind::kUsage, "no engine '{}' on {} devices; there are vllm, sglang, llama.cpp",
         engine, parallel);
  }
  if (engine == "llama.cpp") return check_for_llama_cpp(checkpoint);
  return VllmCheck(checkpoint, engine, parallel).run();
}

}  // namespace nibble
