#include "study/outliers.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "eval/layer_walk.h"
#include "model/sites.h"

namespace nibble {
namespace {

constexpr std::size_t kTokensOfLayer = 3;  // with the largest values

struct Feature {
  std::set<std::int64_t> layers;
  std::set<std::int64_t> tokens;
  float absmax = 0;
};

OutlierSite describe(std::int64_t layer, const std::string& name, const SiteOutliers& seen) {
  OutlierSite site;
  site.row = summarize(layer, name, seen);
  site.kurtosis = seen.kurtosis();
  site.channel_absmax = seen.absmax();
  std::set<std::int64_t> tokens;
  for (const auto& rows : seen.outlier_rows()) {
    site.outlier_channels += rows.empty() ? 0 : 1;
    tokens.insert(rows.begin(), rows.end());
  }
  site.token_share = static_cast<double>(tokens.size()) / static_cast<double>(seen.rows());
  return site;
}

void add_features(std::int64_t layer, const SiteOutliers& seen,
                  std::map<std::int64_t, Feature>& features) {
  for (std::size_t c = 0; c < seen.outlier_rows().size(); ++c) {
    const auto& rows = seen.outlier_rows()[c];
    if (rows.empty()) continue;
    Feature& feature = features[static_cast<std::int64_t>(c)];
    feature.layers.insert(layer);
    feature.tokens.insert(rows.begin(), rows.end());
    feature.absmax = std::max(feature.absmax, seen.absmax()[c]);
  }
}

std::vector<FeatureDimension> rank_features(const std::map<std::int64_t, Feature>& features,
                                            std::int64_t layers, std::int64_t tokens) {
  std::vector<FeatureDimension> result;
  for (const auto& [channel, feature] : features) {
    result.push_back(
        {channel, static_cast<double>(feature.layers.size()) / static_cast<double>(layers),
         static_cast<double>(feature.tokens.size()) / static_cast<double>(tokens), feature.absmax});
  }
  std::ranges::stable_sort(result, [](const auto& a, const auto& b) {
    return std::pair(a.layer_share, a.token_share) > std::pair(b.layer_share, b.token_share);
  });
  return result;
}

double median_magnitude(std::span<const float> values) {
  std::vector<float> magnitudes(values.begin(), values.end());
  for (float& v : magnitudes) v = std::abs(v);
  const auto middle = magnitudes.begin() + static_cast<std::ptrdiff_t>(magnitudes.size() / 2);
  std::nth_element(magnitudes.begin(), middle, magnitudes.end());
  return static_cast<double>(*middle);
}

// Of the hidden states after a block, [tokens, width].
void add_activations(std::int64_t layer, std::span<const float> hidden, std::int64_t width,
                     std::int64_t window, OutlierStudy& study) {
  const double median = median_magnitude(hidden);
  std::vector<LargeActivation> largest;  // of each token
  for (std::size_t at = 0; at < hidden.size(); at += static_cast<std::size_t>(width)) {
    const auto row = hidden.subspan(at, static_cast<std::size_t>(width));
    const auto peak = std::ranges::max_element(row, {}, [](float v) { return std::abs(v); });
    const auto token = static_cast<std::int64_t>(at) / width;
    const auto value = static_cast<double>(*peak);
    largest.push_back({layer, token, token % window, peak - row.begin(), value,
                       median > 0 ? std::abs(value) / median : 0});
  }
  const std::size_t kept = std::min(kTokensOfLayer, largest.size());
  std::partial_sort(
      largest.begin(), largest.begin() + static_cast<std::ptrdiff_t>(kept), largest.end(),
      [](const auto& a, const auto& b) { return std::abs(a.value) > std::abs(b.value); });
  study.layer_absmax.push_back(std::abs(largest.front().value));
  study.layer_median.push_back(median);
  study.activations.insert(study.activations.end(), largest.begin(),
                           largest.begin() + static_cast<std::ptrdiff_t>(kept));
}

}  // namespace

OutlierStudy study_outliers(const ModelSpec& spec, const WeightSource& source,
                            const LayerLoader& load, std::span<const std::int32_t> ids,
                            std::int64_t context, Backend& backend) {
  LayerWalk walk(spec, source, backend, ids, context, "study outliers");
  OutlierStudy study;
  std::map<std::int64_t, Feature> features;
  for (std::int64_t layer = 0; layer < spec.layers; ++layer) {
    OutlierObserver observer;
    walk.run_next(load(layer), observer);
    for (const auto& [name, seen] : observer.sites()) {
      study.sites.push_back(describe(layer, name, seen));
      if (name == to_string(SiteKind::kAttnIn) || name == to_string(SiteKind::kMlpIn)) {
        add_features(layer, seen, features);
      }
    }
    add_activations(layer, walk.hidden(), spec.hidden, walk.window(), study);
  }
  study.features = rank_features(features, spec.layers, walk.rows());
  return study;
}

}  // namespace nibble
