#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/engine_check.h"
#include "cli/command.h"
#include "cli/html_report.h"
#include "cli/terminal.h"
#include "eval/outliers.h"
#include "model/arch.h"
#include "model/inventory.h"
#include "runtime/session.h"

namespace nibble::cli {
namespace {

struct InspectOptions {
  std::string model;
  std::string text;
  std::string html;
  std::int64_t tokens = 8192;
  std::int64_t context = 512;
  std::string engine;         // to check for; empty: none
  std::int64_t parallel = 1;  // devices of it
};

Json architecture_json(const ModelSpec& spec) {
  return {{"name", spec.arch},
          {"layers", spec.layers},
          {"hidden", spec.hidden},
          {"vocab", spec.vocab},
          {"heads", spec.attention.heads},
          {"kv_heads", spec.attention.kv_heads},
          {"head_dim", spec.attention.head_dim},
          {"intermediate", spec.mlp.intermediate},
          {"experts", spec.mlp.experts},
          {"tied_head", spec.tied_head}};
}

Json linears_json(const Inventory& inventory) {
  Json rows = Json::array();
  for (const ModuleRow& row : inventory.linears) {
    rows.push_back({{"module", row.module},
                    {"format", row.format},
                    {"shape", {row.rows, row.cols}},
                    {"bytes", row.bytes}});
  }
  return rows;
}

Json outliers_json(const std::vector<OutlierRow>& outliers) {
  Json rows = Json::array();
  for (const OutlierRow& row : outliers) {
    rows.push_back({{"layer", row.layer},
                    {"site", row.site},
                    {"absmax", row.absmax},
                    {"ratio", row.ratio},
                    {"channel", row.channel}});
  }
  return rows;
}

// Linears of all layers with one format and shape are one line of the table.
std::string linears_table(const Inventory& inventory) {
  std::map<std::tuple<std::string, std::int64_t, std::int64_t>, std::pair<int, std::int64_t>> kinds;
  for (const ModuleRow& row : inventory.linears) {
    auto& [count, bytes] = kinds[{row.format, row.rows, row.cols}];
    ++count;
    bytes += row.bytes;
  }
  std::vector<std::vector<std::string>> rows = {{"format", "out", "in", "modules", "size"}};
  for (const auto& [kind, sum] : kinds) {
    const auto& [format, out, in] = kind;
    rows.push_back({format, std::to_string(out), std::to_string(in), std::to_string(sum.first),
                    format_bytes(static_cast<double>(sum.second))});
  }
  return format_table(rows);
}

std::string outliers_table(const std::vector<OutlierRow>& outliers) {
  std::vector<std::vector<std::string>> rows = {{"layer", "site", "absmax", "ratio", "channel"}};
  for (const OutlierRow& row : outliers) {
    rows.push_back({std::to_string(row.layer), row.site, fmt::format("{:.2f}", row.absmax),
                    fmt::format("{:.1f}", row.ratio), std::to_string(row.channel)});
  }
  return format_table(rows);
}

std::vector<OutlierRow> outliers_on_text(const InspectOptions& options, const ModelSpec& spec,
                                         const Checkpoint& checkpoint, Backend& backend) {
  auto ids = require_tokenizer(checkpoint)->encode(read_text_file(options.text));
  if (static_cast<std::int64_t>(ids.size()) > options.tokens) {
    ids.resize(static_cast<std::size_t>(options.tokens));
  }
  return measure_outliers(spec, checkpoint, backend, ids, options.context);
}

// What an engine would refuse, before any model is made of the checkpoint.
void check(const InspectOptions& options, Context& context) {
  const auto checkpoint = open_checkpoint(options.model);
  const auto findings = check_for_engine(*checkpoint, options.engine, options.parallel);
  const auto refused =
      std::ranges::count_if(findings, [](const EngineFinding& f) { return f.refused; });
  Json rows = Json::array();
  std::string text = fmt::format("{} for {}: {}\n", options.model, options.engine,
                                 refused > 0 ? "refused" : "nothing known stands against it");
  for (const EngineFinding& finding : findings) {
    rows.push_back(
        {{"refused", finding.refused}, {"module", finding.module}, {"what", finding.what}});
    text += fmt::format("{}  {}{}{}\n", finding.refused ? "refused" : "note   ", finding.module,
                        finding.module.empty() ? "" : ": ", finding.what);
  }
  context.emit({{"engine", options.engine}, {"accepted", refused == 0}, {"findings", rows}}, text);
}

void inspect(const InspectOptions& options, Context& context) {
  if (!options.engine.empty()) return check(options, context);
  context.exact = true;  // activations as they are, and no weight repacked only to be counted
  const auto checkpoint = open_checkpoint(options.model);
  context.say_notes(*checkpoint);
  const ModelSpec spec = build_spec(checkpoint->config());
  const auto backend = context.make_cpu_backend("inspect");
  const Inventory inventory = take_inventory(spec, *checkpoint, *backend);
  std::vector<OutlierRow> outliers;
  if (!options.text.empty()) {
    outliers = outliers_on_text(options, spec, *checkpoint, *backend);
  }

  const Json result = {{"model", options.model},
                       {"convention", checkpoint->convention()},
                       {"architecture", architecture_json(spec)},
                       {"parameters", inventory.parameters},
                       {"bytes", inventory.bytes},
                       {"tensors", inventory.tensors},
                       {"bits_per_weight", inventory.bits_per_weight},
                       {"bits_per_weight_total", inventory.bits_per_weight_total},
                       {"linears", linears_json(inventory)},
                       {"outliers", outliers_json(outliers)}};
  std::string text = fmt::format(
      "{}: {} ({}), {} layers, hidden {}, vocabulary {}\n"
      "{:.2f} M parameters in {} tensors, {}\n"
      "{:.3f} bits per weight in the blocks' linear layers, {:.3f} in all\n\n{}",
      options.model, spec.arch, checkpoint->convention(), spec.layers, spec.hidden, spec.vocab,
      static_cast<double>(inventory.parameters) / 1e6, inventory.tensors,
      format_bytes(static_cast<double>(inventory.bytes)), inventory.bits_per_weight,
      inventory.bits_per_weight_total, linears_table(inventory));
  if (!outliers.empty()) text += "\n" + outliers_table(outliers);
  if (!options.html.empty()) {
    write_file_atomic(options.html, html_report("nibble inspect " + options.model, result));
  }
  context.emit(result, text);
}

}  // namespace

void add_inspect(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("inspect", "Architecture, tensors, formats, sizes, outliers");
  auto options = add_command<InspectOptions>(command, context, inspect);
  command->add_option("model", options->model, "Checkpoint")->required();
  command->add_option("--text", options->text, "Text to measure activation outliers on");
  command->add_option("--tokens", options->tokens, "Tokens of the text to use")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 24))
      ->capture_default_str();
  command->add_option("--html", options->html, "Write the report as a page too");
  CLI::Option* engine = command->add_option("--for", options->engine,
                                            "Say instead what this engine would refuse, and why");
  engine->check(CLI::IsMember(engine_names()));
  command->add_option("--tensor-parallel", options->parallel, "Devices that share each matrix")
      ->needs(engine)
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1024}));
}

}  // namespace nibble::cli
