// Several recipes and formats on one model: what each costs and gives.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/log.h"
#include "quantize/quantize.h"
#include "study/result_cache.h"

namespace nibble {

struct CompareRow {
  std::string recipe;  // empty: the source as it is
  std::string format;  // as it was asked for
  std::string stored;  // what most weights are stored as
  double bits_per_weight = 0, bits_per_weight_total = 0;
  double bytes = 0;  // of the tensors of the checkpoint
  double perplexity = 0;
  double stderr_nll = 0;  // standard error of the mean negative log-likelihood, nats
  double mean_kl = 0, p99_kl = 0;
  double top1_agreement = 0;
  double seconds = 0;            // of the quantization
  double peak_anon_bytes = 0;    // of the same
  double tokens_per_second = 0;  // decoding, one sequence
  bool pareto = false;           // nothing is as small with a mean KL as low
};

// "as it is" for the source, otherwise "RECIPE in FORMAT".
std::string name_of(const CompareRow& row);

struct CompareOptions {
  std::filesystem::path source;
  std::vector<Recipe> recipes;
  // Names in the format grammar; empty: each recipe's own.
  std::vector<std::string> formats;
  std::vector<std::filesystem::path> calibration_files;  // empty: the bundled text
  CalibrationOptions calibration = {0, 0, 0};            // positive values replace the recipe's
  std::filesystem::path text;                            // held out
  std::int64_t tokens = 65536;                           // of it, at most
  std::int64_t context = 1024;                           // of a window
  std::filesystem::path work;  // where checkpoints are written while they are looked at
  bool keep = false;           // and left there
  LogSink log;
  ProgressSink progress;
};

// The backends of a comparison. The first two are those of quantize(), the runner that of quality
// as well; speed is that of `fast`, with the kernels that round activations.
struct CompareBackends {
  Backend& backend;
  Backend& runner;
  Backend& fast;
};

// The source first, then the rows by size, those of one size by KL. Each is said (as information)
// and kept as soon as it is there: finished rows, and finished quantizations, are taken from the
// cache; an interrupted quantization continues. A recipe that cannot make a format is left out,
// with a warning. kUsage when nothing is left to compare or the text is in the calibration text;
// otherwise errors as quantize() and divergence().
std::vector<CompareRow> compare_recipes(const CompareOptions& options, const ResultCache& cache,
                                        const CompareBackends& backends);

// Marks the rows that nothing beats in size and mean KL at once.
void mark_pareto(std::vector<CompareRow>& rows);

}  // namespace nibble
