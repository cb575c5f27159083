// The subcommands of `nibble study` beside bits.
#pragma once

#include <string>

#include "cli/command.h"

namespace nibble::cli {

// What reports call a model: the last part of its path.
std::string label_of(const std::string& model);

void add_study_scaling(CLI::App* study, Context& context);
void add_study_outliers(CLI::App* study, Context& context);

}  // namespace nibble::cli
