#include "checkpoint/compressed_tensors_config.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <string_view>

#include "base/error.h"
#include "checkpoint/json_members.h"

namespace nibble {
namespace {

constexpr std::size_t kMaxPatterns = 10'000;
constexpr std::array<std::string_view, 7> kFormats = {
    "pack-quantized",       "int-quantized",        "naive-quantized", "float-quantized",
    "nvfp4-pack-quantized", "mxfp4-pack-quantized", "mxfp8-quantized"};

void check_format(const std::string& format, const std::string& what) {
  if (std::ranges::find(kFormats, format) == kFormats.end()) {
    fail(ErrorKind::kUnsupported, "{}: compressed-tensors format '{}'", what, format);
  }
}

// "block_structure": [rows, cols].
void parse_block(const Json& weights, CompressedArgs& args, const std::string& what) {
  const Json* block = member(weights, "block_structure");
  constexpr std::int64_t kMaxBlock = 1 << 20;
  const auto is_size = [](const Json& j) {
    return j.is_number_integer() && j.get<std::int64_t>() >= 1 &&
           j.get<std::int64_t>() <= kMaxBlock;
  };
  if (block == nullptr || !block->is_array() || block->size() != 2 || !is_size((*block)[0]) ||
      !is_size((*block)[1])) {
    fail(ErrorKind::kCorrupt, "{}: strategy 'block' without block_structure [rows, cols]", what);
  }
  args.granularity = Granularity::kBlock;
  args.block_rows = (*block)[0].get<std::int64_t>();
  args.group = (*block)[1].get<std::int64_t>();
}

void parse_strategy(const Json& weights, CompressedArgs& args, const std::string& what) {
  const Json* group = member(weights, "group_size");
  const std::int64_t group_size = int_member(weights, "group_size", -1, what);
  const std::string inferred = group == nullptr ? "tensor" : group_size > 0 ? "group" : "channel";
  const std::string strategy = text_member(weights, "strategy", inferred, what);
  if (strategy == "group" || (args.is_float && strategy == "tensor_group")) {
    if (group_size <= 0) fail(ErrorKind::kCorrupt, "{}: group_size {}", what, group_size);
    args.granularity = Granularity::kGroup;
    args.group = group_size;
  } else if (strategy == "channel") {
    args.granularity = Granularity::kChannel;
  } else if (args.is_float && strategy == "block") {
    parse_block(weights, args, what);
  } else if (strategy != "tensor") {
    fail(ErrorKind::kUnsupported, "{}: strategy '{}' of {} weights", what, strategy,
         args.is_float ? "floating-point" : "integer");
  }
}

CompressedArgs parse_args(const Json& weights, const std::string& what) {
  if (!weights.is_object()) fail(ErrorKind::kCorrupt, "{}: 'weights' is no object", what);
  const std::string type = text_member(weights, "type", "int", what);
  const std::int64_t bits = int_member(weights, "num_bits", 8, what);
  CompressedArgs args;
  args.is_float = type == "float";
  const bool known =
      args.is_float ? bits == 4 || bits == 8 : type == "int" && bits >= 2 && bits <= 8;
  if (!known) {
    fail(ErrorKind::kUnsupported,
         "{}: {}-bit weights of type '{}'; 2- to 8-bit int, and float of 4 and 8 are supported",
         what, bits, type);
  }
  args.bits = static_cast<int>(bits);
  args.symmetric = bool_member(weights, "symmetric", true, what);
  parse_strategy(weights, args, what);
  return args;
}

// What activations are rounded to; nothing when nibble has no such format.
std::optional<ActivationDescriptor> parse_input(const Json& input, const std::string& what) {
  if (!input.is_object()) fail(ErrorKind::kCorrupt, "{}: 'input_activations' is no object", what);
  const std::string type = text_member(input, "type", "int", what);
  const std::int64_t bits = int_member(input, "num_bits", 8, what);
  const std::int64_t group = int_member(input, "group_size", -1, what);
  ActivationDescriptor d;
  if (type == "float" && bits == 8) {
    d.element = {.kind = ElementKind::kFloatBits, .bits = 8};
  } else if (type != "int" || bits < 2 || bits > 8) {
    return std::nullopt;
  }
  d.element.bits = static_cast<int>(bits);
  d.symmetric = type == "float" || bool_member(input, "symmetric", true, what);
  const Json* const dynamic = member(input, "dynamic");
  if (dynamic != nullptr && !dynamic->is_boolean()) return std::nullopt;  // "local": two levels
  d.is_static = dynamic == nullptr || !dynamic->get<bool>();
  const std::string strategy = text_member(input, "strategy",
                                           group > 0     ? "group"
                                           : d.is_static ? "tensor"
                                                         : "token",
                                           what);
  if (strategy == "token") {
    d.scope = ActivationScope::kToken;
  } else if (strategy == "tensor") {
    d.scope = ActivationScope::kTensor;
  } else if (strategy == "group" && group > 0) {
    d.scope = ActivationScope::kGroup;
    d.group = group;
  } else {
    return std::nullopt;
  }
  if (d.is_static && d.scope != ActivationScope::kTensor) return std::nullopt;
  return d;
}

// Packing became dense for every width in 0.17.
Packing packing_of_version(const std::string& version) {
  int major = 0, minor = 0;
  if (std::sscanf(version.c_str(), "%d.%d", &major, &minor) != 2) return Packing::kDense;
  return major == 0 && minor < 17 ? Packing::kPadded : Packing::kDense;
}

}  // namespace

CompressedConfig::CompressedConfig(const Json& config, const std::string& what) : what_(what) {
  const Json* groups = member(config, "config_groups");
  if (groups == nullptr || !groups->is_object()) {
    fail(ErrorKind::kCorrupt, "{}: quantization_config has no object 'config_groups'", what);
  }
  const std::string format = text_member(config, "format", "pack-quantized", what);
  if (format != "mixed-precision") check_format(format, what);
  if (member(config, "sparsity_config") != nullptr && !config["sparsity_config"].empty() &&
      text_member(config["sparsity_config"], "format", "dense", what) != "dense") {
    fail(ErrorKind::kUnsupported, "{}: sparse weights (sparsity_config)", what);
  }
  preferred_packing_ = packing_of_version(text_member(config, "version", "", what));
  for (const auto& [name, group] : groups->items()) add_group(group, name);
  if (const Json* ignore = member(config, "ignore")) {
    if (!ignore->is_array() || ignore->size() > kMaxPatterns) {
      fail(ErrorKind::kCorrupt, "{}: 'ignore' is no list of at most {} names", what, kMaxPatterns);
    }
    for (const Json& entry : *ignore) {
      if (!entry.is_string()) fail(ErrorKind::kCorrupt, "{}: 'ignore' holds no string", what);
      ignore_.emplace_back(entry.get<std::string>());
    }
  }
}

void CompressedConfig::add_group(const Json& group, const std::string& name) {
  const std::string what = what_ + ": config group '" + name + "'";
  if (!group.is_object()) {
    fail(ErrorKind::kUnsupported, "{}: a preset by name; write its arguments out", what);
  }
  if (member(group, "output_activations") != nullptr) ignored_ = "output_activations";
  const Json* weights = member(group, "weights");
  if (weights == nullptr) {
    if (member(group, "input_activations") != nullptr) {
      ignored_ = "input_activations of unquantized weights";
    }
    return;
  }
  const std::string format = text_member(group, "format", "pack-quantized", what);
  check_format(format, what);
  groups_.push_back(parse_args(*weights, what));
  if (const Json* input = member(group, "input_activations")) {
    groups_.back().input = parse_input(*input, what);
    if (!groups_.back().input) ignored_ = "input_activations " + input->dump();
  }
  const Json* targets = member(group, "targets");
  if (targets == nullptr || !targets->is_array() || targets->size() > kMaxPatterns) {
    fail(ErrorKind::kCorrupt, "{}: 'targets' is no list of at most {} names", what, kMaxPatterns);
  }
  add_targets(*targets, groups_.size() - 1, what);
}

void CompressedConfig::add_targets(const Json& targets, std::size_t index,
                                   const std::string& what) {
  for (const Json& target : targets) {
    if (!target.is_string()) fail(ErrorKind::kCorrupt, "{}: 'targets' holds no string", what);
    const auto& text = target.get_ref<const std::string&>();
    if (text.starts_with("re:")) {
      patterns_.emplace_back(NamePattern(text), index);
    } else if (text == "Linear") {
      if (linear_.has_value()) {
        fail(ErrorKind::kCorrupt, "{}: a second group targets 'Linear'", what);
      }
      linear_ = index;
    } else if (!exact_.emplace(text, index).second) {
      fail(ErrorKind::kCorrupt, "{}: '{}' is a target twice", what, text);
    }
  }
}

std::optional<std::size_t> CompressedConfig::find(const std::string& module) const {
  if (const auto found = exact_.find(module); found != exact_.end()) return found->second;
  for (const auto& [pattern, index] : patterns_) {
    if (pattern.matches(module)) return index;
  }
  return linear_;
}

const CompressedArgs& CompressedConfig::args(const std::string& module) const {
  for (const NamePattern& pattern : ignore_) {
    if (pattern.matches(module)) {
      fail(ErrorKind::kCorrupt, "{}: module '{}' is on the ignore list but stored quantized", what_,
           module);
    }
  }
  const std::optional<std::size_t> index = find(module);
  if (!index.has_value()) {
    fail(ErrorKind::kCorrupt, "{}: no config group targets the quantized module '{}'", what_,
         module);
  }
  return groups_[*index];
}

}  // namespace nibble
