#include "base/error.h"
#include "base/file.h"
#include "checkpoint/checkpoint.h"
#include "cli/commands/study_commands.h"
#include "cli/study_output.h"
#include "eval/text.h"
#include "model/arch.h"
#include "runtime/session.h"
#include "study/scaling.h"
#include "study/scaling_report.h"

namespace nibble::cli {
namespace {

struct ScalingArguments {
  std::vector<std::string> models;
  std::string text;
  std::int64_t tokens = 8192;
  std::int64_t context = 512;
  std::vector<int> bits = {2, 3, 4, 5, 6, 8, 16};
  std::vector<std::string> types = {"int", "float", "quantile", "nf"};
  std::vector<std::string> blocks = {"32", "64", "128", "1024", "channel"};
  std::string cache;
  StudyFiles files;
};

std::int64_t parse_block(const std::string& text) {
  if (text == "channel") return 0;
  constexpr std::size_t kMostDigits = 9;
  const bool digits = text.find_first_not_of("0123456789") == std::string::npos;
  if (text.empty() || text.size() > kMostDigits || !digits || std::stoll(text) == 0) {
    fail(ErrorKind::kUsage, "--blocks '{}': expected a number of weights, or 'channel'", text);
  }
  return std::stoll(text);
}

std::vector<WeightRounding> settings_of(const ScalingArguments& arguments) {
  std::vector<DataType> types;
  for (const std::string& name : arguments.types) types.push_back(parse_data_type(name));
  std::vector<std::int64_t> blocks;
  for (const std::string& name : arguments.blocks) blocks.push_back(parse_block(name));
  return rounding_grid(arguments.bits, types, blocks);
}

// Two models of one name keep their paths.
std::string name_of(const ScalingArguments& arguments, const std::string& model) {
  const auto same = [&](const std::string& other) { return label_of(other) == label_of(model); };
  return std::ranges::count_if(arguments.models, same) > 1 ? model : label_of(model);
}

std::vector<ScalingRow> rows_of_model(const ScalingArguments& arguments, const std::string& path,
                                      std::span<const WeightRounding> settings,
                                      const ResultCache& cache, Context& context) {
  const auto backend = context.make_cpu_backend("study");
  const auto checkpoint = open_checkpoint(path);
  context.say_notes(*checkpoint);
  const ModelSpec spec = build_spec(checkpoint->config());
  std::vector<std::int32_t> ids = read_text_ids(*require_tokenizer(*checkpoint), arguments.text);
  if (ids.empty()) fail(ErrorKind::kUsage, "{}: holds no tokens", arguments.text);
  const double bytes_per_token = static_cast<double>(std::filesystem::file_size(arguments.text)) /
                                 static_cast<double>(ids.size());
  ids.resize(std::min(ids.size(), static_cast<std::size_t>(arguments.tokens)));
  ScalingOptions options{arguments.context, context.log(), context.progress()};
  if (spec.max_positions > 0) options.context = std::min(options.context, spec.max_positions);
  const ScalingModel model{name_of(arguments, path),
                           spec,
                           *checkpoint,
                           hash_model(checkpoint->config(), *checkpoint),
                           std::move(ids),
                           bytes_per_token};
  return study_scaling(model, settings, options, cache, *backend);
}

Json rows_json(const std::vector<ScalingRow>& rows) {
  Json result = Json::array();
  for (const ScalingRow& row : rows) {
    result.push_back({{"model", row.model},
                      {"type", to_string(row.rounding.type)},
                      {"element", element_name(row.rounding)},
                      {"bits", row.rounding.bits},
                      {"block", block_name(row.rounding.block)},
                      {"bits_per_weight", row.bits_per_weight},
                      {"total_bits", row.total_bits},
                      {"perplexity", number_or_null(row.perplexity)},
                      {"stderr", number_or_null(row.stderr_nll)},
                      {"bits_per_byte", number_or_null(row.bits_per_byte)},
                      {"mean_kl", number_or_null(row.mean_kl)},
                      {"top1_agreement", number_or_null(row.top1_agreement)},
                      {"shown", row.shown}});
  }
  return result;
}

void study_scaling_of(const ScalingArguments& arguments, Context& context) {
  context.exact = true;  // what the rounding costs, not what a kernel rounds on top
  const std::vector<WeightRounding> settings = settings_of(arguments);
  const ResultCache cache(cache_directory(arguments.cache, "scaling"), context.log());
  std::vector<ScalingRow> rows;
  for (const std::string& model : arguments.models) {
    const auto more = rows_of_model(arguments, model, settings, cache, context);
    rows.insert(rows.end(), more.begin(), more.end());
  }
  choose_floats(rows);
  const std::string note = fmt::format(
      "The first {} tokens of {} in windows of {}; every prediction of a window counts.",
      arguments.tokens, std::filesystem::path(arguments.text).filename().string(),
      arguments.context);
  emit_study(context, arguments.files, scaling_report(rows, note), scaling_table(rows),
             rows_json(rows));
}

}  // namespace

void add_study_scaling(CLI::App* study, Context& context) {
  CLI::App* command = study->add_subcommand(
      "scaling", "Quality against total bits for data types, widths and sizes of block");
  auto options = add_command<ScalingArguments>(command, context, study_scaling_of);
  command->add_option("models", options->models, "Checkpoints, of one family or not")
      ->required()
      ->expected(1, 64);
  command->add_option("--text", options->text, "Text to evaluate on")->required();
  command->add_option("--tokens", options->tokens, "Tokens of the text to use")
      ->check(CLI::Range(std::int64_t{2}, std::int64_t{1} << 24))
      ->capture_default_str();
  command->add_option("--context", options->context, "Tokens of one window")
      ->check(CLI::Range(std::int64_t{2}, std::int64_t{1} << 20))
      ->capture_default_str();
  command->add_option("--bits", options->bits, "Widths: 2 to 8, and 16")
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("--types", options->types, "Data types: int, float, quantile, nf")
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("--blocks", options->blocks, "Weights that share a scale, or 'channel'")
      ->delimiter(',')
      ->capture_default_str();
  add_cache_option(command, options->cache);
  add_study_files(command, options->files);
}

}  // namespace nibble::cli
