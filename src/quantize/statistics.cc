#include "quantize/statistics.h"

#include <cstring>

#include "base/error.h"
#include "quantize/bytes.h"

namespace nibble {

const ChannelStatistics* find_statistics(const LayerStatistics& statistics,
                                         const std::string& site) {
  const auto found = statistics.find(site);
  return found == statistics.end() ? nullptr : &found->second;
}

bool is_routed(const std::string& site) {
  return site.find('.') != std::string::npos && !site.ends_with(".shared");
}

std::map<const Linear*, std::string> statistics_names(const std::vector<Site>& sites) {
  std::map<const Linear*, std::string> names;
  for (const Site& site : sites) {
    for (std::size_t i = 0; i < site.consumers.size(); ++i) {
      names[site.consumers[i]] = site.inputs[i];
    }
  }
  return names;
}

void StatisticsObserver::on_input(const std::string& site, const float* x, std::int64_t rows,
                                  std::int64_t cols) {
  if (rows == 0) return;
  totals_.try_emplace(site, backend_, cols).first->second.add(x, rows);
}

LayerStatistics StatisticsObserver::statistics() const {
  LayerStatistics result;
  for (const auto& [site, totals] : totals_) {
    ChannelStatistics& entry = result[site] = totals.statistics();
    if (entry.is_finite()) continue;
    fail(ErrorKind::kCorrupt,
         "layer {}: the input of site {} holds a NaN or infinity; the checkpoint computes no "
         "usable activations on the calibration text",
         layer_, site);
  }
  return result;
}

std::string serialize(const LayerStatistics& statistics) {
  ByteWriter writer;
  writer.put(static_cast<std::uint64_t>(statistics.size()));
  for (const auto& [site, entry] : statistics) {
    writer.put_text(site);
    writer.put(entry.rows);
    writer.put_values<float>(entry.max_abs);
    writer.put_values<double>(entry.sum_squares);
  }
  return writer.take();
}

LayerStatistics deserialize_statistics(const std::string& bytes) {
  ByteReader reader(bytes, "calibration statistics");
  LayerStatistics statistics;
  for (auto count = reader.get<std::uint64_t>(); count > 0; --count) {
    ChannelStatistics& entry = statistics[reader.get_text()];
    entry.rows = reader.get<std::int64_t>();
    entry.max_abs = reader.get_values<float>();
    entry.sum_squares = reader.get_values<double>();
  }
  reader.expect_end();
  return statistics;
}

}  // namespace nibble
