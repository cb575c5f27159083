#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>
#include <optional>
#include <set>

#include "base/error.h"
#include "quantize/calibration_stream.h"
#include "quantize/candidate_layer.h"
#include "quantize/output_loss.h"
#include "quantize/passes.h"
#include "quantize/screening.h"

namespace nibble {
namespace {

constexpr std::int64_t kMaxHiddenBytes = std::int64_t{512} << 20;  // of all candidates of a batch

// The index of the least loss; the first of equals. A loss that is no number never wins.
std::size_t least(const std::vector<double>& losses) {
  std::size_t best = 0;
  for (std::size_t i = 1; i < losses.size(); ++i) {
    if (losses[i] < losses[best] || std::isnan(losses[best])) best = i;
  }
  return best;
}

struct Found {
  Choice choice;
  double loss = 0;
};

// Correlations of the inputs of one layer after the other, in the source.
class SourceInputs {
 public:
  SourceInputs(const Job& job, std::int64_t first_layer) : job_(job), stream_(job, 0, false) {
    for (std::int64_t layer = 0; layer < first_layer; ++layer) {
      stream_.advance(layer, load_layer(job.spec, layer, job.source, job.backend), nullptr);
    }
  }

  // Of the next layer, whose weights these are.
  LayerHessians next(std::int64_t layer, LayerWeights& weights) {
    prepare_layer(weights, job_.backend);
    std::set<std::string> wanted;
    for (const Site& site : sites(job_.spec, weights)) {
      wanted.insert(site.inputs.begin(), site.inputs.end());
    }
    LayerHessians hessians = stream_.observe(layer, weights, nullptr, wanted);
    stream_.advance(layer, weights, nullptr);
    return hessians;
  }

 private:
  const Job& job_;
  CalibrationStream stream_;
};

// Runs batches of candidates through the whole model and keeps their losses.
class CandidateRunner {
 public:
  // `solves`: candidates are solved with correlations (Needs::solves_candidates).
  CandidateRunner(const Job& job, const Calibration& calibration, const SearchSpace& space,
                  bool solves)
      : job_(job),
        calibration_(calibration),
        space_(space),
        solves_(solves),
        screening_(job.windows) {}

  // The best by its loss on all windows, among the first of `choices` and those that do best on
  // the screening windows.
  Found best_of(const std::vector<Choice>& choices) {
    const std::vector<Choice> finalists = screen(choices);
    const std::vector<double> found = losses(finalists, screening_.rows);
    const std::size_t winner = least(found);
    return {finalists[winner], found[winner]};
  }

  double loss(const Choice& choice) { return losses({choice}, screening_.rows).front(); }

  std::int64_t candidates() const {
    std::set<Choice> distinct;
    for (const auto& [key, loss] : known_) distinct.insert(key.second);
    return static_cast<std::int64_t>(distinct.size());
  }

 private:
  std::vector<Choice> screen(const std::vector<Choice>& choices) {
    if (!screening_.applies(choices.size())) return choices;
    const std::vector<double> found = losses(choices, screening_.first_rows);
    std::vector<std::size_t> order(choices.size());
    std::iota(order.begin(), order.end(), 0);
    // The first stays the first whatever its loss; a loss that is no number goes last.
    std::stable_sort(order.begin() + 1, order.end(), [&](std::size_t a, std::size_t b) {
      return !std::isnan(found[a]) && (std::isnan(found[b]) || found[a] < found[b]);
    });
    std::vector<Choice> finalists;
    for (std::size_t i = 0; i < Screening::kFinalists; ++i) finalists.push_back(choices[order[i]]);
    return finalists;
  }

  // Losses over the first `rows` tokens, in the order of `choices`.
  std::vector<double> losses(const std::vector<Choice>& choices, std::int64_t rows) {
    std::vector<Choice> missing;
    for (const Choice& choice : choices) {
      if (!known_.contains({rows, choice}) && std::ranges::find(missing, choice) == missing.end()) {
        missing.push_back(choice);
      }
    }
    const std::int64_t bytes = rows * job_.spec.hidden * static_cast<std::int64_t>(sizeof(float));
    const auto batch = static_cast<std::size_t>(std::max<std::int64_t>(1, kMaxHiddenBytes / bytes));
    for (std::size_t begin = 0; begin < missing.size(); begin += batch) {
      const std::size_t count = std::min(batch, missing.size() - begin);
      sweep(std::span(missing).subspan(begin, count), rows);
    }
    std::vector<double> result;
    for (const Choice& choice : choices) result.push_back(known_.at({rows, choice}));
    return result;
  }

  void sweep(std::span<const Choice> choices, std::int64_t rows) {
    const std::string name = fmt::format("sweep{}", sweeps_++);
    std::vector<double> result;
    if (job_.journal.has(name)) {
      const std::string stored = job_.journal.get(name);
      result.resize(stored.size() / sizeof(double));
      std::memcpy(result.data(), stored.data(), result.size() * sizeof(double));
    } else {
      result = run_layers(choices, rows, name);
      job_.journal.put(
          name, {reinterpret_cast<const char*>(result.data()), result.size() * sizeof(double)});
      forget_before(name, job_.spec.layers);
    }
    NIBBLE_CHECK(result.size() == choices.size());
    for (std::size_t i = 0; i < choices.size(); ++i) known_[{rows, choices[i]}] = result[i];
  }

  // Hidden states of a sweep that were saved after the layers before this one.
  void forget_before(const std::string& sweep, std::int64_t layer) {
    while (layer-- > 0) job_.journal.remove(fmt::format("{}.{}", sweep, layer));
  }

  std::vector<double> run_layers(std::span<const Choice> choices, std::int64_t rows,
                                 const std::string& name) {
    const std::int64_t layers = job_.spec.layers;
    HiddenStates hidden(job_.runner, static_cast<std::int64_t>(choices.size()) * rows,
                        job_.spec.hidden);
    std::int64_t layer = layers - 1;
    while (layer >= 0 && !job_.journal.has(fmt::format("{}.{}", name, layer))) --layer;
    if (layer >= 0) {
      hidden.restore(job_.journal, fmt::format("{}.{}", name, layer));
    } else {
      embed(hidden, rows);
    }
    const std::string step =
        fmt::format("search {} ({} candidates, {} tokens)", sweeps_, choices.size(), rows);
    std::optional<SourceInputs> inputs;
    if (solves_) inputs.emplace(job_, layer + 1);
    for (++layer; layer < layers; ++layer) {
      progress(job_.options.progress, step, layer, layers);
      run_layer_for_all(layer, choices, rows, inputs ? &*inputs : nullptr, hidden);
      if (!job_.journal.due()) continue;
      hidden.save(job_.journal, fmt::format("{}.{}", name, layer));
      forget_before(name, layer);
    }
    progress(job_.options.progress, step, layers, layers);
    return output_losses(job_.spec, job_.source, calibration_.reference->row(0), hidden.row(0),
                         choices.size(), rows, job_.runner);
  }

  std::span<const std::int32_t> ids(std::int64_t rows) const {
    return std::span(job_.windows.search).first(static_cast<std::size_t>(rows));
  }

  // The same for every candidate, `rows` each.
  void embed(HiddenStates& hidden, std::int64_t rows) {
    const EmbeddingWeights weights = load_embedding(job_.spec, job_.source, job_.runner);
    embed_windows(job_.spec, weights, ids(rows), job_.windows.context, job_.runner, hidden.row(0));
    for (std::int64_t to = rows; to < hidden.rows(); to += rows) hidden.copy(hidden, 0, rows, to);
  }

  void run_layer_for_all(std::int64_t layer, std::span<const Choice> choices, std::int64_t rows,
                         SourceInputs* inputs, HiddenStates& hidden) {
    CandidateLayer made(job_, layer);
    LayerHessians hessians;
    if (inputs != nullptr) hessians = inputs->next(layer, made.original());
    const LayerStatistics& seen = calibration_.layers[static_cast<std::size_t>(layer)];
    for (std::size_t i = 0; i < choices.size(); ++i) {
      run_windows(job_.spec, layer, made.rounded({space_, choices[i]}, seen, hessians), ids(rows),
                  job_.windows.context, job_.runner,
                  hidden.row(static_cast<std::int64_t>(i) * rows));
    }
  }

  const Job& job_;
  const Calibration& calibration_;
  const SearchSpace& space_;
  bool solves_;
  const Screening screening_;
  std::map<std::pair<std::int64_t, Choice>, double> known_;  // by the tokens of the loss
  int sweeps_ = 0;
};

// One round over all coordinates; false when nothing became better.
bool improve_each_coordinate(const SearchSpace& space, CandidateRunner& runner, Found& best) {
  bool improved = false;
  for (std::size_t coordinate = 0; coordinate < space.coordinates.size(); ++coordinate) {
    std::vector<Choice> choices = {best.choice};
    for (std::size_t option = 0; option < space.options[coordinate].size(); ++option) {
      Choice choice = best.choice;
      choice[coordinate] = static_cast<int>(option);
      if (choice != best.choice) choices.push_back(std::move(choice));
    }
    Found found = runner.best_of(choices);
    if (found.choice == best.choice) continue;
    best = std::move(found);
    improved = true;
  }
  return improved;
}

const RecipeStep* find_search(const Recipe& recipe) {
  for (const RecipeStep& step : recipe.steps) {
    if (step.algorithm->kind == StepKind::kSearch) return &step;
  }
  return nullptr;
}

}  // namespace

RecipePoint run_search(const Job& job, const Calibration& calibration) {
  const RecipeStep* step = find_search(job.options.recipe);
  if (step == nullptr) return {};
  const std::vector<SiteKind> kinds = smoothable_kinds(job.spec, job.source, job.backend);
  if (kinds.empty()) job.note("no site of this architecture can be smoothed exactly");
  const SearchSpace space = step->algorithm->space(step->parameters, kinds);
  CandidateRunner runner(job, calibration, space, step->needs().solves_candidates);
  Found best = runner.best_of(space.starts);
  for (int round = 0; space.descend && round < space.max_rounds; ++round) {
    if (!improve_each_coordinate(space, runner, best)) break;
  }

  SearchReport report;
  for (std::size_t i = 0; i < space.coordinates.size(); ++i) {
    report.chosen.emplace_back(space.coordinates[i],
                               space.options[i][static_cast<std::size_t>(best.choice[i])]);
  }
  report.loss = best.loss;
  report.identity_loss = runner.loss(space.starts.front());
  report.candidates = runner.candidates();
  job.report.search = report;
  return {space, best.choice};
}

}  // namespace nibble
