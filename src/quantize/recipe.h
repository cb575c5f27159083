// Recipes: which algorithms run, in which order, with which parameters.
//
//   {
//     "description": "...",                       optional
//     "aliases": ["sq+"],                         optional, bundled recipes only
//     "format": "w4a16_g128",                     optional; the format grammar (formats/registry.h)
//     "calibration": {"tokens": 32768, "search_tokens": 4096, "context": 512,    optional
//                     "range": "minmax", "percentile": 99.99, "gamma": 3},
//     "steps": [{"algorithm": "smoothquant_plus", "per_site": true}, {"algorithm": "rtn"}]
//   }
//
// Steps run in order, rewrites first; the last one but for corrections is the only solver.
// Everything beside "algorithm" in a step is a parameter of that algorithm. Bundled recipes are the
// files of recipes/, named after the file.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "quantize/algorithm.h"

namespace nibble {

struct CalibrationOptions {
  std::int64_t tokens = 32768;        // for statistics
  std::int64_t search_tokens = 4096;  // held back from the statistics, to judge candidates
  std::int64_t context = 512;         // tokens of a window
  // How static scales of activations follow from the text: a calibrator (calibrators.h), and its
  // parameters. Empty: minmax; 0: the calibrator's default.
  std::string range = {};
  double percentile = 0;
  double gamma = 0;
};

struct RecipeStep {
  const Algorithm* algorithm = nullptr;
  Parameters parameters;  // all of them, defaults filled in

  Needs needs() const;
};

struct Recipe {
  std::string name;  // of the bundled recipe, or the path
  std::string description;
  std::vector<std::string> aliases;
  std::string format = "w4a16_g128";
  CalibrationOptions calibration;
  std::vector<RecipeStep> steps;

  bool needs_text() const;        // of calibration
  bool needs_statistics() const;  // of the source
  // Whether a step sees the text in the model as it is being quantized.
  bool needs_stream() const;
  bool needs_hessians() const;
  bool transforms_need_hessians() const;
  bool needs_search() const;
  const RecipeStep& solver() const;
  bool corrects() const { return steps.back().algorithm->kind == StepKind::kCorrection; }
};

// kUsage, naming `what` and the place, for unknown keys and algorithms (with the nearest known
// ones), values out of range, and steps that do not make a recipe; kCorrupt when it is no JSON.
Recipe parse_recipe(std::string_view json, const std::string& what);

// A bundled recipe by name or alias, or a JSON file by path (anything with a '/' or ending in
// ".json"). kUsage with the nearest names when there is none.
Recipe load_recipe(const std::string& name_or_path);

// All bundled recipes, by name.
const std::vector<Recipe>& bundled_recipes();

// The source as the recipe's rewrites leave it. What could not be done as asked is added to
// `notes`.
std::unique_ptr<Checkpoint> rewritten(const Recipe& recipe, std::unique_ptr<Checkpoint> source,
                                      Backend& backend, std::vector<std::string>& notes);

// One canonical spelling of everything that decides the result.
std::string to_string(const Recipe& recipe);

}  // namespace nibble
