#include "study/compare.h"

#include "cli/command.h"
#include "cli/machines.h"
#include "cli/study_output.h"
#include "study/compare_report.h"

namespace nibble::cli {
namespace {

struct CompareArguments {
  std::string model;
  std::vector<std::string> recipes;
  std::vector<std::string> formats;
  std::vector<std::string> calibration_files;
  CalibrationOptions calibration = {0, 0, 0};
  std::string text;
  std::int64_t tokens = CompareOptions{}.tokens;
  std::int64_t context = CompareOptions{}.context;
  std::string keep;
  std::string cache;
  StudyFiles files;
};

Json rows_json(const std::vector<CompareRow>& rows) {
  Json result = Json::array();
  for (const CompareRow& row : rows) {
    result.push_back(
        {{"recipe", row.recipe.empty() ? Json(nullptr) : Json(row.recipe)},
         {"format", row.format},
         {"stored", row.stored},
         {"bits_per_weight", row.bits_per_weight},
         {"bits_per_weight_total", row.bits_per_weight_total},
         {"bytes", row.bytes},
         {"perplexity", number_or_null(row.perplexity)},
         {"stderr", number_or_null(row.stderr_nll)},
         {"delta_percent", number_or_null(100 * (row.perplexity / rows.front().perplexity - 1))},
         {"mean_kl", number_or_null(row.mean_kl)},
         {"p99_kl", number_or_null(row.p99_kl)},
         {"top1_agreement", number_or_null(row.top1_agreement)},
         {"seconds", row.seconds},
         {"peak_anon_bytes", row.peak_anon_bytes},
         {"tokens_per_second", row.tokens_per_second},
         {"pareto", row.pareto}});
  }
  return result;
}

// A format may have parts of its own after commas ("w=int4_g128,kv=int8_head"): what continues one
// goes back to it.
std::vector<std::string> join_parts(const std::vector<std::string>& pieces) {
  std::vector<std::string> formats;
  for (const std::string& piece : pieces) {
    const bool continues =
        piece.starts_with("a=") || piece.starts_with("kv=") || piece.starts_with("e=");
    if (continues && !formats.empty()) {
      formats.back() += "," + piece;
    } else {
      formats.push_back(piece);
    }
  }
  return formats;
}

void compare(const CompareArguments& arguments, Context& context) {
  const auto fast =
      make_backend(context.device == "auto" ? "cpu" : context.device, context.backend_options());
  const Machines machines(context);
  CompareOptions options;
  options.source = arguments.model;
  for (const std::string& name : arguments.recipes) options.recipes.push_back(load_recipe(name));
  options.formats = join_parts(arguments.formats);
  options.calibration_files.assign(arguments.calibration_files.begin(),
                                   arguments.calibration_files.end());
  options.calibration = arguments.calibration;
  options.text = arguments.text;
  options.tokens = arguments.tokens;
  options.context = arguments.context;
  const auto directory = cache_directory(arguments.cache, "compare");
  options.keep = !arguments.keep.empty();
  options.work = options.keep ? std::filesystem::path(arguments.keep) : directory / "checkpoints";
  options.log = context.log();
  options.progress = context.progress();
  const ResultCache cache(directory, context.log());
  const std::vector<CompareRow> rows =
      compare_recipes(options, cache, {machines.backend(), machines.runner(), *fast});
  const std::string note =
      fmt::format("At most {} tokens of {} in windows of {}.", arguments.tokens,
                  std::filesystem::path(arguments.text).filename().string(), arguments.context);
  emit_study(context, arguments.files, compare_report(rows, arguments.model, note),
             compare_table(rows), rows_json(rows));
}

}  // namespace

void add_compare(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("compare", "Every recipe and format on your model, one table");
  auto options = add_command<CompareArguments>(command, context, compare);
  command->add_option("model", options->model, "Checkpoint")->required();
  command
      ->add_option("--recipes", options->recipes,
                   "Names or JSON files, separated by commas (nibble list recipes)")
      ->delimiter(',')
      ->required();
  command
      ->add_option("--formats", options->formats,
                   "Formats, separated by commas (default: each recipe's own)")
      ->delimiter(',');
  command
      ->add_option("--calib", options->calibration_files,
                   "Calibration text files (default: bundled)")
      ->expected(1, 1024);
  command->add_option("--calib-tokens", options->calibration.tokens, "Tokens for statistics")
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--search-tokens", options->calibration.search_tokens,
                   "Tokens that judge a search")
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--calib-context", options->calibration.context,
                   "Tokens of a calibration window")
      ->check(CLI::PositiveNumber);
  command->add_option("--text", options->text, "Held-out text to evaluate on")->required();
  command->add_option("--tokens", options->tokens, "Tokens of it to use")
      ->check(CLI::Range(std::int64_t{2}, std::int64_t{1} << 24))
      ->capture_default_str();
  command->add_option("--context", options->context, "Tokens of one window")
      ->check(CLI::Range(std::int64_t{2}, std::int64_t{1} << 20))
      ->capture_default_str();
  command->add_option("--keep", options->keep, "Leave the checkpoints in this folder");
  add_cache_option(command, options->cache);
  add_study_files(command, options->files);
}

}  // namespace nibble::cli
