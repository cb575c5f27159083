#include "checkpoint/input_transforms.h"

#include <algorithm>

#include "base/error.h"
#include "checkpoint/json_members.h"
#include "checkpoint/module_patterns.h"
#include "formats/weight_source.h"

namespace nibble {
namespace {

constexpr std::size_t kMaxNames = 10'000;
constexpr std::int64_t kMaxBlock = std::int64_t{1} << 30;

// A string, or a list of them.
std::vector<NamePattern> names(const Json& entry, const char* key, const std::string& what) {
  std::vector<NamePattern> result;
  const Json* listed = member(entry, key);
  if (listed == nullptr) return result;
  const Json list = listed->is_string() ? Json::array({*listed}) : *listed;
  if (!list.is_array() || list.size() > kMaxNames) {
    fail(ErrorKind::kCorrupt, "{}: '{}' is no list of at most {} names", what, key, kMaxNames);
  }
  for (const Json& name : list) {
    if (!name.is_string()) fail(ErrorKind::kCorrupt, "{}: '{}' holds no string", what, key);
    result.emplace_back(name.get<std::string>());
  }
  return result;
}

// Whether an entry of a scheme changes what is computed from the stored weights.
bool acts(const std::string& location, const std::string& what) {
  if (location == "input") return true;
  if (location == "weight_input" || location == "weight_output") return false;
  if (location == "q_attn" || location == "k_cache") return false;
  fail(ErrorKind::kUnsupported, "{}: a transform at '{}'; nibble has them at 'input'", what,
       location);
}

}  // namespace

InputTransforms::InputTransforms(const Json& quantization_config, const std::string& what) {
  const Json* config = member(quantization_config, "transform_config");
  if (config == nullptr || config->empty()) return;
  const std::string where = what + ": transform_config";
  const Json* groups = config->is_object() ? member(*config, "config_groups") : nullptr;
  if (groups == nullptr || !groups->is_object()) {
    fail(ErrorKind::kCorrupt, "{}: no object 'config_groups'", where);
  }
  if (groups->size() > kMaxNames) {
    fail(ErrorKind::kCorrupt, "{}: more than {} groups", where, kMaxNames);
  }
  for (const auto& [name, scheme] : groups->items()) {
    add_scheme(scheme, where + " '" + name + "'");
  }
}

void InputTransforms::add_scheme(const Json& scheme, const std::string& what) {
  const Json* apply = scheme.is_object() ? member(scheme, "apply") : nullptr;
  if (apply == nullptr || !apply->is_array() || apply->size() > kMaxNames) {
    fail(ErrorKind::kCorrupt, "{}: no list 'apply'", what);
  }
  for (const Json& args : *apply) {
    if (!args.is_object()) fail(ErrorKind::kCorrupt, "{}: 'apply' holds no object", what);
    if (!acts(text_member(args, "location", "", what), what)) continue;
    const std::string type = text_member(scheme, "type", "", what);
    if (type != "hadamard" || bool_member(scheme, "randomize", false, what)) {
      fail(ErrorKind::kUnsupported, "{}: a transform of type '{}'{}; nibble has 'hadamard'", what,
           type, type == "hadamard" ? " of random order" : "");
    }
    Entry entry{names(args, "targets", what), names(args, "ignore", what), 0};
    entry.block = int_member(scheme, "head_dim", WeightSource::kWholeInput, what);
    if (entry.block != WeightSource::kWholeInput && (entry.block < 1 || entry.block > kMaxBlock)) {
      fail(ErrorKind::kCorrupt, "{}: head_dim {}", what, entry.block);
    }
    entries_.push_back(std::move(entry));
  }
}

std::int64_t InputTransforms::block(const std::string& module) const {
  const auto matches = [&](const NamePattern& pattern) { return pattern.matches(module); };
  std::int64_t block = 0;
  for (const Entry& entry : entries_) {
    if (!std::ranges::any_of(entry.targets, matches)) continue;
    if (std::ranges::any_of(entry.ignore, matches)) continue;
    if (block != 0) {
      fail(ErrorKind::kUnsupported, "module '{}': two transforms of its input", module);
    }
    block = entry.block;
  }
  return block;
}

Json transform_config(const std::map<std::string, std::int64_t>& blocks,
                      const std::vector<std::string>& all) {
  std::map<std::string, std::size_t> modules_of_pattern;
  for (const std::string& module : all) ++modules_of_pattern[layer_pattern(module)];
  std::map<std::int64_t, std::vector<std::string>> by_block;
  for (const auto& [module, block] : blocks) by_block[block].push_back(module);
  Json groups = Json::object();
  for (const auto& [block, members] : by_block) {
    groups[fmt::format("input_hadamard_{}", block)] = {
        {"type", "hadamard"},
        {"apply",
         {{{"targets", narrow_targets(members, modules_of_pattern)},
           {"location", "input"},
           {"inverse", false},
           {"ignore", Json::array()}}}},
        {"randomize", false},
        {"requires_grad", false},
        {"head_dim", block},
        {"precision", "torch.float32"},
    };
  }
  return {{"config_groups", std::move(groups)}};
}

}  // namespace nibble
