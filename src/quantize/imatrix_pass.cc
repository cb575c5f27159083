#include "quantize/imatrix_pass.h"

#include <algorithm>
#include <map>
#include <string>

#include "checkpoint/gguf_keys.h"
#include "checkpoint/gguf_layout.h"
#include "eval/layer_walk.h"
#include "model/arch.h"
#include "quantize/statistics.h"

namespace nibble {
namespace {

// Where the statistics of a module go.
struct ImatrixPlace {
  std::string tensor;
  std::size_t expert = 0, experts = 1;
};

std::map<std::string, ImatrixPlace> imatrix_places(const Checkpoint& source) {
  const GgufKeys keys = keys_for_gguf(source.config(), source.path().string());
  std::map<std::string, ImatrixPlace> places;
  for (const GgufPlace& place : gguf_layout(source, *keys.arch).places) {
    for (std::size_t e = 0; !place.bias && e < place.modules.size(); ++e) {
      places[place.modules[e]] = {place.name, e, place.modules.size()};
    }
  }
  return places;
}

void add_statistics(const ImatrixPlace& place, const ChannelStatistics& statistics,
                    std::map<std::string, ImatrixEntry>& entries) {
  ImatrixEntry& entry = entries[place.tensor];
  const auto cols = static_cast<std::size_t>(statistics.channels());
  entry.sums.resize(place.experts * cols);
  entry.counts.resize(place.experts);
  entry.counts[place.expert] = static_cast<float>(statistics.rows);
  std::ranges::transform(statistics.sum_squares,
                         entry.sums.begin() + static_cast<std::ptrdiff_t>(place.expert * cols),
                         [](double sum) { return static_cast<float>(sum); });
}

}  // namespace

Imatrix measure_imatrix(const Checkpoint& source, Backend& backend,
                        std::span<const std::int32_t> ids, std::int64_t context,
                        const ProgressSink& progress_sink) {
  const ModelSpec spec = build_spec(source.config());
  const auto places = imatrix_places(source);
  LayerWalk walk(spec, source, backend, ids, context, "measure importance");
  std::map<std::string, ImatrixEntry> entries;
  for (std::int64_t layer = 0; layer < spec.layers; ++layer) {
    progress(progress_sink, "measure", layer, spec.layers);
    LayerWeights weights = load_layer(spec, layer, source, backend);
    StatisticsObserver observer(layer, backend);
    walk.run_next(weights, observer);
    const LayerStatistics statistics = observer.statistics();
    for (const auto& [linear, site] : statistics_names(sites(spec, weights))) {
      const ChannelStatistics* seen = find_statistics(statistics, site);
      const auto place = places.find(linear->module);
      if (seen != nullptr && place != places.end()) add_statistics(place->second, *seen, entries);
    }
  }
  Imatrix imatrix;
  imatrix.source.chunk_size = static_cast<std::uint32_t>(walk.window());
  imatrix.source.chunks = static_cast<std::uint32_t>(walk.rows() / walk.window());
  for (auto& [tensor, entry] : entries) imatrix.set(tensor, std::move(entry));
  return imatrix;
}

}  // namespace nibble
