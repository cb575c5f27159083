// SmoothQuant (arXiv 2211.10438): smoothing by one strength that is given.
#include "quantize/algorithm.h"
#include "quantize/smooth_site.h"

namespace nibble {
namespace {

void transform(TransformBlock& block, const Parameters& parameters, const SearchSpace&,
               const Choice&) {
  const bool norms_only = text(parameters, "sites") == "norms";
  for (Site& site : block.sites) {
    if (site.producer.kind == Producer::Kind::kNone) continue;
    if (norms_only && !is_norm_site(site.kind)) continue;
    smooth_site(block, site, text(parameters, "activation") == "rms", number(parameters, "alpha"));
  }
}

}  // namespace

Algorithm make_smoothquant() {
  Algorithm algorithm;
  algorithm.name = "smoothquant";
  algorithm.summary = "move the range of activations into the weights by a given strength";
  algorithm.kind = StepKind::kTransform;
  algorithm.needs = {CalibrationNeed::kStatistics, Scope::kBlock};
  algorithm.parameters = {
      {.name = "alpha",
       .value = 0.5,
       .help = "the share of the range that is moved: 0.5 to 0.9",
       .min = 0,
       .max = 1,
       .choices = {}},
      {.name = "sites",
       .value = std::string("all"),
       .help = "what is smoothed: all sites, or those behind norms alone, as in the paper",
       .choices = {"all", "norms"}},
      {.name = "activation",
       .value = std::string("max"),
       .help = "magnitude of a channel: its largest value, or its root mean square",
       .choices = {"max", "rms"}},
  };
  algorithm.only_smooths = true;
  algorithm.transform = transform;
  return algorithm;
}

}  // namespace nibble
