#include "runtime/pooling.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace nibble {
namespace {

constexpr const char* kModules = "modules.json";

const Json& object_of(const Json& json, const std::string& what) {
  if (!json.is_object()) fail(ErrorKind::kCorrupt, "{}: not a JSON object", what);
  return json;
}

std::string string_at(const Json& object, const char* name, const std::string& what) {
  const auto at = object.find(name);
  if (at == object.end() || !at->is_string()) {
    fail(ErrorKind::kCorrupt, "{}: '{}' is not a string", what, name);
  }
  return at->get<std::string>();
}

// A flag for each way, or in newer files the name of one.
Pooling pooling_in(const Json& config, const std::string& what) {
  constexpr std::string_view kFlag = "pooling_mode_";
  std::vector<std::string> modes;
  if (const auto named = config.find("pooling_mode"); named != config.end()) {
    modes.push_back(string_at(config, "pooling_mode", what));
  } else {
    for (const auto& [name, value] : config.items()) {
      if (name.starts_with(kFlag) && value.is_boolean() && value.get<bool>()) {
        modes.push_back(name.substr(kFlag.size()));
      }
    }
  }
  if (modes.size() == 1 && (modes[0] == "mean_tokens" || modes[0] == "mean")) return Pooling::kMean;
  if (modes.size() == 1 && (modes[0] == "cls_token" || modes[0] == "cls")) return Pooling::kCls;
  fail(ErrorKind::kUnsupported, "{}: pooling by {}; nibble has the mean and the first token", what,
       modes.size() == 1 ? modes[0] : std::to_string(modes.size()) + " ways at once");
}

std::int64_t max_tokens_in(const Json& config) {
  constexpr std::int64_t kMost = std::int64_t{1} << 30;
  const auto at = config.find("max_seq_length");
  if (at == config.end() || !at->is_number_integer()) return 0;
  return std::clamp<std::int64_t>(at->get<std::int64_t>(), 0, kMost);
}

}  // namespace

PoolingRule read_pooling(const Json& modules,
                         const std::function<Json(const std::string& name)>& config_of) {
  if (!modules.is_array()) fail(ErrorKind::kCorrupt, "{}: not a list", kModules);
  PoolingRule rule;
  rule.normalize = false;
  bool pooled = false;
  for (const Json& module : modules) {
    const std::string type = string_at(object_of(module, kModules), "type", kModules);
    const std::string name = type.substr(type.rfind('.') + 1);
    if (name == "Pooling") {
      const std::string folder = string_at(module, "path", kModules);
      // A folder of the checkpoint, and nothing above it.
      if (folder.empty() || folder.find_first_of("./\\") != std::string::npos) {
        fail(ErrorKind::kCorrupt, "{}: '{}' is no folder beside it", kModules, folder);
      }
      const std::string file = folder + "/config.json";
      rule.pooling = pooling_in(object_of(config_of(file), file), file);
      pooled = true;
    } else if (name == "Normalize") {
      rule.normalize = true;
    } else if (name != "Transformer") {
      fail(ErrorKind::kUnsupported, "{}: a module of type '{}'", kModules, type);
    }
  }
  if (!pooled) fail(ErrorKind::kCorrupt, "{}: no module that pools", kModules);
  return rule;
}

PoolingRule pooling_of(const std::filesystem::path& checkpoint) {
  namespace fs = std::filesystem;
  PoolingRule rule;
  const fs::path modules = checkpoint / kModules;
  if (fs::is_directory(checkpoint) && fs::exists(modules)) {
    rule = read_pooling(read_json_file(modules.string()), [&](const std::string& name) {
      return read_json_file((checkpoint / name).string());
    });
  }
  const fs::path limits = checkpoint / "sentence_bert_config.json";
  if (fs::is_directory(checkpoint) && fs::exists(limits)) {
    rule.max_tokens = max_tokens_in(object_of(read_json_file(limits.string()), limits.string()));
  }
  return rule;
}

void pool_rows(Pooling pooling, const float* hidden, std::int64_t rows, std::int64_t cols,
               float* out) {
  if (pooling == Pooling::kCls) rows = 1;
  for (std::int64_t col = 0; col < cols; ++col) {
    double sum = 0;
    for (std::int64_t row = 0; row < rows; ++row) sum += hidden[row * cols + col];
    out[col] = static_cast<float>(sum / static_cast<double>(rows));
  }
}

}  // namespace nibble
