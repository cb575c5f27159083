#include "cli/quantize_options.h"

#include "base/error.h"
#include "quantize/calibrators/calibrators.h"

namespace nibble::cli {
namespace {

// "REGEX=FORMAT"; the expression may hold '=', a format's name without parts may not.
FormatOverride parse_override(const std::string& text) {
  const std::size_t at = text.rfind('=');
  if (at == std::string::npos || at == 0) {
    fail(ErrorKind::kUsage, "--override '{}': expected REGEX=FORMAT, such as 'v_proj$=int8_g128'",
         text);
  }
  const std::string name = text.substr(at + 1);
  // Short names of model formats are welcome where they say a weight format.
  for (const FormatAlias& alias : format_aliases()) {
    if (alias.name == name) return {text.substr(0, at), parse_model_format(name).weights};
  }
  return {text.substr(0, at), parse_weight_format(name)};
}

// What is chosen from when only a target is named.
const std::vector<std::string>& default_menu() {
  static const std::vector<std::string> menu = {"w2a16_g64",  "w3a16_g128", "w4a16_g128",
                                                "w5a16_g128", "w6a16_g128", "w8a16_g128"};
  return menu;
}

MixedOptions mixed_options(const QuantizeArguments& a) {
  MixedOptions mixed;
  mixed.target_bits = a.target_bits;
  mixed.target_bytes = static_cast<std::int64_t>(a.target_bytes);
  mixed.max_kl = a.max_kl;
  mixed.measurements = a.measurements;
  mixed.measure_only = a.measure_only;
  const bool wanted = a.target_bits > 0 || a.target_bytes > 0 || a.max_kl > 0 || a.measure_only;
  if (!wanted && (!a.formats.empty() || !a.measurements.empty())) {
    fail(ErrorKind::kUsage,
         "--formats and --measurements: need --target-bpw, --target-size, --max-kl or "
         "--measure-only");
  }
  if (!wanted) return mixed;
  if (!a.format.empty() || a.bits > 0 || a.group >= 0) {
    fail(ErrorKind::kUsage,
         "--format, --bits and --group: formats are chosen from --formats to meet a target");
  }
  for (const std::string& name : a.formats.empty() ? default_menu() : a.formats) {
    mixed.formats.push_back(parse_model_format(name));
  }
  return mixed;
}

FormatPtr with_bits_and_group(const FormatPtr& format, int bits, std::int64_t group) {
  WeightDescriptor descriptor = format->descriptor();
  if (format->is_float() || (bits > 0 && !format->is_affine())) {
    fail(ErrorKind::kUsage, "--bits and --group need an integer format, not {}", format->name());
  }
  if (bits > 0) descriptor.element.bits = bits;
  if (group == 0) descriptor.scheme.granularity = Granularity::kChannel;
  if (group > 0) {
    descriptor.scheme.granularity = Granularity::kGroup;
    descriptor.scheme.group = group;
  }
  return make_format(descriptor);
}

}  // namespace

void add_quantize_options(CLI::App* command, QuantizeArguments& a) {
  command->add_option("--recipe", a.recipe, "Name or JSON file (nibble list recipes)")
      ->capture_default_str();
  command->add_option("--format", a.format, "Format of the weights (nibble list formats)");
  command->add_option("--bits", a.bits, "Bits of a code, 2 to 8")->check(CLI::Range(2, 8));
  command->add_option("--group", a.group, "Weights that share a scale; 0: a whole row")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 20));
  command->add_option("--override", a.overrides, "REGEX=FORMAT for modules that match (repeatable)")
      ->allow_extra_args(false);
  command->add_option("--calib", a.calibration_files, "Calibration text files (default: bundled)")
      ->expected(1, 1024);
  command->add_option("--calib-tokens", a.calibration.tokens, "Tokens for statistics")
      ->check(CLI::PositiveNumber);
  command->add_option("--search-tokens", a.calibration.search_tokens, "Tokens that judge a search")
      ->check(CLI::PositiveNumber);
  command->add_option("--calib-context", a.calibration.context, "Tokens of a calibration window")
      ->check(CLI::PositiveNumber);
  std::vector<std::string> calibrator_names;
  for (const Calibrator& calibrator : calibrators()) calibrator_names.push_back(calibrator.name);
  command
      ->add_option("--calibrator", a.calibration.range,
                   "How static scales of activations follow from the text (default: minmax)")
      ->check(CLI::IsMember(calibrator_names));
  command->add_option("--percentile", a.calibration.percentile, "Of that calibrator (99.99)")
      ->check(CLI::Range(1e-3, 100.0));
  command->add_option("--gamma", a.calibration.gamma, "Weight of saturation errors, of sqnr (3)")
      ->check(CLI::PositiveNumber);
  command->add_option("--verify-text", a.verify_text, "Held-out text (default: bundled)");
  command->add_option("--verify-tokens", a.verify_tokens, "Tokens of it to use")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--fail-above-kl", a.fail_above_kl, "Exit 6 when the mean KL is above this")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--max-shard-bytes", a.max_shard_bytes, "Largest file of the output")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
}

void add_mixed_options(CLI::App* command, QuantizeArguments& a) {
  const std::string group = "Mixed precision";
  command
      ->add_option("--formats", a.formats,
                   "Formats to choose from for each group of modules, separated by commas "
                   "(default: integers of 2, 3, 4, 5, 6 and 8 bits)")
      ->delimiter(',')
      ->group(group);
  command
      ->add_option("--target-bpw", a.target_bits,
                   "Least KL divergence with at most so many bits per weight in the blocks")
      ->check(CLI::PositiveNumber)
      ->group(group);
  command
      ->add_option("--target-size", a.target_bytes,
                   "Least KL divergence in at most so many bytes: 6GiB, 500MB")
      ->transform(CLI::AsSizeValue(true))
      ->group(group);
  command
      ->add_option("--max-kl", a.max_kl,
                   "Least size with at most this mean KL, in nats, on held-back calibration text")
      ->check(CLI::PositiveNumber)
      ->group(group);
  command
      ->add_option("--measurements", a.measurements,
                   "File that keeps what each format costs each group; taken up if it is there")
      ->group(group);
  command
      ->add_flag("--measure-only", a.measure_only, "Fill the file of measurements, write no model")
      ->group(group);
}

VerifyOptions verify_options(const QuantizeArguments& a) {
  VerifyOptions options;
  options.enabled = !a.no_verify;
  options.text = a.verify_text;
  options.tokens = a.verify_tokens;
  options.fail_above_kl = a.fail_above_kl;
  return options;
}

QuantizeOptions quantize_options(const QuantizeArguments& a) {
  QuantizeOptions options;
  options.source = a.source;
  options.output = a.output;
  options.recipe = load_recipe(a.recipe);
  if (!a.format.empty()) options.format = parse_model_format(a.format);
  if (a.bits > 0 || a.group >= 0) {
    const ModelFormat base =
        parse_model_format(a.format.empty() ? options.recipe.format : a.format);
    if (base.weights == nullptr) {
      fail(ErrorKind::kUsage, "--bits and --group: format '{}' leaves the weights alone", a.format);
    }
    options.format.weights = with_bits_and_group(base.weights, a.bits, a.group);
    options.format.scale_type_from_checkpoint = base.scale_type_from_checkpoint;
  }
  for (const std::string& text : a.overrides) options.overrides.push_back(parse_override(text));
  options.calibration_files.assign(a.calibration_files.begin(), a.calibration_files.end());
  options.calibration = a.calibration;
  options.mixed = mixed_options(a);
  options.verify = verify_options(a);
  options.resume = a.resume;
  options.max_shard_bytes = a.max_shard_bytes;
  return options;
}

}  // namespace nibble::cli
