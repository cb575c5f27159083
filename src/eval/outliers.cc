#include "eval/outliers.h"

#include <algorithm>
#include <cmath>

#include "eval/layer_walk.h"

namespace nibble {

void SiteOutliers::add(const float* x, std::int64_t rows, std::int64_t cols) {
  absmax_.resize(static_cast<std::size_t>(cols));
  outlier_rows_.resize(absmax_.size());
  for (std::int64_t r = 0; r < rows; ++r, ++rows_) {
    const float* row = x + r * cols;
    for (std::size_t c = 0; c < absmax_.size(); ++c) {
      const auto value = static_cast<double>(row[c]);
      const double square = value * value;
      powers_[0] += value;
      powers_[1] += square;
      powers_[2] += square * value;
      powers_[3] += square * square;
      absmax_[c] = std::max(absmax_[c], std::abs(row[c]));
      if (std::abs(row[c]) >= kOutlierMagnitude) outlier_rows_[c].push_back(rows_);
    }
  }
}

double SiteOutliers::kurtosis() const {
  const double count = static_cast<double>(rows_) * static_cast<double>(absmax_.size());
  if (count == 0) return 0;
  const double mean = powers_[0] / count, m2 = powers_[1] / count, m3 = powers_[2] / count,
               m4 = powers_[3] / count;
  const double variance = m2 - mean * mean;
  const double fourth = m4 - 4 * mean * m3 + 6 * mean * mean * m2 - 3 * mean * mean * mean * mean;
  return variance > 0 ? fourth / (variance * variance) : 0;
}

OutlierRow summarize(std::int64_t layer, const std::string& site, const SiteOutliers& outliers) {
  std::vector<float> absmax = outliers.absmax();
  const auto largest = std::max_element(absmax.begin(), absmax.end());
  OutlierRow row{layer, site, *largest, 0, largest - absmax.begin()};
  const auto middle = absmax.begin() + static_cast<std::ptrdiff_t>(absmax.size() / 2);
  std::nth_element(absmax.begin(), middle, absmax.end());
  row.ratio = *middle > 0 ? row.absmax / static_cast<double>(*middle) : 0;
  return row;
}

std::vector<OutlierRow> measure_outliers(const ModelSpec& spec, const WeightSource& source,
                                         Backend& backend, std::span<const std::int32_t> ids,
                                         std::int64_t context) {
  LayerWalk walk(spec, source, backend, ids, context, "measure outliers");
  std::vector<OutlierRow> result;
  for (std::int64_t layer = 0; layer < spec.layers; ++layer) {
    OutlierObserver observer;
    walk.run_next(observer);
    for (const auto& [site, outliers] : observer.sites()) {
      result.push_back(summarize(layer, site, outliers));
    }
  }
  return result;
}

}  // namespace nibble
