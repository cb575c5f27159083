// SmoothQuant+ (arXiv 2312.03788): smoothing whose strength alpha is chosen by the loss of the
// whole quantized model. Our reading of the paper, whose search was never released: alpha from a
// grid, and the unsmoothed model is always a candidate.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "quantize/algorithm.h"
#include "quantize/smooth_site.h"

namespace nibble {
namespace {

constexpr int kIdentity = 0;  // the first option of every coordinate

double alpha_of(int option, double step) { return (option - 1) * step; }

SearchSpace space(const Parameters& parameters, std::span<const SiteKind> kinds) {
  const double step = number(parameters, "step");
  const int count = static_cast<int>(std::floor(1 / step + 1e-9)) + 1;
  SearchSpace result;
  std::vector<std::string> labels = {"identity"};
  for (int i = 1; i <= count; ++i) labels.push_back(fmt::format("{:.4g}", alpha_of(i, step)));
  for (const SiteKind kind : kinds) {
    result.coordinates.push_back(to_string(kind));
    result.options.push_back(labels);
  }

  const std::string& sites = text(parameters, "sites");
  result.starts.emplace_back(kinds.size(), kIdentity);
  const auto add_starts = [&](bool norms_only) {
    for (int option = 1; option <= count; ++option) {
      Choice choice;
      for (const SiteKind kind : kinds) {
        choice.push_back(norms_only && !is_norm_site(kind) ? kIdentity : option);
      }
      if (std::ranges::find(result.starts, choice) == result.starts.end()) {
        result.starts.push_back(std::move(choice));
      }
    }
  };
  if (sites != "norms") add_starts(false);
  if (sites != "all") add_starts(true);
  result.descend = flag(parameters, "per_site");
  result.max_rounds = static_cast<int>(number(parameters, "max_rounds"));
  return result;
}

void transform(TransformBlock& block, const Parameters& parameters, const SearchSpace& space,
               const Choice& choice) {
  for (Site& site : block.sites) {
    if (site.producer.kind == Producer::Kind::kNone) continue;
    const auto coordinate = std::ranges::find(space.coordinates, to_string(site.kind));
    if (coordinate == space.coordinates.end()) continue;
    const int option = choice[static_cast<std::size_t>(coordinate - space.coordinates.begin())];
    if (option == kIdentity) continue;
    smooth_site(block, site, text(parameters, "activation") == "rms",
                alpha_of(option, number(parameters, "step")));
  }
}

Needs needs_of(const Parameters& parameters) {
  Needs needs = {CalibrationNeed::kStatistics, Scope::kModel};
  needs.solves_candidates = text(parameters, "judge") == "solver";
  return needs;
}

}  // namespace

Algorithm make_smoothquant_plus() {
  Algorithm algorithm;
  algorithm.name = "smoothquant_plus";
  algorithm.summary = "smooth by the strength with the least loss of the whole quantized model";
  algorithm.kind = StepKind::kSearch;
  algorithm.needs = {CalibrationNeed::kStatistics, Scope::kModel};
  algorithm.parameters = {
      {.name = "step",
       .value = 0.05,
       .help = "distance of the strengths tried, from 0 to 1",
       .min = 0.01,
       .max = 1,
       .choices = {}},
      {.name = "sites",
       .value = std::string("any"),
       .help = "what one strength is given to: all sites, those behind norms, or any of the two "
               "(the better one)",
       .choices = {"all", "norms", "any"}},
      {.name = "per_site",
       .value = false,
       .help = "then improve the strength of each kind of site by coordinate descent",
       .choices = {}},
      {.name = "max_rounds",
       .value = 2.0,
       .help = "rounds of coordinate descent",
       .min = 1,
       .max = 10,
       .integer = true,
       .choices = {}},
      {.name = "activation",
       .value = std::string("max"),
       .help = "magnitude of a channel: its largest value, or its root mean square",
       .choices = {"max", "rms"}},
      {.name = "judge",
       .value = std::string("grids"),
       .help =
           "what candidates are rounded by: the grids of the solver alone, or all it does, with "
           "the correlations of the unquantized inputs",
       .choices = {"grids", "solver"}},
  };
  algorithm.needs_of = needs_of;
  algorithm.space = space;
  algorithm.only_smooths = true;
  algorithm.transform = transform;
  return algorithm;
}

}  // namespace nibble
