// `nibble quantize` where the output is a GGUF file.
#pragma once

#include "cli/command.h"
#include "cli/quantize_options.h"

namespace nibble::cli {

// By the name of the output.
bool writes_gguf(const QuantizeArguments& arguments);

// kUsage for options that mean nothing there.
void run_gguf_quantization(const QuantizeArguments& arguments, Context& context);

}  // namespace nibble::cli
