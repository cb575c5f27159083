// Options that round a model while it is loaded (fake quantization of any model), and what the
// report says about it.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "base/json.h"
#include "formats/registry.h"
#include "runtime/execution.h"

namespace nibble::cli {

struct RoundingArguments {
  std::string format;  // of the whole model; the others replace parts of it
  std::string weights;
  std::string activations;
  std::string embeddings;
};

// --weights, --activations, --embeddings; and --format with this help, unless that is empty.
void add_rounding_options(CLI::App* command, RoundingArguments& arguments,
                          const std::string& format_help);

// kUsage and kUnsupported as parse_model_format().
ModelFormat rounding_of(const RoundingArguments& arguments);

// [{part, format, modules, execution: "true" | "simulated"}]
Json execution_json(const Model& model);
// A line each; empty for a model of plain floats.
std::string execution_text(const Model& model);

}  // namespace nibble::cli
