// The options that `quantize` and `plan` share.
#pragma once

#include <CLI/CLI.hpp>
#include <limits>
#include <string>
#include <vector>

#include "quantize/quantize.h"

namespace nibble::cli {

struct QuantizeArguments {
  std::string source;
  std::string output;
  std::string recipe = "best";
  std::string format;
  std::string preset;                  // of GGUF files
  int bits = 0;                        // 0: as the format says
  std::int64_t group = -1;             // -1: as the format says, 0: one scale a channel
  std::vector<std::string> overrides;  // REGEX=FORMAT
  std::vector<std::string> calibration_files;
  CalibrationOptions calibration = {0, 0, 0};
  std::string verify_text;
  std::int64_t verify_tokens = VerifyOptions{}.tokens;
  std::vector<std::string> formats;
  double target_bits = 0;
  std::uint64_t target_bytes = 0;
  double max_kl = 0;
  std::string measurements;
  bool measure_only = false;
  double fail_above_kl = std::numeric_limits<double>::infinity();
  std::uint64_t max_shard_bytes = QuantizeOptions{}.max_shard_bytes;
  bool resume = false;
  bool no_verify = false;
};

void add_quantize_options(CLI::App* command, QuantizeArguments& arguments);
// Of mixed precision, which `plan` cannot foresee.
void add_mixed_options(CLI::App* command, QuantizeArguments& arguments);

VerifyOptions verify_options(const QuantizeArguments& arguments);
// kUsage for formats and overrides that do not parse, and --bits or --group on a float format.
QuantizeOptions quantize_options(const QuantizeArguments& arguments);

}  // namespace nibble::cli
