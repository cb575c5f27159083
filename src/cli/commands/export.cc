#include <fmt/format.h>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/aimet_encodings.h"
#include "cli/command.h"
#include "cli/terminal.h"
#include "model/arch.h"
#include "model/inventory.h"

namespace nibble::cli {
namespace {

struct EncodingsOptions {
  std::string model;
  std::string output;
  std::string schema = "1.0.0";
};

void export_encodings(const EncodingsOptions& options, Context& context) {
  const EncodingsSchema schema = parse_encodings_schema(options.schema);
  if (std::filesystem::exists(options.output)) {
    fail(ErrorKind::kUsage, "{}: exists already; name another file", options.output);
  }
  const auto source = open_checkpoint(options.model);
  context.say_notes(*source);
  const auto backend = context.make_cpu_backend("export");
  std::vector<std::string> modules;
  for (const ModuleRow& row :
       take_inventory(build_spec(source->config()), *source, *backend).linears) {
    modules.push_back(row.module);
  }
  const EncodingsFile file = aimet_encodings(*source, modules, schema);
  write_file_atomic(options.output, file.json);
  std::string text = fmt::format("{}: encodings of {} modules, schema {}, {}\n", options.output,
                                 modules.size() - file.plain.size(), options.schema,
                                 format_bytes(static_cast<double>(file.json.size())));
  if (!file.plain.empty()) {
    text += fmt::format("{} modules are no integers and have none\n", file.plain.size());
  }
  if (!file.dynamic.empty()) {
    text += fmt::format(
        "the inputs of {} modules are rounded under scales found at run time, which "
        "encodings cannot say\n",
        file.dynamic.size());
  }
  context.emit({{"schema", options.schema},
                {"modules", modules.size() - file.plain.size()},
                {"plain", file.plain},
                {"dynamic", file.dynamic},
                {"bytes", file.json.size()}},
               text);
}

}  // namespace

void add_export(CLI::App& app, Context& context) {
  CLI::App* group = app.add_subcommand("export", "What a checkpoint says, for other programs");
  group->require_subcommand(1);
  CLI::App* command = group->add_subcommand(
      "encodings", "Scales and offsets of weights and inputs as AIMET's JSON of encodings");
  auto options = add_command<EncodingsOptions>(command, context, export_encodings);
  command->add_option("model", options->model, "Quantized checkpoint")->required();
  command->add_option("output", options->output, "File to write; must not exist")->required();
  command->add_option("--schema", options->schema, "0.6.1, 1.0.0 or 2.0.0")->capture_default_str();
}

}  // namespace nibble::cli
