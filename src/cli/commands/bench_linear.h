// `nibble bench linear`.
#pragma once

#include "cli/command.h"

namespace nibble::cli {

void add_bench_linear(CLI::App* bench, Context& context);

}  // namespace nibble::cli
