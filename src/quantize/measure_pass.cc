#include <algorithm>

#include "base/error.h"
#include "quantize/calibration_stream.h"
#include "quantize/layer_solver.h"
#include "quantize/mixed_precision.h"
#include "quantize/output_loss.h"

namespace nibble {
namespace {

constexpr std::int64_t kMaxVariantBytes = std::int64_t{512} << 20;  // of all variants of a batch

// The layers of the source one after the other, each with what its linears are solved by: its
// inputs in the source, on the calibration text.
class LayerFeed {
 public:
  struct Layer {
    LayerWeights weights;  // transformed, not rounded
    LayerHessians hessians;
    LayerStatistics statistics;
  };

  LayerFeed(const Job& job, const Calibration& calibration, const RecipePoint& point)
      : job_(job), calibration_(calibration), point_(point) {
    if (job.options.recipe.needs_hessians()) {
      stream_.emplace(job, 0, false);
    }
  }

  // Call for every layer in order. `solved`: linears of it will be rounded.
  Layer next(bool solved = true) {
    Layer layer{load_layer_f32(job_.spec, at_, job_.source, job_.backend), {}, {}};
    check_finite(layer.weights, job_.backend.pool());
    if (!calibration_.layers.empty()) {
      layer.statistics = calibration_.layers[static_cast<std::size_t>(at_)];
    }
    const Recipe& recipe = job_.options.recipe;
    if (recipe.steps.size() > 1) {
      const LayerHessians hessians =
          recipe.transforms_need_hessians() ? observe(layer.weights) : LayerHessians();
      transform_layer(transform_context(job_), point_, hessians, layer.weights, layer.statistics);
      prepare_layer(layer.weights, job_.backend);
    }
    if (solved && recipe.solver().needs().calibration == CalibrationNeed::kHessian) {
      layer.hessians = observe(layer.weights);
    }
    if (stream_) stream_->advance(at_, layer.weights, nullptr);
    ++at_;
    return layer;
  }

  // Rounds some linears of `weights`, a copy of layer.weights.
  template <class FormatOf>
  void round(const Layer& layer, LayerWeights& weights, const FormatOf& format_of) {
    const auto names = statistics_names(sites(job_.spec, weights));
    for (Linear* linear : weights.linears()) {
      const FormatPtr format = format_of(linear->module);
      if (format == nullptr || format->is_float()) continue;
      const SolverInputs inputs = solver_inputs(layer.hessians, layer.statistics, names.at(linear));
      const Solution solution =
          solve_linear(job_.options.recipe, {format}, *linear, inputs.second_moment, inputs.hessian,
                       job_.backend.codec(), job_.runner);
      decode_all(solution.stored, linear->weight.canonical.planes[0].mutable_data<float>(),
                 job_.backend.codec());
    }
    prepare_layer(weights, job_.backend);
  }

 private:
  LayerHessians observe(LayerWeights& weights) {
    std::set<std::string> wanted;
    for (const Site& site : sites(job_.spec, weights)) {
      wanted.insert(site.inputs.begin(), site.inputs.end());
    }
    return stream_->observe(at_, weights, nullptr, wanted);
  }

  const Job& job_;
  const Calibration& calibration_;
  const RecipePoint& point_;
  std::optional<CalibrationStream> stream_;
  std::int64_t at_ = 0;
};

// Hidden states of the held-back windows, [tokens, hidden].
class HeldBackStates {
 public:
  explicit HeldBackStates(const Job& job)
      : job_(job),
        states_(std::make_shared<HiddenStates>(
            job.runner, static_cast<std::int64_t>(job.windows.search.size()), job.spec.hidden)) {
    const EmbeddingWeights weights = load_embedding(job.spec, job.source, job.runner);
    embed_windows(job.spec, weights, job.windows.search, job.windows.context, job.runner,
                  states_->row(0));
  }
  const HiddenStates& states() const { return *states_; }
  std::int64_t rows() const { return states_->rows(); }
  void run(std::int64_t layer, const LayerWeights& weights) {
    run(layer, weights, states_->row(0));
  }
  // `weights` as the runner has them; also on states of others.
  void run(std::int64_t layer, const LayerWeights& weights, float* states) const {
    run_windows(job_.spec, layer, weights, job_.windows.search, job_.windows.context, job_.runner,
                states);
  }
  std::vector<double> losses(const HiddenStates& reference, const HiddenStates& states) const {
    return output_losses(job_.spec, job_.source, reference.row(0), states.row(0),
                         static_cast<std::size_t>(states.rows() / rows()), rows(), job_.runner);
  }
  std::shared_ptr<const HiddenStates> take() { return std::move(states_); }

 private:
  const Job& job_;
  std::shared_ptr<HiddenStates> states_;
};

struct Variant {
  const FusedGroup* group;
  std::size_t option;  // of the menu
};

bool is_plain(const FormatMenu& menu, const Variant& variant) {
  return std::ranges::all_of(variant.group->modules, [&](const std::string& module) {
    return menu.format(variant.option, module)->is_float();
  });
}

class MeasuringRun {
 public:
  MeasuringRun(const Job& job, const Calibration& calibration, const RecipePoint& point,
               const FormatMenu& menu, Measurements& measurements)
      : job_(job),
        menu_(menu),
        measurements_(measurements),
        feed_(job, calibration, point),
        states_(job),
        reference_(*calibration.reference) {}

  void run() {
    const std::int64_t layers = job_.spec.layers;
    for (std::int64_t layer = 0; layer < layers; ++layer) {
      progress(job_.options.progress, "measure", layer, layers);
      const std::vector<Variant> missing = missing_in(layer);
      const LayerFeed::Layer source = feed_.next(!missing.empty());
      if (!missing.empty()) measure(layer, source, missing);
      measurements_.save();
      states_.run(layer, place_layer(source.weights, job_.runner));
    }
    progress(job_.options.progress, "measure", layers, layers);
  }

 private:
  std::vector<Variant> missing_in(std::int64_t layer) {
    std::vector<Variant> missing;
    for (const FusedGroup& group : menu_.groups) {
      for (std::size_t option = 0; group.layer == layer && option < menu_.names.size(); ++option) {
        if (measurements_.find(layer, group.name, menu_.names[option])) continue;
        const Variant variant{&group, option};
        if (is_plain(menu_, variant)) {
          measurements_.set(layer, group.name, menu_.names[option], 0);
        } else {
          missing.push_back(variant);
        }
      }
    }
    return missing;
  }

  void measure(std::int64_t layer, const LayerFeed::Layer& source,
               std::span<const Variant> variants) {
    const std::int64_t bytes =
        states_.rows() * job_.spec.hidden * static_cast<std::int64_t>(sizeof(float));
    const auto batch =
        static_cast<std::size_t>(std::max<std::int64_t>(1, kMaxVariantBytes / bytes));
    for (; !variants.empty(); variants = variants.subspan(std::min(batch, variants.size()))) {
      measure_batch(layer, source, variants.first(std::min(batch, variants.size())));
    }
  }

  void measure_batch(std::int64_t layer, const LayerFeed::Layer& source,
                     std::span<const Variant> variants) {
    HiddenStates all(job_.runner, static_cast<std::int64_t>(variants.size()) * states_.rows(),
                     job_.spec.hidden);
    const auto first_row = [&](std::size_t i) {
      return static_cast<std::int64_t>(i) * states_.rows();
    };
    for (std::size_t i = 0; i < variants.size(); ++i) {
      const Variant& variant = variants[i];
      LayerWeights weights = clone_layer(source.weights, job_.backend.pool());
      feed_.round(source, weights, [&](const std::string& module) -> FormatPtr {
        if (std::ranges::find(variant.group->modules, module) == variant.group->modules.end()) {
          return nullptr;
        }
        return menu_.format(variant.option, module);
      });
      all.copy(states_.states(), 0, states_.rows(), first_row(i));
      states_.run(layer, place_layer(std::move(weights), job_.runner), all.row(first_row(i)));
    }
    for (std::int64_t next = layer + 1; next < job_.spec.layers; ++next) {
      const LayerWeights weights = load_layer(job_.spec, next, job_.source, job_.runner);
      for (std::size_t i = 0; i < variants.size(); ++i) {
        states_.run(next, weights, all.row(first_row(i)));
      }
    }
    const std::vector<double> losses = states_.losses(reference_, all);
    for (std::size_t i = 0; i < variants.size(); ++i) {
      measurements_.set(layer, variants[i].group->name, menu_.names[variants[i].option], losses[i]);
    }
  }

  const Job& job_;
  const FormatMenu& menu_;
  Measurements& measurements_;
  LayerFeed feed_;
  HeldBackStates states_;          // of the source, before the present layer
  const HiddenStates& reference_;  // after the last
};

}  // namespace

bool is_complete(const FormatMenu& menu, const Measurements& measurements) {
  return std::ranges::all_of(menu.groups, [&](const FusedGroup& group) {
    return std::ranges::all_of(menu.names, [&](const std::string& name) {
      return measurements.find(group.layer, group.name, name).has_value();
    });
  });
}

std::vector<FusedGroup> fused_groups(const ModelSpec& spec, std::int64_t layer,
                                     LayerWeights& weights) {
  std::vector<FusedGroup> groups;
  for (const Site& site : sites(spec, weights)) {
    const bool of_experts = !weights.experts.empty() &&
                            (site.kind == SiteKind::kMlpIn || site.kind == SiteKind::kMlpDown);
    const std::string name = of_experts ? "experts" : to_string(site.kind);
    auto group = std::ranges::find(groups, name, &FusedGroup::name);
    if (group == groups.end()) group = groups.insert(group, {layer, name, {}});
    for (const Linear* linear : site.consumers) group->modules.push_back(linear->module);
  }
  return groups;
}

void run_measure_pass(const Job& job, const Calibration& calibration, const RecipePoint& point,
                      const FormatMenu& menu, Measurements& measurements) {
  if (is_complete(menu, measurements)) return;
  MeasuringRun(job, calibration, point, menu, measurements).run();
}

std::shared_ptr<const HiddenStates> source_output(const Job& job) {
  HeldBackStates states(job);
  for (std::int64_t layer = 0; layer < job.spec.layers; ++layer) {
    states.run(layer, load_layer(job.spec, layer, job.source, job.runner));
  }
  return states.take();
}

double measure_together(const Job& job, const Calibration& calibration, const RecipePoint& point,
                        const ModuleFormats& formats) {
  LayerFeed feed(job, calibration, point);
  HeldBackStates states(job);
  for (std::int64_t layer = 0; layer < job.spec.layers; ++layer) {
    progress(job.options.progress, "measure the choice", layer, job.spec.layers);
    const LayerFeed::Layer source = feed.next();
    LayerWeights weights = clone_layer(source.weights, job.backend.pool());
    feed.round(source, weights, [&](const std::string& module) { return formats.at(module); });
    states.run(layer, place_layer(std::move(weights), job.runner));
  }
  return states.losses(*calibration.reference, states.states()).front();
}

}  // namespace nibble
