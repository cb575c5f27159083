#include "quantize/quantize.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "checkpoint/gguf_preset.h"
#include "cli/command.h"
#include "cli/gguf_quantization.h"
#include "cli/machines.h"
#include "cli/quantize_options.h"
#include "cli/terminal.h"
#include "cli/verify_output.h"
#include "quantize/plan.h"

namespace nibble::cli {
namespace {

Json search_json(const SearchReport& search) {
  Json chosen = Json::object();
  for (const auto& [coordinate, option] : search.chosen) chosen[coordinate] = option;
  return {{"chosen", chosen},
          {"loss", search.loss},
          {"identity_loss", search.identity_loss},
          {"candidates", search.candidates}};
}

Json layers_json(const std::vector<LayerReport>& layers) {
  Json result = Json::array();
  for (const LayerReport& layer : layers) {
    Json modules = Json::array();
    for (const ModuleReport& module : layer.modules) {
      Json row = {{"module", module.module},
                  {"format", module.format},
                  {"shape", {module.rows, module.cols}},
                  {"weight_error", module.weight_error}};
      if (!module.activations.empty()) row["activations"] = module.activations;
      if (module.output_error) row["output_error"] = *module.output_error;
      modules.push_back(std::move(row));
    }
    result.push_back({{"layer", layer.layer}, {"modules", std::move(modules)}});
  }
  return result;
}

Json group_formats_json(const std::vector<GroupFormat>& groups) {
  Json rows = Json::array();
  for (const GroupFormat& group : groups) {
    rows.push_back({{"layer", group.layer},
                    {"group", group.group},
                    {"format", group.format},
                    {"kl", std::isfinite(group.kl) ? Json(group.kl) : Json(nullptr)}});
  }
  return rows;
}

Json mixed_json(const MixedReport& mixed) {
  Json json = {{"tokens", mixed.tokens},
               {"measured", group_formats_json(mixed.measured)},
               {"chosen", group_formats_json(mixed.chosen)},
               {"predicted_kl", mixed.predicted_kl},
               {"bound", mixed.bound}};
  if (mixed.measured_kl) json["measured_kl"] = *mixed.measured_kl;
  return json;
}

Json report_json(const QuantizeReport& report) {
  Json json = {{"recipe", report.recipe},
               {"format", report.format},
               {"convention", report.convention},
               {"bits_per_weight", report.bits_per_weight},
               {"bits_per_weight_total", report.bits_per_weight_total},
               {"output_bytes", report.output_bytes},
               {"seconds", report.seconds},
               {"peak_anon_bytes", report.peak_anon_bytes},
               {"calibration_tokens", report.calibration_tokens},
               {"notes", report.notes},
               {"layers", layers_json(report.layers)}};
  if (report.search) json["search"] = search_json(*report.search);
  if (report.mixed) json["mixed"] = mixed_json(*report.mixed);
  if (report.verify) json["verify"] = verify_json(*report.verify);
  return json;
}

// One line a group, one column a format; the chosen one in brackets.
std::string mixed_text(const MixedReport& mixed) {
  std::string text = fmt::format(
      "mean KL in nats on {} held-back tokens when one group alone is stored so:\n", mixed.tokens);
  std::string group;
  for (const GroupFormat& row : mixed.measured) {
    const std::string name = fmt::format("{:>4} {:<9}", row.layer, row.group);
    if (name != group) text += (group.empty() ? "" : "\n") + name;
    group = name;
    const bool chosen = std::ranges::any_of(mixed.chosen, [&](const GroupFormat& other) {
      return other.layer == row.layer && other.group == row.group && other.format == row.format;
    });
    const std::string cell = fmt::format("{} {:.5f}", row.format, row.kl);
    text += chosen ? "  [" + cell + "]" : "  " + cell;
  }
  text += '\n';
  if (mixed.chosen.empty()) return text;
  text += fmt::format("chosen: {:.5f} in sum", mixed.predicted_kl);
  if (mixed.measured_kl) text += fmt::format(", {:.5f} measured together", *mixed.measured_kl);
  return text + '\n';
}

std::string report_text(const QuantizeReport& report, const std::string& output) {
  std::string text = fmt::format(
      "{}: {} with {}, {} ({:.3f} bits per weight in the blocks, {:.3f} in all)\n"
      "{} in the {} convention, {}, at most {} of anonymous memory\n",
      output, report.format, report.recipe, format_bytes(static_cast<double>(report.output_bytes)),
      report.bits_per_weight, report.bits_per_weight_total,
      report.layers.empty() ? "written" : fmt::format("{} layers written", report.layers.size()),
      report.convention, format_seconds(report.seconds),
      format_bytes(static_cast<double>(report.peak_anon_bytes)));
  if (report.search) {
    text += fmt::format("search: KL {:.5f} -> {:.5f} on held-back calibration text;",
                        report.search->identity_loss, report.search->loss);
    for (const auto& [coordinate, option] : report.search->chosen) {
      text += fmt::format(" {} {}", coordinate, option);
    }
    text += '\n';
  }
  if (report.mixed) text += mixed_text(*report.mixed);
  if (report.verify) text += verify_text(*report.verify);
  return text;
}

void run_quantize(const QuantizeArguments& arguments, Context& context) {
  if (arguments.output.empty() != arguments.measure_only) {
    fail(
        ErrorKind::kUsage, "quantize: {}",
        arguments.measure_only ? "--measure-only writes no output" : "name the directory to write");
  }
  if (writes_gguf(arguments)) return run_gguf_quantization(arguments, context);
  if (!arguments.preset.empty()) {
    fail(ErrorKind::kUsage, "--preset: a mixture of types of GGUF files, so name OUTPUT.gguf");
  }
  const Machines machines(context);
  QuantizeOptions options = quantize_options(arguments);
  options.log = context.log();
  options.progress = context.progress();
  QuantizeReport report;
  try {
    report = quantize(options, machines.backend(), machines.runner(), &report);
  } catch (const Error& error) {
    // The output is complete; what was measured is what the user needs to see.
    if (error.kind() == ErrorKind::kQuality) {
      context.emit(report_json(report), report_text(report, arguments.output));
    }
    throw;
  }
  if (arguments.measure_only) {
    context.emit({{"mixed", mixed_json(report.mixed.value())}, {"seconds", report.seconds}},
                 mixed_text(report.mixed.value()));
    return;
  }
  context.emit(report_json(report), report_text(report, arguments.output));
}

void run_plan(const QuantizeArguments& arguments, Context& context) {
  const auto backend = context.make_cpu_backend("plan");
  const QuantizeOptions options = quantize_options(arguments);
  const QuantizationPlan plan = plan_quantization(options, *backend);
  const Json json = {{"recipe", options.recipe.name},
                     {"format", plan.format},
                     {"convention", plan.convention},
                     {"bits_per_weight", plan.bits_per_weight},
                     {"bits_per_weight_total", plan.bits_per_weight_total},
                     {"source_bytes", plan.source_bytes},
                     {"output_bytes", plan.output_bytes},
                     {"calibration_tokens", plan.calibration_tokens},
                     {"candidates", plan.candidates},
                     {"peak_anon_bytes", plan.peak_anon_bytes},
                     {"state_bytes", plan.state_bytes},
                     {"flops", plan.flops},
                     {"seconds", plan.seconds},
                     {"notes", plan.notes}};
  std::string text = fmt::format(
      "{} with {}, {} convention\n"
      "size    {} -> {} ({:.3f} bits per weight in the blocks, {:.3f} in all)\n"
      "memory  at most about {} anonymous; {} of disk beside the output while it runs\n"
      "time    about {} ({:.3g} floating-point operations, verification included)\n",
      plan.format, options.recipe.name, plan.convention,
      format_bytes(static_cast<double>(plan.source_bytes)),
      format_bytes(static_cast<double>(plan.output_bytes)), plan.bits_per_weight,
      plan.bits_per_weight_total, format_bytes(static_cast<double>(plan.peak_anon_bytes)),
      format_bytes(static_cast<double>(plan.state_bytes)), format_seconds(plan.seconds),
      plan.flops);
  for (const std::string& note : plan.notes) text += "note    " + note + '\n';
  context.emit(json, text);
}

}  // namespace

void add_quantize(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("quantize", "Make a model small, write it, and prove what that cost");
  auto options = add_command<QuantizeArguments>(command, context, run_quantize);
  command->add_option("source", options->source, "Checkpoint to quantize")->required();
  command->add_option("output", options->output,
                      "Directory to write, or FILE.gguf; must not exist");
  add_quantize_options(command, *options);
  add_mixed_options(command, *options);
  std::vector<std::string> presets;
  for (const GgufPreset& preset : gguf_presets()) presets.emplace_back(preset.name);
  command->add_option("--preset", options->preset,
                      fmt::format("Of FILE.gguf, a mixture of types (default Q4_K_M): {}",
                                  fmt::join(presets, ", ")));
  command->add_flag("--resume", options->resume, "Continue an interrupted run");
  command->add_flag("--no-verify", options->no_verify, "Skip the comparison with the source");
}

void add_plan(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("plan", "Size, memory and time of a quantization, before it is done");
  auto options = add_command<QuantizeArguments>(command, context, run_plan);
  command->add_option("source", options->source, "Checkpoint to quantize")->required();
  add_quantize_options(command, *options);
}

}  // namespace nibble::cli
