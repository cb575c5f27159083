// Names of modules as few regular expressions over the layers, for the configs that are written.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace nibble {

// "model.layers.3.mlp.up_proj" -> "re:^model\\.layers\\.\\d+\\.mlp\\.up_proj$"
std::string layer_pattern(const std::string& module);

// A target, a name or "re:" and an expression, as a bare regular expression.
std::string target_expression(const std::string& target);

// Names `members` and nothing else of all modules: by one pattern over the layers where all modules
// of the pattern are members, or else one by one. "Linear" is never used beside other targets: an
// engine that fuses layers may try the class before the names.
std::vector<std::string> narrow_targets(
    const std::vector<std::string>& members,
    const std::map<std::string, std::size_t>& modules_of_pattern);

}  // namespace nibble
