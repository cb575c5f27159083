// The subcommands of `nibble study` beside bits.
#pragma once

#include "cli/command.h"

namespace nibble::cli {

void add_study_scaling(CLI::App* study, Context& context);
void add_study_outliers(CLI::App* study, Context& context);

}  // namespace nibble::cli
