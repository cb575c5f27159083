#include "quantize/calibration.h"

#include <algorithm>

#include "base/error.h"

namespace nibble {

void for_each_chunk(std::span<const std::int32_t> ids, std::int64_t context,
                    const std::function<void(std::int64_t begin, const Batch& batch)>& body) {
  constexpr std::int64_t kChunkRows = 2048;  // tokens whose activations are in memory at once
  const auto total = static_cast<std::int64_t>(ids.size());
  const std::int64_t step = std::max<std::int64_t>(1, kChunkRows / context) * context;
  for (std::int64_t begin = 0; begin < total; begin += step) {
    const std::int64_t rows = std::min(step, total - begin);
    const auto chunk = ids.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(rows));
    body(begin, Batch::windows({chunk.begin(), chunk.end()}, context));
  }
}

CalibrationWindows cut_windows(std::span<const std::int32_t> ids, const CalibrationOptions& options,
                               bool with_search) {
  const auto total = static_cast<std::int64_t>(ids.size());
  const std::int64_t least = with_search ? 2 : 1;
  CalibrationWindows result;
  result.context = std::min(options.context, total / least);
  if (result.context < 2) {
    fail(ErrorKind::kUsage, "calibration text: {} tokens are too few; give a longer text", total);
  }
  const std::int64_t available = total / result.context;
  const auto windows_for = [&](std::int64_t tokens) {
    return std::max<std::int64_t>(1, tokens / result.context);
  };
  const std::int64_t search_wanted = with_search ? windows_for(options.search_tokens) : 0;
  const std::int64_t count = std::min(available, windows_for(options.tokens) + search_wanted);
  // Both parts shrink alike when the text is short, but neither vanishes.
  const std::int64_t search =
      with_search ? std::clamp<std::int64_t>(search_wanted, 1, std::max<std::int64_t>(1, count / 4))
                  : 0;
  std::int64_t taken_for_search = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t window = i * available / count;
    const auto tokens = ids.subspan(static_cast<std::size_t>(window * result.context),
                                    static_cast<std::size_t>(result.context));
    const bool for_search = (i + 1) * search / count > taken_for_search;
    taken_for_search += for_search ? 1 : 0;
    auto& part = for_search ? result.search : result.statistics;
    part.insert(part.end(), tokens.begin(), tokens.end());
  }
  return result;
}

void run_windows(const ModelSpec& spec, std::int64_t layer, const LayerWeights& weights,
                 std::span<const std::int32_t> ids, std::int64_t context, Backend& backend,
                 float* hidden, SiteObserver* observer) {
  for_each_chunk(ids, context, [&](std::int64_t begin, const Batch& batch) {
    run_layer(spec, layer, weights, batch, backend, hidden + begin * spec.hidden, observer);
  });
}

void embed_windows(const ModelSpec& spec, const EmbeddingWeights& weights,
                   std::span<const std::int32_t> ids, std::int64_t context, Backend& backend,
                   float* hidden) {
  for_each_chunk(ids, context, [&](std::int64_t begin, const Batch& batch) {
    run_embedding(spec, weights, batch, backend, hidden + begin * spec.hidden);
  });
}

}  // namespace nibble
