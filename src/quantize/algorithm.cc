#include "quantize/algorithm.h"

#include <algorithm>

#include "base/error.h"

namespace nibble {

#define NIBBLE_ALGORITHM(name) Algorithm make_##name();
#include "quantize/registry.def"
#undef NIBBLE_ALGORITHM

std::string to_string(StepKind kind) {
  switch (kind) {
    case StepKind::kRewrite:
      return "rewrite";
    case StepKind::kTransform:
      return "transform";
    case StepKind::kSearch:
      return "search";
    case StepKind::kSolver:
      return "solver";
    case StepKind::kCorrection:
      return "correction";
  }
  return "";
}

const std::vector<Algorithm>& algorithms() {
  static const std::vector<Algorithm> all = {
#define NIBBLE_ALGORITHM(name) make_##name(),
#include "quantize/registry.def"
#undef NIBBLE_ALGORITHM
  };
  return all;
}

const Algorithm* find_algorithm(const std::string& name) {
  const auto found = std::ranges::find(algorithms(), name, &Algorithm::name);
  return found == algorithms().end() ? nullptr : &*found;
}

double number(const Parameters& parameters, const std::string& name) {
  return std::get<double>(parameters.at(name));
}
bool flag(const Parameters& parameters, const std::string& name) {
  return std::get<bool>(parameters.at(name));
}
const std::string& text(const Parameters& parameters, const std::string& name) {
  return std::get<std::string>(parameters.at(name));
}

}  // namespace nibble
