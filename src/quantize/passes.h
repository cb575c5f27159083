// The passes of a quantization over the layers of a model. Each saves what it has after every
// layer and takes up from there.
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "checkpoint/writer.h"
#include "quantize/block.h"
#include "quantize/calibration.h"
#include "quantize/hidden_states.h"
#include "quantize/journal.h"
#include "quantize/quantize.h"

namespace nibble {

// What all passes share. References outlive the job.
struct Job {
  const QuantizeOptions& options;
  Backend& backend;  // transforms, solves and encodes weights, in the host's memory
  Backend& runner;   // runs layers on texts, and large products of solvers; may be the same
  const Checkpoint& source;
  const ModelSpec& spec;
  const OutputPlan& plan;
  const CalibrationWindows& windows;
  const CalibrationOptions& calibration;  // those of the recipe, but for what the user set
  Journal& journal;
  QuantizeReport& report;

  // Logs a fallback and keeps it for the report.
  void note(const std::string& message) const;
  // Type in which the norms of the blocks are stored.
  DType norm_type() const;
};

TransformContext transform_context(const Job& job);

// What the unquantized model does on the calibration text.
struct Calibration {
  std::vector<LayerStatistics> layers;
  // Hidden states of the search windows after the last layer, where the runner has them; null
  // without.
  std::shared_ptr<const HiddenStates> reference;
};

// One forward pass of the source. Experts that no token was sent to are said aloud, once.
Calibration run_statistics_pass(const Job& job);

// Compares candidates by the loss of the whole quantized model: all of a batch advance together,
// layer by layer. Fills report.search.
RecipePoint run_search(const Job& job, const Calibration& calibration);

// Transforms, solves and writes every layer, then what lies outside the blocks. Fills
// report.layers. The plan with the formats that the solver chose.
OutputPlan run_write_pass(const Job& job, const Calibration& calibration, const RecipePoint& point,
                          ShardedWriter& writer);

}  // namespace nibble
