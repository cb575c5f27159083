#include "study/scaling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numbers>
#include <optional>

#include "base/content_hash.h"
#include "base/error.h"
#include "model/inventory.h"
#include "study/pareto.h"
#include "study/scaling_pass.h"

namespace nibble {
namespace {

// Counts up when the numbers of a setting change for the same input.
constexpr int kMathsVersion = 1;
constexpr std::size_t kSettingsAtOnce = 8;

std::string key_of(const ScalingModel& model, std::span<const std::int32_t> ids,
                   std::int64_t context, const WeightRounding& rounding) {
  ContentHash text;
  text.add(std::as_bytes(ids));
  return fmt::format("study scaling {}\nmodel {}\ntokens {} in windows of {}\nrounding {} block {}",
                     kMathsVersion, model.hash, text.hex(), context, element_name(rounding),
                     block_name(rounding.block));
}

Json to_json(const ScalingScores& scores) {
  return {{"mean_nll", number_or_null(scores.mean_nll)},
          {"stderr_nll", number_or_null(scores.stderr_nll)},
          {"mean_kl", number_or_null(scores.mean_kl)},
          {"top1_agreement", number_or_null(scores.top1_agreement)}};
}

std::optional<ScalingScores> find_scores(const ResultCache& cache, const std::string& key,
                                         const LogSink& sink) {
  const std::optional<Json> stored = cache.find(key);
  if (!stored) return std::nullopt;
  try {
    return ScalingScores{number_of(*stored, "mean_nll"), number_of(*stored, "stderr_nll"),
                         number_of(*stored, "mean_kl"), number_of(*stored, "top1_agreement")};
  } catch (const Error& damaged) {
    log(sink, LogLevel::kWarning,
        fmt::format("{}: computing it anew: {}", cache.file_of(key).string(), damaged.what()));
    return std::nullopt;
  }
}

ScalingRow make_row(const ScalingModel& model, const Inventory& inventory,
                    const WeightRounding& rounding, const ScalingScores& scores) {
  std::int64_t weights = 0, bits = 0;
  for (const ModuleRow& module : inventory.linears) {
    weights += module.rows * module.cols;
    bits += stored_bits(rounding, module.rows, module.cols);
  }
  ScalingRow row;
  row.model = model.name;
  row.rounding = rounding;
  row.bits_per_weight = static_cast<double>(bits) / static_cast<double>(weights);
  row.total_bits = static_cast<double>(bits + 16 * (inventory.parameters - weights));
  row.perplexity = std::exp(scores.mean_nll);
  row.stderr_nll = scores.stderr_nll;
  row.bits_per_byte = scores.mean_nll / std::numbers::ln2 / model.bytes_per_token;
  row.mean_kl = scores.mean_kl;
  row.top1_agreement = scores.top1_agreement;
  return row;
}

}  // namespace

std::vector<ScalingRow> study_scaling(const ScalingModel& model,
                                      std::span<const WeightRounding> settings,
                                      const ScalingOptions& options, const ResultCache& cache,
                                      Backend& backend) {
  ScalingPass pass(model.spec, model.source, model.ids, options.context, backend);
  std::vector<std::string> keys;
  std::vector<std::optional<ScalingScores>> scores;
  std::vector<std::size_t> missing;
  for (const WeightRounding& rounding : settings) {
    keys.push_back(key_of(model, pass.ids(), pass.context(), rounding));
    scores.push_back(find_scores(cache, keys.back(), options.log));
    if (!scores.back()) missing.push_back(keys.size() - 1);
  }
  for (std::size_t begin = 0; begin < missing.size(); begin += kSettingsAtOnce) {
    progress(options.progress, model.name, static_cast<std::int64_t>(begin),
             static_cast<std::int64_t>(missing.size()));
    const std::size_t end = std::min(begin + kSettingsAtOnce, missing.size());
    std::vector<WeightRounding> batch;
    for (std::size_t i = begin; i < end; ++i) batch.push_back(settings[missing[i]]);
    const std::vector<ScalingScores> found = pass.run(batch);
    for (std::size_t i = begin; i < end; ++i) {
      scores[missing[i]] = found[i - begin];
      cache.put(keys[missing[i]], to_json(found[i - begin]));
    }
  }
  progress(options.progress, model.name, static_cast<std::int64_t>(missing.size()),
           static_cast<std::int64_t>(missing.size()));
  const Inventory inventory = take_inventory(model.spec, model.source, backend);
  std::vector<ScalingRow> rows;
  for (std::size_t i = 0; i < settings.size(); ++i) {
    rows.push_back(make_row(model, inventory, settings[i], *scores[i]));
  }
  return rows;
}

void choose_floats(std::vector<ScalingRow>& rows) {
  std::map<std::tuple<std::string, int, std::int64_t>, ScalingRow*> best;
  for (ScalingRow& row : rows) {
    if (row.rounding.type != DataType::kFloat) continue;
    ScalingRow*& chosen = best[{row.model, row.rounding.bits, row.rounding.block}];
    if (chosen == nullptr || row.mean_kl < chosen->mean_kl || std::isnan(chosen->mean_kl)) {
      if (chosen != nullptr) chosen->shown = false;
      chosen = &row;
    } else {
      row.shown = false;
    }
  }
}

std::vector<std::size_t> lower_envelope(std::span<const ScalingRow> rows) {
  std::vector<std::pair<double, double>> points;
  for (const ScalingRow& row : rows) {
    points.emplace_back(row.total_bits,
                        row.shown ? row.perplexity : std::numeric_limits<double>::quiet_NaN());
  }
  return pareto_front(points);
}

}  // namespace nibble
