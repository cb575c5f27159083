#include "checkpoint/convert.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "cli/command.h"
#include "cli/terminal.h"
#include "quantize/verify.h"

namespace nibble::cli {
namespace {

struct ConvertArguments {
  std::string source;
  std::string destination;
  ConvertOptions options;
  VerifyOptions verify;
};

// What was given up, measured on a text.
void add_cost(const ConvertArguments& arguments, const std::string& verification_text,
              const ConvertReport& report, Context& context, Json& json, std::string& text) {
  const auto backend = context.make_cpu_backend("convert");
  const VerifyResult result = verify(arguments.destination, arguments.source, verification_text,
                                     arguments.verify, *backend, context.progress());
  json["mean_kl"] = result.mean_kl;
  json["top1_agreement"] = result.top1_agreement;
  json["ppl"] = result.perplexity;
  json["ppl_reference"] = result.perplexity_reference;
  text += fmt::format(
      "not exact: values of {} modules changed, the inputs of {} are no longer rounded\n"
      "to the source: mean KL {:.5f} nats, top-1 agreement {:.2f} %, perplexity {:.4f} (source "
      "{:.4f})\n",
      report.requantized.size(), report.dropped_activations.size(), result.mean_kl,
      100 * result.top1_agreement, result.perplexity, result.perplexity_reference);
}

void convert(const ConvertArguments& arguments, Context& context) {
  context.exact = true;  // the cost of the conversion alone, not of kernels that round on top
  // Read first, so that a text that is not there is said before the work.
  const std::string verified =
      arguments.options.requantize ? verification_text(arguments.verify, "") : "";
  const auto source = open_checkpoint(arguments.source);
  context.say_notes(*source);
  const ConvertReport report =
      convert_checkpoint(*source, arguments.destination, arguments.options, context.progress());
  Json json = {{"from", report.from},
               {"to", report.to},
               {"exact", report.exact()},
               {"modules", report.modules},
               {"output_bytes", report.bytes},
               {"requantized", report.requantized},
               {"dropped_activations", report.dropped_activations}};
  std::string text =
      fmt::format("{}: {} to {}, {} quantized modules, {}\n", arguments.destination, report.from,
                  report.to, report.modules, format_bytes(static_cast<double>(report.bytes)));
  if (report.exact()) {
    text += "exact: every value was read back and has the same bits\n";
  } else {
    add_cost(arguments, verified, report, context, json, text);
  }
  context.emit(json, text);
}

}  // namespace

void add_convert(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand(
      "convert", "From one checkpoint convention to another, with every value kept");
  auto options = add_command<ConvertArguments>(command, context, convert);
  command->add_option("source", options->source, "Quantized checkpoint")->required();
  command->add_option("destination", options->destination, "Where to write; must not exist")
      ->required();
  std::vector<std::string> names;
  for (const ConvertTarget& target : convert_targets()) names.push_back(target.name);
  ConvertOptions& how = options->options;
  command->add_option("--to", how.target, fmt::format("One of {}", fmt::join(names, ", ")))
      ->required();
  CLI::Option* requantize =
      command->add_flag("--requantize", how.requantize,
                        "Round what the target cannot say, and measure what that costs");
  command->add_option("--format", how.format, "What is rounded to")->needs(requantize);
  command->add_option("--verify-text", options->verify.text, "Text to measure on")
      ->needs(requantize);
}

}  // namespace nibble::cli
