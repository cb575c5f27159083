#include "quantize/setup.h"

#include <algorithm>
#include <iterator>

#include "base/content_hash.h"
#include "base/error.h"
#include "base/json.h"
#include "model/arch.h"
#include "quantize/block.h"
#include "quantize/correct_biases.h"
#include "quantize/range_observer.h"
#include "quantize/texts.h"
#include "runtime/session.h"

namespace nibble {
namespace {

// FNV-1a, 64 bits.
class Hash {
 public:
  void add(std::span<const std::byte> bytes) {
    for (const std::byte byte : bytes) {
      value_ = (value_ ^ std::to_integer<std::uint64_t>(byte)) * 0x100000001b3;
    }
  }
  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 0xcbf29ce484222325;
};

std::uint64_t hash_ids(std::span<const std::int32_t> ids) {
  Hash hash;
  hash.add(std::as_bytes(ids));
  return hash.value();
}

// Names, types and shapes of everything, and some bytes of each tensor: enough to tell two
// checkpoints apart without reading all of them.
std::uint64_t hash_source(const Checkpoint& source) {
  constexpr std::size_t kSampled = 4096;
  Hash hash;
  const std::string config = source.config().dump();
  hash.add(std::as_bytes(std::span(config)));
  for (const std::string& name : source.names()) {
    const Tensor tensor = source.tensor(name);
    const std::string header =
        fmt::format("{} {} {}", name, to_string(tensor.dtype()), to_string(tensor.shape()));
    hash.add(std::as_bytes(std::span(header)));
    const auto bytes = tensor.bytes();
    hash.add(bytes.first(std::min(kSampled, bytes.size())));
    hash.add(bytes.last(std::min(kSampled, bytes.size())));
  }
  return hash.value();
}

// The parts that `options` sets over those of its recipe.
ModelFormat resolve_format(const QuantizeOptions& options) {
  ModelFormat format = parse_model_format(options.recipe.format);
  if (options.format.weights != nullptr) {
    format.weights = options.format.weights;
    format.scale_type_from_checkpoint = options.format.scale_type_from_checkpoint;
  }
  if (options.format.embeddings != nullptr) format.embeddings = options.format.embeddings;
  if (options.format.activations != nullptr) format.activations = options.format.activations;
  if (format.activations != nullptr && format.activations->descriptor().by_ggml) {
    fail(ErrorKind::kUsage,
         "quantize: a=ggml is how a program computes, which no checkpoint says; give it to eval or "
         "run");
  }
  return format;
}

CalibrationOptions resolve_calibration(const QuantizeOptions& options) {
  CalibrationOptions result = options.recipe.calibration;
  if (options.calibration.tokens > 0) result.tokens = options.calibration.tokens;
  if (options.calibration.search_tokens > 0) {
    result.search_tokens = options.calibration.search_tokens;
  }
  if (options.calibration.context > 0) result.context = options.calibration.context;
  if (!options.calibration.range.empty()) result.range = options.calibration.range;
  if (options.calibration.percentile > 0) result.percentile = options.calibration.percentile;
  if (options.calibration.gamma > 0) result.gamma = options.calibration.gamma;
  return result;
}

void check_options(const QuantizeOptions& options) {
  if (options.recipe.steps.empty()) fail(ErrorKind::kUsage, "quantize: the recipe has no steps");
  if (options.verify.context < 2 || options.verify.tokens < 2) {
    fail(ErrorKind::kUsage, "verification: needs at least 2 tokens");
  }
  const MixedOptions& mixed = options.mixed;
  const int targets = (mixed.target_bits > 0 ? 1 : 0) + (mixed.target_bytes > 0 ? 1 : 0) +
                      (mixed.max_kl > 0 ? 1 : 0);
  if (targets > 1 || (mixed.enabled() && targets == 0 && !mixed.measure_only) ||
      (!mixed.enabled() && (targets > 0 || mixed.measure_only))) {
    fail(ErrorKind::kUsage,
         "mixed precision: needs formats to choose from and one target: bits per weight, bytes or "
         "a KL divergence");
  }
  if (mixed.measure_only && mixed.measurements.empty()) {
    fail(ErrorKind::kUsage, "mixed precision: measuring alone needs a file to keep the result in");
  }
  for (const ModelFormat& format : mixed.formats) {
    if (format.weights == nullptr) {
      fail(ErrorKind::kUsage, "mixed precision: a format leaves the weights alone");
    }
  }
  if (!(options.verify.fail_above_kl >= 0)) {
    fail(ErrorKind::kUsage, "verification: a KL divergence of {} can never be reached",
         options.verify.fail_above_kl);
  }
}

}  // namespace

Setup::Setup(const QuantizeOptions& options, Backend& backend, Backend& runner)
    : options_(options), backend_(backend), on_host_(runner.memory().is_host()) {
  check_options(options);
  std::unique_ptr<Checkpoint> original = open_checkpoint(options.source);
  source_hash_ = hash_source(*original);
  source_ = rewritten(options.recipe, std::move(original), backend, notes_);
  spec_ = build_spec(source_->config());
  plan_ = plan_output(spec_, *source_, resolve_format(options), options.overrides, backend);
  calibration_ = resolve_calibration(options);
  check_ranges();
  const std::string uncorrected = uncorrected_linears(options.recipe, spec_, *source_, backend);
  if (!uncorrected.empty()) notes_.push_back(uncorrected);
  const std::vector<std::string> opened = source_->notes();
  notes_.insert(notes_.begin(), opened.begin(), opened.end());
  // Of formats that are chosen the notes come with them.
  if (!options.mixed.enabled()) {
    notes_.insert(notes_.end(), plan_.notes.begin(), plan_.notes.end());
  }
  read_texts();
}

void Setup::check_ranges() const {
  if (!calibration_.range.empty()) find_calibrator(calibration_.range);
  const ActivationFormatPtr format = plan_.static_inputs();
  if (format == nullptr) return;
  const std::string reason = why_no_range(calibration_, *format);
  if (!reason.empty()) fail(ErrorKind::kUnsupported, "{}", reason);
}

bool Setup::needs_text() const {
  return options_.recipe.needs_text() || plan_.needs_statistics() || options_.mixed.enabled();
}

void Setup::load_tokenizer_if_any() {
  try {
    tokenizer_ = require_tokenizer(*source_);
  } catch (const Error& error) {
    const bool needed = needs_text() || !options_.verify.text.empty();
    if (needed || error.kind() != ErrorKind::kCorrupt) throw;
  }
}

void Setup::read_texts() {
  const bool calibrates = needs_text();
  if (!calibrates && !options_.verify.enabled) return;
  load_tokenizer_if_any();
  std::vector<std::string> texts;
  if (calibrates) {
    texts = calibration_texts(options_.calibration_files);
    std::vector<std::int32_t> ids;
    for (const std::string& text : texts) {
      const std::vector<std::int32_t> more = tokenizer_->encode(text);
      ids.insert(ids.end(), more.begin(), more.end());
    }
    CalibrationOptions calibration = calibration_;
    if (spec_.max_positions > 0) {
      calibration.context = std::min(calibration.context, spec_.max_positions);
    }
    windows_ =
        cut_windows(ids, calibration, options_.recipe.needs_search() || options_.mixed.enabled());
    const auto used = static_cast<std::int64_t>(windows_.statistics.size());
    if (used + windows_.context <= calibration.tokens) {
      notes_.push_back(
          fmt::format("calibration text: {} tokens of the {} asked for are there to calibrate on",
                      used, calibration.tokens));
    }
  }
  std::string all;
  for (const std::string& text : texts) all += text;
  prepare_verification(all);
}

void Setup::prepare_verification(const std::string& calibration_text) {
  if (!options_.verify.enabled) return;
  if (!spec_.decoder || tokenizer_ == nullptr) {
    notes_.push_back(spec_.decoder ? "not verified: the checkpoint has no tokenizer"
                                   : "not verified: an encoder predicts no next token");
    return;
  }
  verifies_ = true;
  verification_text_ = nibble::verification_text(options_.verify, calibration_text);
}

std::string Setup::identity() const {
  std::string text = fmt::format("nibble {}\nsource {:016x}\n", NIBBLE_VERSION, source_hash_);
  text += fmt::format("recipe {}\n", to_string(options_.recipe));
  text += fmt::format("windows {} {:016x} {:016x}\n", windows_.context,
                      hash_ids(windows_.statistics), hash_ids(windows_.search));
  if (!on_host_) text += "run on a device\n";  // whose rounding is another
  return text;
}

std::string Setup::fingerprint() const {
  std::string text = identity();
  text += fmt::format("range {} {} {}\n", calibration_.range, calibration_.percentile,
                      calibration_.gamma);
  text += fmt::format("shards {}\n", options_.max_shard_bytes);
  const MixedOptions& mixed = options_.mixed;
  if (mixed.enabled()) {
    text += fmt::format("target {} bits {} bytes {} KL\n", mixed.target_bits, mixed.target_bytes,
                        mixed.max_kl);
    for (const ModelFormat& format : mixed.formats) text += format.weights->name() + '\n';
  }
  for (const PlannedModule& module : plan_.modules) {
    text += fmt::format("{} {} {}\n", module.module, module.format->name(),
                        module.activations != nullptr ? module.activations->name() : "16-bit");
  }
  return text;
}

FormatMenu Setup::format_menu() const {
  FormatMenu menu;
  for (const ModelFormat& format : options_.mixed.formats) {
    ModelFormat whole = resolve_format(options_);
    whole.weights = format.weights;
    whole.scale_type_from_checkpoint = format.scale_type_from_checkpoint;
    menu.names.push_back(format.weights->name());
    menu.plans.push_back(plan_output(spec_, *source_, whole, options_.overrides, backend_));
  }
  for (std::int64_t layer = 0; layer < spec_.layers; ++layer) {
    LayerWeights weights = load_layer(spec_, layer, *source_, backend_);
    std::ranges::move(fused_groups(spec_, layer, weights), std::back_inserter(menu.groups));
  }
  return menu;
}

// Transforms go by the format of the whole model; without one it has no say.
std::string Setup::measurements_key() const {
  std::string text = identity();
  for (const FormatOverride& entry : options_.overrides) {
    text += fmt::format("override {}={}\n", entry.pattern, entry.format->name());
  }
  if (options_.recipe.steps.size() > 1) {
    for (const PlannedModule& module : plan_.modules) text += module.format->name() + '\n';
  }
  ContentHash hash;
  hash.add(text);
  return hash.hex();
}

OutputPlan Setup::plan_of(const ModuleFormats& chosen) const {
  return plan_output(spec_, *source_, resolve_format(options_), options_.overrides, backend_,
                     chosen);
}

}  // namespace nibble
