#include "cli/rounding_options.h"

#include <fmt/format.h>

namespace nibble::cli {

void add_rounding_options(CLI::App* command, RoundingArguments& arguments,
                          const std::string& format_help) {
  if (!format_help.empty()) command->add_option("--format", arguments.format, format_help);
  command->add_option("--weights", arguments.weights,
                      "Round the blocks' weights to this format at load");
  command->add_option("--activations", arguments.activations,
                      "Round the inputs of the blocks' linear layers, as int8:token; ggml: as its "
                      "kernels do, of GGUF files");
  command->add_option("--embeddings", arguments.embeddings, "Round embedding and head at load");
}

ModelFormat rounding_of(const RoundingArguments& arguments) {
  ModelFormat result;
  if (!arguments.format.empty()) result = parse_model_format(arguments.format);
  std::string parts;
  const auto add = [&](const char* key, const std::string& value) {
    if (!value.empty()) parts += fmt::format("{}{}={}", parts.empty() ? "" : ",", key, value);
  };
  add("w", arguments.weights);
  add("a", arguments.activations);
  add("e", arguments.embeddings);
  if (parts.empty()) return result;
  const ModelFormat named = parse_model_format(parts);
  if (named.weights != nullptr) result.weights = named.weights;
  if (!arguments.activations.empty()) result.activations = named.activations;
  if (named.embeddings != nullptr) result.embeddings = named.embeddings;
  if (!named.scale_type_from_checkpoint) result.scale_type_from_checkpoint = false;
  return result;
}

Json execution_json(const Model& model) {
  Json rows = Json::array();
  for (const ExecutedPart& part : executed_parts(model)) {
    rows.push_back({{"part", part.part},
                    {"format", part.format},
                    {"modules", part.modules},
                    {"execution", part.is_true ? "true" : "simulated"}});
  }
  return rows;
}

std::string execution_text(const Model& model) {
  std::string text;
  for (const ExecutedPart& part : executed_parts(model)) {
    const char* const how = part.part != "activations" ? "kept as codes"
                            : part.is_true             ? "products of codes (true low-bit)"
                                           : "rounded, then multiplied in float32 (simulated)";
    text += fmt::format("{} {}: {} module{}, {}\n", part.part, part.format, part.modules,
                        part.modules == 1 ? "" : "s", how);
  }
  return text;
}

}  // namespace nibble::cli
