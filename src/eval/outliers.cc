#include "eval/outliers.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "eval/layer_walk.h"

namespace nibble {
namespace {

// Largest |x| of each channel, by site, over all calls.
class ChannelAbsmax : public SiteObserver {
 public:
  void on_input(const std::string& site, const float* x, std::int64_t rows,
                std::int64_t cols) override {
    auto& absmax = sites_[site];
    absmax.resize(static_cast<std::size_t>(cols));
    for (std::int64_t r = 0; r < rows; ++r) {
      const float* row = x + r * cols;
      for (std::size_t c = 0; c < absmax.size(); ++c) {
        absmax[c] = std::max(absmax[c], std::abs(row[c]));
      }
    }
  }

  const std::map<std::string, std::vector<float>>& sites() const { return sites_; }

 private:
  std::map<std::string, std::vector<float>> sites_;
};

OutlierRow summarize(std::int64_t layer, const std::string& site, std::vector<float> absmax) {
  const auto largest = std::max_element(absmax.begin(), absmax.end());
  OutlierRow row{layer, site, *largest, 0, largest - absmax.begin()};
  const auto middle = absmax.begin() + static_cast<std::ptrdiff_t>(absmax.size() / 2);
  std::nth_element(absmax.begin(), middle, absmax.end());
  row.ratio = *middle > 0 ? row.absmax / static_cast<double>(*middle) : 0;
  return row;
}

}  // namespace

std::vector<OutlierRow> measure_outliers(const ModelSpec& spec, const WeightSource& source,
                                         Backend& backend, std::span<const std::int32_t> ids,
                                         std::int64_t context) {
  LayerWalk walk(spec, source, backend, ids, context, "measure outliers");
  std::vector<OutlierRow> result;
  for (std::int64_t layer = 0; layer < spec.layers; ++layer) {
    ChannelAbsmax observer;
    walk.run_next(observer);
    for (const auto& [site, absmax] : observer.sites()) {
      result.push_back(summarize(layer, site, absmax));
    }
  }
  return result;
}

}  // namespace nibble
