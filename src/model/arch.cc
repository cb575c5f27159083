#include "model/arch.h"

#include <algorithm>

#include "base/error.h"
#include "model/config_reader.h"

namespace nibble {

#define NIBBLE_ARCH(name, ...) ModelSpec build_##name(const Json& config);
#include "model/registry.def"
#undef NIBBLE_ARCH

const std::vector<Arch>& archs() {
  static const std::vector<Arch> kArchs = {
#define NIBBLE_ARCH(name, ...) {#name, {__VA_ARGS__}, build_##name},
#include "model/registry.def"
#undef NIBBLE_ARCH
  };
  return kArchs;
}

ModelSpec build_spec(const Json& config) {
  const std::string type = ConfigReader(config).text_or({"model_type"}, "");
  if (type.empty()) fail(ErrorKind::kCorrupt, "config.json: 'model_type' is missing");
  for (const Arch& arch : archs()) {
    if (std::ranges::find(arch.model_types, type) != arch.model_types.end()) {
      return arch.build(config);
    }
  }
  std::string known;
  for (const Arch& arch : archs()) known += (known.empty() ? "" : ", ") + std::string(arch.name);
  fail(ErrorKind::kUnsupported, "config.json: model_type '{}'; nibble has {}", type, known);
}

}  // namespace nibble
