#include "checkpoint/convert.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "checkpoint/gguf_preset.h"
#include "checkpoint/imatrix.h"
#include "cli/command.h"
#include "cli/terminal.h"
#include "quantize/gguf_pass.h"
#include "quantize/verify.h"
#include "runtime/session.h"

namespace nibble::cli {
namespace {

struct ConvertArguments {
  std::string source;
  std::string destination;
  ConvertOptions options;
  std::string imatrix;
  VerifyOptions verify;
  bool no_verify = false;
};

// What was given up, measured on a text.
void add_cost(const ConvertArguments& arguments, const std::string& verification_text,
              Backend& backend, Context& context, Json& json, std::string& text) {
  const VerifyResult result = verify(arguments.destination, arguments.source, verification_text,
                                     arguments.verify, backend, context.progress());
  json["mean_kl"] = result.mean_kl;
  json["top1_agreement"] = result.top1_agreement;
  json["ppl"] = result.perplexity;
  json["ppl_reference"] = result.perplexity_reference;
  text += fmt::format(
      "to the source: mean KL {:.5f} nats, top-1 agreement {:.2f} %, perplexity {:.4f} (source "
      "{:.4f})\n",
      result.mean_kl, 100 * result.top1_agreement, result.perplexity, result.perplexity_reference);
}

// Options that say nothing about the target.
void check_options(const ConvertArguments& arguments) {
  const ConvertOptions& options = arguments.options;
  if (options.target == "gguf") return;
  const char* stray = !options.preset.empty()      ? "--preset"
                      : !arguments.imatrix.empty() ? "--imatrix"
                                                   : nullptr;
  if (stray != nullptr) fail(ErrorKind::kUsage, "{} is of gguf, not of {}", stray, options.target);
  if (!options.format.empty() && !options.requantize) {
    fail(ErrorKind::kUsage, "--format says what is rounded to; --requantize allows it");
  }
}

void convert(const ConvertArguments& arguments, Context& context) {
  check_options(arguments);
  context.exact = true;  // the cost of the conversion alone, not of kernels that round on top
  // Read first, so that a text that is not there is said before the work.
  const std::string verified = verification_text(arguments.verify, "");
  const auto source = open_checkpoint(arguments.source);
  context.say_notes(*source);
  ConvertOptions options = arguments.options;
  Imatrix imatrix;
  if (!arguments.imatrix.empty()) {
    imatrix = read_imatrix(arguments.imatrix);
    options.imatrix = &imatrix;
  }
  const auto backend = context.make_cpu_backend("convert");
  options.codec = backend->codec();
  const ConvertReport report =
      convert_checkpoint(*source, arguments.destination, options, context.progress());
  if (options.target == "gguf") require_same_tokens(*source, arguments.destination, verified);
  Json json = {{"from", report.from},          {"to", report.to},
               {"exact", report.exact()},      {"modules", report.modules},
               {"output_bytes", report.bytes}, {"requantized", report.requantized},
               {"left_out", report.left_out},  {"dropped_activations", report.dropped_activations}};
  std::string text =
      fmt::format("{}: {} to {}, {} quantized modules, {}\n", arguments.destination, report.from,
                  report.to, report.modules, format_bytes(static_cast<double>(report.bytes)));
  if (!report.left_out.empty()) {
    text += fmt::format("left out, as {} has no place for them: {}\n", report.to,
                        fmt::join(report.left_out, ", "));
  }
  if (report.exact()) {
    text += "exact: every value was read back and has the same bits\n";
  } else {
    text += fmt::format(
        "not exact: values of {} modules changed, the inputs of {} are no longer rounded\n",
        report.requantized.size(), report.dropped_activations.size());
    if (!arguments.no_verify) add_cost(arguments, verified, *backend, context, json, text);
  }
  context.emit(json, text);
}

}  // namespace

void add_convert(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand(
      "convert", "From one checkpoint convention to another, with every value kept");
  auto options = add_command<ConvertArguments>(command, context, convert);
  command->add_option("source", options->source, "Checkpoint")->required();
  command->add_option("destination", options->destination, "Where to write; must not exist")
      ->required();
  std::vector<std::string> names, presets;
  for (const ConvertTarget& target : convert_targets()) names.push_back(target.name);
  for (const GgufPreset& preset : gguf_presets()) presets.emplace_back(preset.name);
  ConvertOptions& how = options->options;
  command->add_option("--to", how.target, fmt::format("One of {}", fmt::join(names, ", ")))
      ->required();
  command->add_flag("--requantize", how.requantize,
                    "Round what the target cannot say, and measure what that costs");
  command->footer(
      "Exact, or nothing is written: what would change values needs --requantize, but for "
      "plain weights and a --preset or --format of gguf.");
  command->add_option("--format", how.format, "What is rounded to");
  command->add_option("--preset", how.preset,
                      fmt::format("Of gguf, a mixture of types: {}", fmt::join(presets, ", ")));
  command->add_option("--imatrix", options->imatrix,
                      "Of gguf, how much the columns of weights matter to what is rounded");
  command->add_option("--verify-text", options->verify.text, "Text to measure on");
  command->add_flag("--no-verify", options->no_verify, "Do not measure what rounding costs");
}

}  // namespace nibble::cli
