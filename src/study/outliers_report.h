// The outlier study as tables, figures and sentences.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "study/outliers.h"
#include "study/report.h"

namespace nibble {

// The same model as it is and, if it was transformed, after the recipe's transforms.
struct OutlierComparison {
  std::string model;
  std::string recipe;  // of `after`
  std::int64_t channels = 0, tokens = 0;
  OutlierStudy before;
  std::optional<OutlierStudy> after;
  // The text of a token, by its index into the ids, as it is to be shown.
  std::function<std::string(std::int64_t token)> piece;
};

StudyReport outliers_report(const OutlierComparison& study);

// One row for each site, channel by channel, for CSV.
TextTable outliers_table(const OutlierComparison& study);

}  // namespace nibble
