// Mixed precision: formats chosen module by module so that the model meets a size, or a distance
// from its source, at least loss or size. What EXL2 does with the error of layers, with the KL
// divergence of the whole model's output.
//
// 1. The cost of each (group of modules, format) is measured: the mean KL on held-back text when
//    this group alone is stored so and everything else is the source's.
// 2. Costs of small errors add up, so the choice is a knapsack (math/allocation.h).
// 3. For a bound on the KL the chosen model is measured as a whole, and the sum corrected by what
//    it says.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "quantize/measurements.h"
#include "quantize/output_plan.h"
#include "quantize/passes.h"

namespace nibble {

// Modules of one layer that share a format: what engines fuse, (q, k, v), (gate, up); of a mixture
// of experts all that the experts hold.
struct FusedGroup {
  std::int64_t layer = 0;
  std::string name;  // of the site that they read, "attn_in", ...; "experts"
  std::vector<std::string> modules;
};
std::vector<FusedGroup> fused_groups(const ModelSpec& spec, std::int64_t layer,
                                     LayerWeights& weights);

// Formats to choose from: for each a plan of the model in it alone.
struct FormatMenu {
  std::vector<std::string> names;
  std::vector<OutputPlan> plans;
  std::vector<FusedGroup> groups;  // layer by layer

  const FormatPtr& format(std::size_t option, const std::string& module) const {
    return plans[option].find(module).format;
  }
  // Of every module of the groups, by one index for each group.
  ModuleFormats formats(const std::vector<int>& choice) const;
};

bool is_complete(const FormatMenu& menu, const Measurements& measurements);

// Hidden states of the held-back windows after the last layer of the source, [tokens, hidden]:
// Calibration::reference, where no pass over the text has left it.
std::shared_ptr<const HiddenStates> source_output(const Job& job);

// Measures what is missing, layer by layer, and saves it. Linears are solved by the recipe's solver
// on the inputs that the source gives them. Needs calibration.reference, as the next one.
void run_measure_pass(const Job& job, const Calibration& calibration, const RecipePoint& point,
                      const FormatMenu& menu, Measurements& measurements);

// The mean KL of the whole model on the same text, every module of a group in the format chosen.
double measure_together(const Job& job, const Calibration& calibration, const RecipePoint& point,
                        const ModuleFormats& formats);

// Makes the choice for the target of job.options.mixed and says it in job.report.mixed. kUsage,
// with what can be reached, when no choice meets the target. `plan_of` gives the output plan of
// chosen formats.
ModuleFormats choose_formats(const Job& job, const Calibration& calibration,
                             const RecipePoint& point, const FormatMenu& menu,
                             const Measurements& measurements,
                             const std::function<OutputPlan(const ModuleFormats&)>& plan_of);

}  // namespace nibble
