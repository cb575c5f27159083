// The k-bit scaling law (arXiv 2212.09720): quality against the total bits of a model, for every
// data type, width and size of block.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/log.h"
#include "model/model.h"
#include "study/data_types.h"
#include "study/result_cache.h"

namespace nibble {

struct ScalingRow {
  std::string model;
  WeightRounding rounding;
  double bits_per_weight = 0;  // of the blocks' linear layers, scales and codebooks counted
  double total_bits = 0;       // those and all other parameters at 16 bits
  double perplexity = 0;
  double stderr_nll = 0;     // standard error of the mean negative log-likelihood, nats
  double bits_per_byte = 0;  // of the text: comparable between vocabularies
  double mean_kl = 0;        // KL(as stored || rounded), nats
  double top1_agreement = 0;
  bool shown = true;  // false: a float of the same width and block is closer to the model
};

// A model, the text as its tokens, and how much of the text one token is.
struct ScalingModel {
  std::string name;
  const ModelSpec& spec;
  const WeightSource& source;
  std::string hash;               // hash_model()
  std::vector<std::int32_t> ids;  // whole windows count; the rest is left out
  double bytes_per_token = 0;     // mean over the text
};

struct ScalingOptions {
  std::int64_t context = 512;  // tokens of a window
  LogSink log;
  ProgressSink progress;
};

// One row a setting, in the order given. Rows that the cache has are not computed; each batch of
// settings is stored as soon as it is known, so that a run that is interrupted loses one batch.
// The bytes of a row do not depend on the batches, interruptions or the number of threads.
//
// Weights are rounded in float32 while one block of the model is in memory; the settings of a
// batch advance together. kUnsupported for encoders, kUsage for texts of fewer than two tokens,
// kCorrupt for weights that are not finite.
std::vector<ScalingRow> study_scaling(const ScalingModel& model,
                                      std::span<const WeightRounding> settings,
                                      const ScalingOptions& options, const ResultCache& cache,
                                      Backend& backend);

// Of the floats of one model, width and block only the one of the least KL stays shown.
void choose_floats(std::vector<ScalingRow>& rows);

// The rows of the lower envelope of quality against size: nothing shown is smaller and has a
// perplexity as low. Ordered by size; indices into `rows`, which are of one model.
std::vector<std::size_t> lower_envelope(std::span<const ScalingRow> rows);

}  // namespace nibble
