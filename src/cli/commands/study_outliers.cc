#include "base/error.h"
#include "base/file.h"
#include "checkpoint/checkpoint.h"
#include "cli/commands/study_commands.h"
#include "cli/study_output.h"
#include "eval/text.h"
#include "model/arch.h"
#include "runtime/session.h"
#include "study/outliers_report.h"
#include "study/transformed_layers.h"

namespace nibble::cli {
namespace {

struct OutlierArguments {
  std::string model;
  std::string text;
  std::int64_t tokens = 4096;
  std::int64_t context = 512;
  std::string recipe;
  std::vector<std::string> calibration_files;
  std::int64_t calibration_tokens = 0;
  std::string cache;
  StudyFiles files;
};

Json study_json(const OutlierStudy& study, const std::string& state,
                const std::function<std::string(std::int64_t)>& piece) {
  Json sites = Json::array(), features = Json::array(), activations = Json::array();
  for (const OutlierSite& site : study.sites) {
    sites.push_back({{"layer", site.row.layer},
                     {"site", site.row.site},
                     {"absmax", site.row.absmax},
                     {"channel", site.row.channel},
                     {"ratio", site.row.ratio},
                     {"kurtosis", site.kurtosis},
                     {"outlier_channels", site.outlier_channels},
                     {"token_share", site.token_share},
                     {"channel_absmax", site.channel_absmax}});
  }
  for (const FeatureDimension& feature : study.features) {
    features.push_back({{"channel", feature.channel},
                        {"layer_share", feature.layer_share},
                        {"token_share", feature.token_share},
                        {"absmax", feature.absmax},
                        {"emergent", feature.emergent()}});
  }
  for (const LargeActivation& activation : study.activations) {
    activations.push_back({{"layer", activation.layer},
                           {"token", activation.token},
                           {"position", activation.position},
                           {"piece", piece(activation.token)},
                           {"channel", activation.channel},
                           {"value", activation.value},
                           {"median_ratio", activation.median_ratio},
                           {"massive", activation.massive()}});
  }
  return {{"state", state}, {"sites", sites}, {"features", features}, {"activations", activations}};
}

// A token as text, its line breaks visible; as the vocabulary spells it where it is no text alone.
std::string shown_token(const Tokenizer& tokenizer, std::int32_t id) {
  const std::string text = tokenizer.decode({id}, /*skip_special=*/false);
  if (text.empty() || !is_valid_utf8(text)) return "'" + tokenizer.piece(id) + "'";
  std::string shown;
  for (const char c : text) {
    if (c == '\n') {
      shown += "\\n";
    } else if (static_cast<unsigned char>(c) < ' ') {
      shown += fmt::format("\\x{:02x}", static_cast<unsigned>(static_cast<unsigned char>(c)));
    } else {
      shown += c;
    }
  }
  return "'" + shown + "'";
}

QuantizeOptions transform_options(const OutlierArguments& arguments, Context& context) {
  QuantizeOptions options;
  options.source = arguments.model;
  options.recipe = load_recipe(arguments.recipe);
  options.calibration_files.assign(arguments.calibration_files.begin(),
                                   arguments.calibration_files.end());
  options.calibration.tokens = arguments.calibration_tokens;
  options.log = context.log();
  options.progress = context.progress();
  return options;
}

void study_outliers_of(const OutlierArguments& arguments, Context& context) {
  context.exact = true;  // activations as they are
  const auto backend = context.make_cpu_backend("study");
  const auto checkpoint = open_checkpoint(arguments.model);
  context.say_notes(*checkpoint);
  const ModelSpec spec = build_spec(checkpoint->config());
  const auto tokenizer = require_tokenizer(*checkpoint);
  auto ids = read_text_ids(*tokenizer, arguments.text);
  ids.resize(std::min(ids.size(), static_cast<std::size_t>(arguments.tokens)));
  std::int64_t window = std::min(arguments.context, static_cast<std::int64_t>(ids.size()));
  if (spec.max_positions > 0) window = std::min(window, spec.max_positions);

  OutlierComparison study;
  study.model = label_of(arguments.model);
  study.recipe = arguments.recipe;
  study.channels = spec.hidden;
  study.tokens = window == 0 ? 0 : static_cast<std::int64_t>(ids.size()) / window * window;
  study.piece = [&](std::int64_t token) {
    return shown_token(*tokenizer, ids[static_cast<std::size_t>(token)]);
  };
  study.before = study_outliers(
      spec, *checkpoint,
      [&](std::int64_t layer) { return load_layer(spec, layer, *checkpoint, *backend); }, ids,
      window, *backend);
  Json rows = {study_json(study.before, "as it is", study.piece)};
  if (!arguments.recipe.empty()) {
    const TransformedLayers layers(transform_options(arguments, context),
                                   cache_directory(arguments.cache, "outliers"), *backend);
    study.after = study_outliers(
        layers.spec(), layers.source(), [&](std::int64_t layer) { return layers.load(layer); }, ids,
        window, *backend);
    rows.push_back(study_json(*study.after, arguments.recipe, study.piece));
  }
  emit_study(context, arguments.files, outliers_report(study), outliers_table(study), rows);
}

}  // namespace

void add_study_outliers(CLI::App* study, Context& context) {
  CLI::App* command = study->add_subcommand(
      "outliers", "Outlying channels, emergent features and massive activations on a text");
  auto options = add_command<OutlierArguments>(command, context, study_outliers_of);
  command->add_option("model", options->model, "Checkpoint")->required();
  command->add_option("--text", options->text, "Text to run")->required();
  command->add_option("--tokens", options->tokens, "Tokens of the text to use")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 24))
      ->capture_default_str();
  command->add_option("--context", options->context, "Tokens of one window")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20))
      ->capture_default_str();
  command->add_option("--recipe", options->recipe,
                      "Compare with the model after the transforms of this recipe, not rounded");
  command->add_option("--calib", options->calibration_files, "Calibration texts of the recipe")
      ->expected(1, 1024);
  command->add_option("--calib-tokens", options->calibration_tokens, "Tokens for its statistics")
      ->check(CLI::PositiveNumber);
  add_cache_option(command, options->cache);
  add_study_files(command, options->files);
}

}  // namespace nibble::cli
