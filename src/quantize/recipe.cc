#include "quantize/recipe.h"

#include <algorithm>
#include <cmath>

#include "base/embedded.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/suggest.h"
#include "formats/registry.h"
#include "quantize/calibrators/calibrators.h"

namespace nibble {

std::span<const EmbeddedFile> bundled_recipe_files();

namespace {

constexpr std::int64_t kMaxTokens = std::int64_t{1} << 26;

// A JSON object whose keys are all asked for; any other key is an error.
class Fields {
 public:
  Fields(const Json& object, std::string where, std::vector<std::string> known)
      : object_(object), where_(std::move(where)) {
    if (!object.is_object()) fail(ErrorKind::kUsage, "{}: must be an object", where_);
    for (const auto& [key, value] : object.items()) {
      if (std::ranges::find(known, key) == known.end()) {
        fail(ErrorKind::kUsage, "{}: unknown key '{}'{}", where_, key, did_you_mean(key, known));
      }
    }
  }

  const Json* find(const std::string& key) const {
    const auto found = object_.find(key);
    return found == object_.end() ? nullptr : &*found;
  }

  void read(const std::string& key, std::string& value) const {
    const Json* json = find(key);
    if (json == nullptr) return;
    if (!json->is_string()) fail(ErrorKind::kUsage, "{}: '{}' must be text", where_, key);
    value = json->get<std::string>();
  }

  void read(const std::string& key, double& value, double min, double max) const {
    const Json* json = find(key);
    if (json == nullptr) return;
    value = json->is_number() ? json->get<double>() : std::nan("");
    if (!(value >= min && value <= max)) {
      fail(ErrorKind::kUsage, "{}: '{}' must be a number from {} to {}", where_, key, min, max);
    }
  }

  void read(const std::string& key, std::int64_t& value, std::int64_t min, std::int64_t max) const {
    const Json* json = find(key);
    if (json == nullptr) return;
    const bool in_range =
        json->is_number_integer() &&
        (json->is_number_unsigned() ? json->get<std::uint64_t>() <= static_cast<std::uint64_t>(max)
                                    : json->get<std::int64_t>() >= min);
    if (!in_range || json->get<std::int64_t>() < min) {
      fail(ErrorKind::kUsage, "{}: '{}' must be an integer from {} to {}", where_, key, min, max);
    }
    value = json->get<std::int64_t>();
  }

 private:
  const Json& object_;
  std::string where_;
};

ParameterValue parse_value(const ParameterSpec& spec, const Json& json, const std::string& where) {
  if (std::holds_alternative<bool>(spec.value)) {
    if (!json.is_boolean()) {
      fail(ErrorKind::kUsage, "{}: '{}' must be true or false", where, spec.name);
    }
    return json.get<bool>();
  }
  if (std::holds_alternative<double>(spec.value)) {
    const double value = json.is_number() ? json.get<double>() : std::nan("");
    if (!(value >= spec.min && value <= spec.max) || (spec.integer && value != std::floor(value))) {
      fail(ErrorKind::kUsage, "{}: '{}' must be {} from {} to {}", where, spec.name,
           spec.integer ? "an integer" : "a number", spec.min, spec.max);
    }
    return value;
  }
  const std::string value = json.is_string() ? json.get<std::string>() : "";
  if (std::ranges::find(spec.choices, value) == spec.choices.end()) {
    std::string choices;
    for (const std::string& choice : spec.choices)
      choices += (choices.empty() ? "" : ", ") + choice;
    fail(ErrorKind::kUsage, "{}: '{}' must be one of {}", where, spec.name, choices);
  }
  return value;
}

RecipeStep parse_step(const Json& json, const std::string& where) {
  if (!json.is_object() || !json.contains("algorithm") || !json["algorithm"].is_string()) {
    fail(ErrorKind::kUsage, "{}: must be an object with an 'algorithm'", where);
  }
  const auto name = json["algorithm"].get<std::string>();
  RecipeStep step;
  step.algorithm = find_algorithm(name);
  if (step.algorithm == nullptr) {
    std::vector<std::string> names;
    for (const Algorithm& algorithm : algorithms()) names.push_back(algorithm.name);
    fail(ErrorKind::kUsage, "{}: unknown algorithm '{}'{}", where, name, did_you_mean(name, names));
  }
  std::vector<std::string> known = {"algorithm"};
  for (const ParameterSpec& spec : step.algorithm->parameters) known.push_back(spec.name);
  const Fields fields(json, fmt::format("{} ({})", where, name), known);
  for (const ParameterSpec& spec : step.algorithm->parameters) {
    const Json* value = fields.find(spec.name);
    step.parameters[spec.name] = value == nullptr ? spec.value : parse_value(spec, *value, where);
  }
  return step;
}

// Rewrites come first; transforms and searches before the one solver, corrections behind it; two
// searches would each be judged with the other undone.
void check_steps(const Recipe& recipe, const std::string& what) {
  if (recipe.steps.empty()) fail(ErrorKind::kUsage, "{}: has no steps", what);
  int searches = 0;
  bool measured = false;
  // Corrections come behind the solver.
  std::size_t end = recipe.steps.size();
  while (end > 1 && recipe.steps[end - 1].algorithm->kind == StepKind::kCorrection) --end;
  for (std::size_t i = 0; i < end; ++i) {
    const Algorithm& algorithm = *recipe.steps[i].algorithm;
    const bool last = i + 1 == end;
    if (algorithm.kind == StepKind::kSolver && !last) {
      fail(ErrorKind::kUsage, "{}: '{}' is a solver and must be the last step but for corrections",
           what, algorithm.name);
    }
    if (algorithm.kind == StepKind::kCorrection && !last) {
      fail(ErrorKind::kUsage, "{}: '{}' corrects what a solver rounded and must come after it",
           what, algorithm.name);
    }
    if (algorithm.kind != StepKind::kSolver && last) {
      fail(ErrorKind::kUsage, "{}: the last step must be a solver (rtn, say), not '{}'", what,
           algorithm.name);
    }
    if (algorithm.kind == StepKind::kRewrite && measured) {
      fail(ErrorKind::kUsage, "{}: '{}' changes the whole model and must come before '{}'", what,
           algorithm.name, recipe.steps[i - 1].algorithm->name);
    }
    measured = measured || algorithm.kind != StepKind::kRewrite;
    searches += algorithm.kind == StepKind::kSearch ? 1 : 0;
  }
  for (const RecipeStep& step : recipe.steps) {
    const bool by_output = step.algorithm->kind == StepKind::kTransform &&
                           step.needs().calibration == CalibrationNeed::kHessian;
    if (searches > 0 && by_output) {
      fail(ErrorKind::kUsage,
           "{}: '{}' chooses by the inputs of each block, which a search over "
           "whole models does not have; leave out one of the two",
           what, step.algorithm->name);
    }
  }
  if (searches > 1) fail(ErrorKind::kUsage, "{}: has {} searches; one at most", what, searches);
}

void parse_calibration(const Json& json, const std::string& what, CalibrationOptions& options) {
  const Fields fields(json, what + ": calibration",
                      {"tokens", "search_tokens", "context", "range", "percentile", "gamma"});
  fields.read("tokens", options.tokens, 1, kMaxTokens);
  fields.read("search_tokens", options.search_tokens, 1, kMaxTokens);
  fields.read("context", options.context, 2, kMaxTokens);
  fields.read("range", options.range);
  if (!options.range.empty()) find_calibrator(options.range);
  fields.read("percentile", options.percentile, 1e-3, 100);
  fields.read("gamma", options.gamma, 1e-3, 1e6);
}

std::string stem(std::string_view file_name) {
  return std::string(file_name.substr(0, file_name.size() - std::string_view(".json").size()));
}

std::string canonical(const ParameterValue& value) {
  if (const bool* b = std::get_if<bool>(&value)) return *b ? "true" : "false";
  if (const double* d = std::get_if<double>(&value)) return fmt::format("{}", *d);
  return std::get<std::string>(value);
}

}  // namespace

Needs RecipeStep::needs() const {
  return algorithm->needs_of == nullptr ? algorithm->needs : algorithm->needs_of(parameters);
}

bool Recipe::needs_text() const { return needs_statistics() || needs_stream(); }

bool Recipe::needs_stream() const {
  return std::ranges::any_of(steps, [](const RecipeStep& step) {
    const CalibrationNeed need = step.needs().calibration;
    return need == CalibrationNeed::kHessian || need == CalibrationNeed::kActivations;
  });
}

const RecipeStep& Recipe::solver() const {
  const auto found = std::ranges::find(steps, StepKind::kSolver,
                                       [](const RecipeStep& step) { return step.algorithm->kind; });
  NIBBLE_CHECK(found != steps.end());
  return *found;
}

bool Recipe::needs_statistics() const {
  return std::ranges::any_of(steps, [](const RecipeStep& step) {
    return step.needs().calibration == CalibrationNeed::kStatistics;
  });
}

bool Recipe::needs_hessians() const {
  return std::ranges::any_of(steps, [](const RecipeStep& step) {
    return step.needs().calibration == CalibrationNeed::kHessian;
  });
}

bool Recipe::transforms_need_hessians() const {
  return std::ranges::any_of(steps, [](const RecipeStep& step) {
    return step.algorithm->transform != nullptr &&
           step.needs().calibration == CalibrationNeed::kHessian;
  });
}

bool Recipe::needs_search() const {
  return std::ranges::any_of(
      steps, [](const RecipeStep& step) { return step.algorithm->kind == StepKind::kSearch; });
}

Recipe parse_recipe(std::string_view json_text, const std::string& what) {
  JsonLimits limits;
  limits.max_bytes = std::size_t{1} << 20;
  limits.max_depth = 16;
  const Json json = parse_json(json_text, what, limits);
  const Fields fields(json, what, {"description", "aliases", "format", "calibration", "steps"});
  Recipe recipe;
  recipe.name = what;
  fields.read("description", recipe.description);
  fields.read("format", recipe.format);
  parse_model_format(recipe.format);  // an unknown format is met here, not after calibration
  if (const Json* aliases = fields.find("aliases")) {
    if (!aliases->is_array()) fail(ErrorKind::kUsage, "{}: 'aliases' must be a list", what);
    for (const Json& alias : *aliases) {
      if (!alias.is_string()) fail(ErrorKind::kUsage, "{}: an alias must be text", what);
      recipe.aliases.push_back(alias.get<std::string>());
    }
  }
  if (const Json* calibration = fields.find("calibration")) {
    parse_calibration(*calibration, what, recipe.calibration);
  }
  const Json* steps = fields.find("steps");
  if (steps == nullptr || !steps->is_array()) {
    fail(ErrorKind::kUsage, "{}: needs 'steps', a list", what);
  }
  for (std::size_t i = 0; i < steps->size(); ++i) {
    recipe.steps.push_back(parse_step((*steps)[i], fmt::format("{}: step {}", what, i + 1)));
  }
  check_steps(recipe, what);
  return recipe;
}

const std::vector<Recipe>& bundled_recipes() {
  static const std::vector<Recipe> recipes = [] {
    std::vector<Recipe> all;
    for (const EmbeddedFile& file : bundled_recipe_files()) {
      all.push_back(parse_recipe(file.content, stem(file.name)));
    }
    std::ranges::sort(all, {}, &Recipe::name);
    return all;
  }();
  return recipes;
}

Recipe load_recipe(const std::string& name_or_path) {
  std::vector<std::string> names;
  for (const Recipe& recipe : bundled_recipes()) {
    names.push_back(recipe.name);
    names.insert(names.end(), recipe.aliases.begin(), recipe.aliases.end());
    if (recipe.name == name_or_path ||
        std::ranges::find(recipe.aliases, name_or_path) != recipe.aliases.end()) {
      return recipe;
    }
  }
  const bool is_path =
      name_or_path.find('/') != std::string::npos || name_or_path.ends_with(".json");
  if (!is_path) {
    fail(ErrorKind::kUsage, "recipe '{}' is unknown{} (see `nibble list recipes`)", name_or_path,
         did_you_mean(name_or_path, names));
  }
  return parse_recipe(read_text_file(name_or_path), name_or_path);
}

std::unique_ptr<Checkpoint> rewritten(const Recipe& recipe, std::unique_ptr<Checkpoint> source,
                                      Backend& backend, std::vector<std::string>& notes) {
  for (const RecipeStep& step : recipe.steps) {
    if (step.algorithm->rewrite == nullptr) continue;
    source = step.algorithm->rewrite({std::move(source), backend, notes}, step.parameters);
  }
  return source;
}

std::string to_string(const Recipe& recipe) {
  std::string result =
      fmt::format("format {} calibration {} {} {}", recipe.format, recipe.calibration.tokens,
                  recipe.calibration.search_tokens, recipe.calibration.context);
  for (const RecipeStep& step : recipe.steps) {
    result += "; " + step.algorithm->name;
    for (const auto& [name, value] : step.parameters) {
      result += fmt::format(" {}={}", name, canonical(value));
    }
  }
  return result;
}

}  // namespace nibble
