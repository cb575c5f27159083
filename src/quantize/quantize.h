// Quantizing a checkpoint: calibrate, transform, solve, write, reload, verify.
//
// One block is in memory at a time, in float32, beside the activations of the calibration text,
// whatever the size of the model. Every step is saved beside the output, so that an interrupted run
// can be resumed; the output directory appears only when it is complete and verified.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "base/log.h"
#include "formats/registry.h"
#include "quantize/recipe.h"
#include "quantize/verify.h"

namespace nibble {

// Modules whose whole name matches the regular expression are stored in this format.
struct FormatOverride {
  std::string pattern;
  FormatPtr format;
};

// A format for each group of modules, chosen to meet a target (mixed_precision.h). At most one
// target is set.
struct MixedOptions {
  std::vector<ModelFormat> formats;    // to choose from, their weights alone; empty: one for all
  double target_bits = 0;              // bits_per_weight, at most
  std::int64_t target_bytes = 0;       // of all tensors of the output, at most
  double max_kl = 0;                   // mean KL on held-back calibration text, nats, at most
  std::filesystem::path measurements;  // where they are kept; empty: with the state of the run
  bool measure_only = false;           // writes no output

  bool enabled() const { return !formats.empty(); }
};

struct QuantizeOptions {
  std::filesystem::path source;
  std::filesystem::path output;  // must not exist
  Recipe recipe;
  // Parts that are set replace those of the recipe's format.
  ModelFormat format;
  std::vector<FormatOverride> overrides;  // the first that matches counts

  std::vector<std::filesystem::path> calibration_files;  // empty: the bundled text
  // Positive values replace those of the recipe.
  CalibrationOptions calibration = {0, 0, 0};

  MixedOptions mixed;

  VerifyOptions verify;
  bool resume = false;
  // Hidden states are saved at most so often: what a run that ends may have to do again.
  double save_seconds = 20;
  std::uint64_t max_shard_bytes = 5'000'000'000;

  LogSink log;
  ProgressSink progress;
  // Called after each step was saved, with its name; a run that ends here can be resumed.
  std::function<void(const std::string& step)> on_saved;
};

// One quantized or plain linear of the output.
struct ModuleReport {
  std::string module;
  std::string format;
  std::string activations;  // what its input is rounded to; empty: nothing
  std::int64_t rows = 0, cols = 0;
  double weight_error = 0;  // |w - w'| / |w|, of the weight as it was quantized
  // sqrt(sum E[x_j^2] (w - w')_j^2 / sum E[x_j^2] w_j^2): relative error of the output for
  // uncorrelated channels. Absent without statistics.
  std::optional<double> output_error;
};

struct LayerReport {
  std::int64_t layer = 0;
  std::vector<ModuleReport> modules;
};

// What a search chose: for each coordinate (kind of site) the label of the option.
struct SearchReport {
  std::vector<std::pair<std::string, std::string>> chosen;
  double loss = 0;           // mean KL on the held-back text, nats
  double identity_loss = 0;  // of the same solver without the transform
  std::int64_t candidates = 0;
};

// One group of modules of a layer in one format.
struct GroupFormat {
  std::int64_t layer = 0;
  std::string group;   // of modules that share a format, named after their input
  std::string format;  // as it was asked for
  double kl = 0;       // mean KL in nats when this group alone is stored so
};

struct MixedReport {
  std::vector<GroupFormat> measured;  // every group in every format
  std::vector<GroupFormat> chosen;    // empty under measure_only
  double predicted_kl = 0;            // sum over the chosen
  // Of no choice that meets the target is the sum smaller, or, where the target is a KL, the size
  // of the groups in bytes.
  double bound = 0;
  std::optional<double> measured_kl;  // of the chosen together, where the target is a KL
  std::int64_t tokens = 0;            // of the text
};

struct QuantizeReport {
  std::string recipe;
  std::string format;      // of most weights, scale type included
  std::string convention;  // how the output is stored
  double bits_per_weight = 0;
  double bits_per_weight_total = 0;
  std::int64_t output_bytes = 0;
  double seconds = 0;
  std::int64_t peak_anon_bytes = 0;
  std::int64_t calibration_tokens = 0;  // statistics and search together
  std::optional<SearchReport> search;
  std::optional<MixedReport> mixed;
  std::optional<VerifyResult> verify;
  std::vector<LayerReport> layers;
  std::vector<std::string> notes;  // everything that was said aloud as a warning
};

// kUsage for options that cannot be meant (the target exists, the verification text is the
// calibration text, ...), kCorrupt for damaged input, with the tensor or layer, kQuality when
// verify.fail_above_kl was exceeded: the output is complete then. The report says what happened up
// to that point if `report` is given, also when this throws.
//
// `backend` works in the host's memory on the weights; `runner` runs the model on the texts, and
// may be one of a GPU: the text's hidden states, statistics and Hessians are there, a layer at a
// time, and solvers let it factor and multiply large matrices. What the runner rounds, the choices
// may show; `exact` backends round nothing.
QuantizeReport quantize(const QuantizeOptions& options, Backend& backend, Backend& runner,
                        QuantizeReport* report = nullptr);
// One backend for both.
QuantizeReport quantize(const QuantizeOptions& options, Backend& backend,
                        QuantizeReport* report = nullptr);

}  // namespace nibble
