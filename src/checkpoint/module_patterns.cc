#include "checkpoint/module_patterns.h"

#include <algorithm>
#include <string_view>

namespace nibble {
namespace {

// The name as an expression; with `any_layer` every number in it stands for all numbers.
std::string expression_of(const std::string& module, bool any_layer) {
  std::string pattern = "^";
  std::size_t begin = 0;
  while (begin <= module.size()) {
    const std::size_t end = std::min(module.find('.', begin), module.size());
    const std::string part = module.substr(begin, end - begin);
    const bool number =
        any_layer && !part.empty() && part.find_first_not_of("0123456789") == std::string::npos;
    if (begin > 0) pattern += "\\.";
    if (number) {
      pattern += "\\d+";
    } else {
      for (const char c : part) {
        if (std::string_view("\\^$.|?*+()[]{}").find(c) != std::string_view::npos) pattern += '\\';
        pattern += c;
      }
    }
    begin = end + 1;
  }
  return pattern + "$";
}

}  // namespace

std::string layer_pattern(const std::string& module) { return "re:" + expression_of(module, true); }

std::string target_expression(const std::string& target) {
  return target.starts_with("re:") ? target.substr(3) : expression_of(target, false);
}

std::vector<std::string> narrow_targets(
    const std::vector<std::string>& members,
    const std::map<std::string, std::size_t>& modules_of_pattern) {
  std::map<std::string, std::vector<std::string>> by_pattern;
  for (const std::string& module : members) by_pattern[layer_pattern(module)].push_back(module);
  std::vector<std::string> targets;
  for (const auto& [pattern, modules] : by_pattern) {
    if (modules.size() > 1 && modules.size() == modules_of_pattern.at(pattern)) {
      targets.push_back(pattern);
    } else {
      for (const std::string& module : modules) targets.push_back(module);
    }
  }
  return targets;
}

}  // namespace nibble
