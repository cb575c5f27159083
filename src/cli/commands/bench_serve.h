// The part of `bench` that measures a server.
#pragma once

#include "cli/command.h"

namespace nibble::cli {

void add_bench_serve(CLI::App* bench, Context& context);

}  // namespace nibble::cli
