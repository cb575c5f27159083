#include "study/outliers_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "study/dot_plot.h"
#include "study/line_plot.h"

namespace nibble {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr std::size_t kMostFeatures = 20;
using SiteValue = std::function<double(const OutlierSite&)>;

std::string site_name(const OutlierSite& site) {
  return fmt::format("{}.{}", site.row.layer, site.row.site);
}

const OutlierSite* find_site(const std::optional<OutlierStudy>& study, const OutlierSite& like) {
  if (!study) return nullptr;
  for (const OutlierSite& site : study->sites) {
    if (site_name(site) == site_name(like)) return &site;
  }
  return nullptr;
}

std::string site_figure(const OutlierComparison& study, const std::string& title,
                        const std::string& label, const SiteValue& value) {
  DotPlot plot{title, label + " (logarithmic); left is better", {}, {{"as it is", {}}}, true};
  if (study.after) plot.series.push_back({"after " + study.recipe, {}});
  for (const OutlierSite& site : study.before.sites) {
    plot.rows.push_back(site_name(site));
    plot.series[0].values.push_back(value(site));
    if (!study.after) continue;
    const OutlierSite* after = find_site(study.after, site);
    plot.series[1].values.push_back(after == nullptr ? kNan : value(*after));
  }
  return to_svg(plot);
}

StudySection sites_section(const OutlierComparison& study) {
  StudySection section;
  section.heading = "Inputs of the linear layers";
  section.note = fmt::format(
      "Over {} tokens. Ratio: the largest magnitude of the most outlying channel over that of the "
      "median channel; kurtosis of all values (3 for a normal distribution); outlier channels "
      "reach a magnitude of 6, tokens are those with such a channel. attn_in is what queries, keys "
      "and values are made of, attn_out what the output projection reads, mlp_in and mlp_down what "
      "the first and the last layer of the MLP read; blocks count from 0.",
      study.tokens);
  section.table = {
      {"layer.site", "absmax", "channel", "ratio", "kurtosis", "channels >= 6", "tokens % >= 6"}};
  if (study.after) {
    for (const char* name : {"absmax", "ratio", "kurtosis"}) {
      section.table[0].push_back(fmt::format("{} after", name));
    }
  }
  for (const OutlierSite& site : study.before.sites) {
    std::vector<std::string> line = {site_name(site),
                                     fmt::format("{:.2f}", site.row.absmax),
                                     std::to_string(site.row.channel),
                                     fmt::format("{:.1f}", site.row.ratio),
                                     fmt::format("{:.1f}", site.kurtosis),
                                     std::to_string(site.outlier_channels),
                                     fmt::format("{:.2f}", 100 * site.token_share)};
    if (const OutlierSite* after = find_site(study.after, site)) {
      line.push_back(fmt::format("{:.2f}", after->row.absmax));
      line.push_back(fmt::format("{:.1f}", after->row.ratio));
      line.push_back(fmt::format("{:.1f}", after->kurtosis));
    }
    section.table.push_back(std::move(line));
  }
  section.figures.push_back(
      site_figure(study, "How far the largest channel stands out",
                  "largest magnitude of a channel over that of the median channel",
                  [](const OutlierSite& site) { return site.row.ratio; }));
  section.figures.push_back(site_figure(study, "Weight of the tails of all values",
                                        "kurtosis; a normal distribution has 3",
                                        [](const OutlierSite& site) { return site.kurtosis; }));
  return section;
}

StudySection features_section(const std::string& heading, const OutlierStudy& study) {
  StudySection section;
  section.heading = heading;
  section.note =
      "Channels that the inputs of attention and MLP have in common, where they reach a magnitude "
      "of 6. LLM.int8() calls one emergent when it does so in 25 % of the layers and at 6 % of the "
      "tokens (here: in any layer).";
  section.table = {{"channel", "layers %", "tokens %", "absmax", "emergent"}};
  for (std::size_t i = 0; i < std::min(kMostFeatures, study.features.size()); ++i) {
    const FeatureDimension& feature = study.features[i];
    section.table.push_back({std::to_string(feature.channel),
                             fmt::format("{:.1f}", 100 * feature.layer_share),
                             fmt::format("{:.2f}", 100 * feature.token_share),
                             fmt::format("{:.2f}", feature.absmax), feature.emergent() ? "*" : ""});
  }
  return section;
}

StudySection activations_section(const OutlierComparison& study) {
  StudySection section;
  section.heading = "Largest values of the hidden states";
  section.note =
      "After each block, the three tokens with the largest values. A star marks a massive "
      "activation: above 100 and 1000 times the median magnitude. Transforms inside a block leave "
      "hidden states as they are.";
  section.table = {{"after block", "position", "token", "channel", "value", "x median", "massive"}};
  for (const LargeActivation& activation : study.before.activations) {
    section.table.push_back({std::to_string(activation.layer), std::to_string(activation.position),
                             study.piece(activation.token), std::to_string(activation.channel),
                             fmt::format("{:.2f}", activation.value),
                             fmt::format("{:.1f}", activation.median_ratio),
                             activation.massive() ? "*" : ""});
  }
  LinePlot plot;
  plot.title = "Magnitudes of the hidden states";
  plot.x_label = "block (counted from 0)";
  plot.y_label = "magnitude after the block (logarithmic)";
  plot.log_y = true;
  plot.series = {{"largest", {}}, {"median", {}}};
  for (std::size_t i = 0; i < study.before.layer_absmax.size(); ++i) {
    plot.series[0].points.emplace_back(i, study.before.layer_absmax[i]);
    plot.series[1].points.emplace_back(i, study.before.layer_median[i]);
  }
  section.figures.push_back(to_svg(plot));
  return section;
}

const OutlierSite& most_outlying(const OutlierStudy& study) {
  return *std::ranges::max_element(study.sites, {},
                                   [](const OutlierSite& site) { return site.row.ratio; });
}

std::string say_sites(const OutlierComparison& study) {
  const OutlierSite& worst = most_outlying(study.before);
  std::string text = fmt::format(
      "The most outlying input is {}: channel {} reaches {:.1f}, {:.1f} times the median channel",
      site_name(worst), worst.row.channel, worst.row.absmax, worst.row.ratio);
  if (study.after) {
    const OutlierSite& left = most_outlying(*study.after);
    const OutlierSite* same = find_site(study.after, worst);
    text += fmt::format(
        "; after {} it is {:.1f} times there, and at most {:.1f} times anywhere ({})", study.recipe,
        same == nullptr ? kNan : same->row.ratio, left.row.ratio, site_name(left));
  }
  return text + ".";
}

std::string say_features(const OutlierComparison& study) {
  const auto emergent = [](const OutlierStudy& of) {
    return std::ranges::count_if(of.features, &FeatureDimension::emergent);
  };
  std::string text = fmt::format(
      "By the criterion of LLM.int8() {} of {} feature dimensions are emergent outliers, and {} "
      "reach a magnitude of 6 at all",
      emergent(study.before), study.channels, study.before.features.size());
  if (study.after) {
    text += fmt::format("; after {} it is {} and {}", study.recipe, emergent(*study.after),
                        study.after->features.size());
  }
  return text + ".";
}

std::string say_activations(const OutlierComparison& study) {
  const LargeActivation& peak = *std::ranges::max_element(
      study.before.activations, {}, [](const LargeActivation& a) { return std::abs(a.value); });
  const auto& all = study.before.activations;
  const auto first = std::ranges::count(all, 0, &LargeActivation::position);
  return fmt::format(
      "The largest hidden value is {:.1f} in channel {} after block {}, {:.0f} times the median, "
      "at position {} (token {}): {}a massive activation by the usual measure, and {} of the {} "
      "largest stand at the first position of a window.",
      peak.value, peak.channel, peak.layer, peak.median_ratio, peak.position,
      study.piece(peak.token), peak.massive() ? "" : "not ", first, all.size());
}

}  // namespace

StudyReport outliers_report(const OutlierComparison& study) {
  StudyReport report;
  report.title = "Outliers of " + study.model;
  if (study.before.sites.empty()) return report;
  report.sections.push_back(sites_section(study));
  report.sections.push_back(features_section("Feature dimensions that reach 6", study.before));
  if (study.after) {
    report.sections.push_back(
        features_section("Feature dimensions that reach 6, after " + study.recipe, *study.after));
  }
  report.sections.push_back(activations_section(study));
  report.findings = {say_sites(study), say_features(study), say_activations(study)};
  return report;
}

TextTable outliers_table(const OutlierComparison& study) {
  TextTable table = {{"state", "layer", "site", "channel", "channel_absmax"}};
  const auto add = [&](const std::string& state, const OutlierStudy& of) {
    for (const OutlierSite& site : of.sites) {
      for (std::size_t c = 0; c < site.channel_absmax.size(); ++c) {
        table.push_back({state, std::to_string(site.row.layer), site.row.site, std::to_string(c),
                         fmt::format("{:.6g}", site.channel_absmax[c])});
      }
    }
  };
  add("as it is", study.before);
  if (study.after) add(study.recipe, *study.after);
  return table;
}

}  // namespace nibble
