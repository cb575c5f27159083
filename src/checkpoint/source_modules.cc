#include "checkpoint/source_modules.h"

#include <algorithm>
#include <iterator>
#include <set>

namespace nibble {

std::string module_of(const std::string& tensor) {
  return tensor.substr(0, std::min(tensor.find(".weight."), tensor.rfind('.')));
}

bool is_embedding(const std::string& module) {
  const std::string last = module.substr(module.rfind('.') + 1);
  return last.find("embed") != std::string::npos || last == "wte" || last == "wpe";
}

bool is_quantized(const Checkpoint& checkpoint, const std::string& module) {
  const std::string weight = module + ".weight";
  if (!checkpoint.has_linear(module)) return false;
  return !checkpoint.has(weight) || !is_float_weight(checkpoint.tensor(weight).dtype());
}

SourceModules list_modules(const Checkpoint& checkpoint) {
  SourceModules modules;
  std::set<std::string> seen, quantized;
  const std::vector<std::string> tensors = checkpoint.names();
  for (const std::string& name : tensors) {
    const std::string module = module_of(name);
    if (!seen.insert(module).second || !is_quantized(checkpoint, module)) continue;
    quantized.insert(module);
    modules.quantized.push_back(module);
  }
  std::ranges::copy_if(tensors, std::back_inserter(modules.plain), [&](const std::string& name) {
    const std::string module = module_of(name);
    return !quantized.contains(module) || name == module + ".bias";
  });
  return modules;
}

}  // namespace nibble
