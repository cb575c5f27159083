// How much single channels stand out in the inputs of linear layers: what makes a model hard to
// quantize.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "model/model.h"

namespace nibble {

// What is remembered of one site, in one pass.
class SiteOutliers {
 public:
  // Rows that follow those before; [rows, cols].
  void add(const float* x, std::int64_t rows, std::int64_t cols);

  std::int64_t rows() const { return rows_; }
  const std::vector<float>& absmax() const { return absmax_; }  // largest |x| of each channel
  // Rows in which the channel reaches kOutlierMagnitude, ascending; an empty list for the others.
  const std::vector<std::vector<std::int64_t>>& outlier_rows() const { return outlier_rows_; }
  // Of all values: E[(x - mean)^4] / variance^2, 3 for a normal distribution; 0 for a constant.
  double kurtosis() const;

  // Dettmers et al. 2022 (arXiv 2208.07339), section 4.
  static constexpr float kOutlierMagnitude = 6;

 private:
  std::int64_t rows_ = 0;
  std::vector<float> absmax_;
  std::vector<std::vector<std::int64_t>> outlier_rows_;
  double powers_[4] = {};  // sums of x, x^2, x^3, x^4
};

// Sites of one layer by name.
class OutlierObserver : public SiteObserver {
 public:
  void on_input(const std::string& site, const float* x, std::int64_t rows,
                std::int64_t cols) override {
    sites_[site].add(x, rows, cols);
  }
  const std::map<std::string, SiteOutliers>& sites() const { return sites_; }

 private:
  std::map<std::string, SiteOutliers> sites_;
};

struct OutlierRow {
  std::int64_t layer = 0;
  std::string site;          // "attn_in", "mlp_down", ... (model/sites.h)
  double absmax = 0;         // largest |x| over all tokens and channels
  double ratio = 0;          // largest channel absmax over the median channel absmax
  std::int64_t channel = 0;  // the channel that holds the largest
};
OutlierRow summarize(std::int64_t layer, const std::string& site, const SiteOutliers& outliers);

// One row for each site of each layer, over windows of `context` tokens of the text.
std::vector<OutlierRow> measure_outliers(const ModelSpec& spec, const WeightSource& source,
                                         Backend& backend, std::span<const std::int32_t> ids,
                                         std::int64_t context);

}  // namespace nibble
