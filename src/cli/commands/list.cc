#include "base/error.h"
#include "checkpoint/checkpoint.h"
#include "cli/command.h"
#include "cli/terminal.h"
#include "formats/registry.h"
#include "model/arch.h"
#include "quantize/recipe.h"

namespace nibble::cli {
namespace {

using Rows = std::vector<std::vector<std::string>>;

Rows format_rows() {
  Rows rows = {{"name", "definition"}};
  for (const FormatAlias& alias : format_aliases()) rows.push_back({alias.name, alias.definition});
  return rows;
}

Rows arch_rows() {
  Rows rows = {{"name", "model_types"}};
  for (const Arch& arch : archs()) {
    std::string types;
    for (const std::string& type : arch.model_types) types += (types.empty() ? "" : ", ") + type;
    rows.push_back({arch.name, types});
  }
  return rows;
}

Rows recipe_rows() {
  Rows rows = {{"name", "aliases", "description"}};
  for (const Recipe& recipe : bundled_recipes()) {
    std::string aliases;
    for (const std::string& alias : recipe.aliases)
      aliases += (aliases.empty() ? "" : ", ") + alias;
    rows.push_back({recipe.name, aliases, recipe.description});
  }
  return rows;
}

Rows checkpoint_rows() {
  Rows rows = {{"name"}};
  for (const CheckpointConvention& convention : checkpoint_conventions()) {
    rows.push_back({convention.name});
  }
  return rows;
}

Rows impl_rows(const Context& context) {
  Rows rows = {{"op", "implementation", "usable_here"}};
  for (const ImplRow& row : context.make_backend()->impl_rows()) {
    rows.push_back({row.op, row.name, row.usable ? "yes" : "no"});
  }
  return rows;
}

Json to_json(const Rows& rows) {
  Json result = Json::array();
  for (std::size_t r = 1; r < rows.size(); ++r) {
    Json object = Json::object();
    for (std::size_t c = 0; c < rows[0].size(); ++c) object[rows[0][c]] = rows[r][c];
    result.push_back(std::move(object));
  }
  return result;
}

struct ListOptions {
  std::string what;
};

void list(const ListOptions& options, Context& context) {
  Rows rows;
  if (options.what == "formats") rows = format_rows();
  if (options.what == "recipes") rows = recipe_rows();
  if (options.what == "archs") rows = arch_rows();
  if (options.what == "checkpoints") rows = checkpoint_rows();
  if (options.what == "impls") rows = impl_rows(context);
  context.emit({{"rows", to_json(rows)}}, format_table(rows));
}

}  // namespace

void add_list(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("list", "The registries: what this program knows");
  auto options = add_command<ListOptions>(command, context, list);
  command->add_option("what", options->what, "formats, recipes, archs, checkpoints or impls")
      ->required()
      ->check(CLI::IsMember({"formats", "recipes", "archs", "checkpoints", "impls"}));
}

}  // namespace nibble::cli
