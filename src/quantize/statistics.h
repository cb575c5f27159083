// Statistics of the inputs of one block's linears, gathered while the block runs.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "model/model.h"
#include "model/sites.h"
#include "quantize/column_totals.h"
#include "quantize/math/channel_statistics.h"

namespace nibble {

// By the names that SiteObserver sees ("attn_in", "mlp_down.3", ...). A site that saw no row (an
// expert that no token was sent to) has no entry.
using LayerStatistics = std::map<std::string, ChannelStatistics>;

// Null when the site saw no row.
const ChannelStatistics* find_statistics(const LayerStatistics& statistics,
                                         const std::string& site);

// Whether a router chose the rows that are seen by this name: then two models may see others.
bool is_routed(const std::string& site);

// The statistics behind each quantized linear (Site::inputs).
std::map<const Linear*, std::string> statistics_names(const std::vector<Site>& sites);

// Gathers a LayerStatistics where the backend runs the layer.
class StatisticsObserver : public SiteObserver {
 public:
  StatisticsObserver(std::int64_t layer, Backend& backend) : layer_(layer), backend_(backend) {}

  bool on_device() const override { return true; }
  void on_input(const std::string& site, const float* x, std::int64_t rows,
                std::int64_t cols) override;

  // kCorrupt, naming the layer and the site, when an activation held a NaN or infinity.
  LayerStatistics statistics() const;

 private:
  std::int64_t layer_;
  Backend& backend_;
  std::map<std::string, ColumnTotals> totals_;
};

// Bytes for a file and back; kCorrupt when they are damaged.
std::string serialize(const LayerStatistics& statistics);
LayerStatistics deserialize_statistics(const std::string& bytes);

}  // namespace nibble
