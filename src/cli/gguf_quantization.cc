#include "cli/gguf_quantization.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <utility>

#include "base/error.h"
#include "cli/terminal.h"
#include "cli/verify_output.h"
#include "quantize/gguf_pass.h"

namespace nibble::cli {
namespace {

// The types of a file are a preset's or one for all, and rounding is all that is done to weights.
void refuse_others(const QuantizeArguments& a) {
  const QuantizeArguments unset;
  const std::pair<const char*, bool> others[] = {
      {"--recipe", a.recipe != unset.recipe},
      {"--bits", a.bits != unset.bits},
      {"--group", a.group != unset.group},
      {"--override", !a.overrides.empty()},
      {"--search-tokens", a.calibration.search_tokens > 0},
      {"--calibrator", !a.calibration.range.empty()},
      {"--formats", !a.formats.empty()},
      {"--target-bpw", a.target_bits > 0},
      {"--target-size", a.target_bytes > 0},
      {"--max-kl", a.max_kl > 0},
      {"--measurements", !a.measurements.empty()},
      {"--max-shard-bytes", a.max_shard_bytes != unset.max_shard_bytes},
      {"--resume", a.resume}};
  for (const auto& [name, given] : others) {
    if (!given) continue;
    fail(
        ErrorKind::kUsage,
        "{}: not for GGUF files, whose types --preset or --format chooses (convert --to gguf takes "
        "what another recipe made)",
        name);
  }
}

Json json_of(const GgufReport& report) {
  Json json = {{"convention", "gguf"},
               {"output_bytes", report.conversion.bytes},
               {"requantized", report.conversion.requantized},
               {"left_out", report.conversion.left_out},
               {"calibration_tokens", report.calibration_tokens},
               {"weighted", report.weighted},
               {"seconds", report.seconds}};
  if (report.verify) json["verify"] = verify_json(*report.verify);
  return json;
}

std::string text_of(const GgufReport& report, const std::string& output) {
  std::string text = fmt::format(
      "{}: {}, {} weights rounded, the columns of {} weighed by {} tokens in windows of {}; {}\n",
      output, format_bytes(static_cast<double>(report.conversion.bytes)),
      report.conversion.requantized.size(), report.weighted, report.calibration_tokens,
      report.context, format_seconds(report.seconds));
  if (!report.conversion.left_out.empty()) {
    text += fmt::format("left out, as gguf has no place for them: {}\n",
                        fmt::join(report.conversion.left_out, ", "));
  }
  if (report.verify) text += verify_text(*report.verify);
  return text;
}

}  // namespace

bool writes_gguf(const QuantizeArguments& arguments) { return arguments.output.ends_with(".gguf"); }

void run_gguf_quantization(const QuantizeArguments& arguments, Context& context) {
  refuse_others(arguments);
  context.exact = true;  // what the weights lose is to be seen, not what a kernel rounds on top
  const auto backend = context.make_cpu_backend("quantize to GGUF");
  GgufQuantization options;
  options.source = arguments.source;
  options.output = arguments.output;
  options.preset = arguments.preset;
  options.format = arguments.format;
  options.calibration_files.assign(arguments.calibration_files.begin(),
                                   arguments.calibration_files.end());
  options.calibration = arguments.calibration;
  options.verify = verify_options(arguments);
  options.progress = context.progress();
  const GgufReport report = quantize_to_gguf(options, *backend);
  context.emit(json_of(report), text_of(report, arguments.output));
  if (report.verify) require_quality(options.verify, *report.verify, options.output);
}

}  // namespace nibble::cli
