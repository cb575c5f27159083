#include "eval/layer_walk.h"

#include <algorithm>

#include "base/error.h"

namespace nibble {
namespace {

std::int64_t window_rows(std::int64_t tokens, std::int64_t context, const std::string& purpose) {
  if (std::min(context, tokens) == 0) {
    fail(ErrorKind::kUsage, "the text to {} on holds no tokens", purpose);
  }
  return std::min(context, tokens);
}

}  // namespace

LayerWalk::LayerWalk(const ModelSpec& spec, const WeightSource& source, Backend& backend,
                     std::span<const std::int32_t> ids, std::int64_t context,
                     const std::string& purpose)
    : spec_(spec),
      source_(source),
      backend_(backend),
      window_(window_rows(static_cast<std::int64_t>(ids.size()), context, purpose)) {
  const std::int64_t rows = static_cast<std::int64_t>(ids.size()) / window_ * window_;
  batch_ = Batch::windows({ids.begin(), ids.begin() + rows}, window_);
  hidden_ = Tensor::allocate(DType::kF32, {rows, spec.hidden});
  run_embedding(spec, load_embedding(spec, source, backend), batch_, backend,
                hidden_.mutable_data<float>());
}

void LayerWalk::run_next(SiteObserver& observer) {
  run_next(load_layer(spec_, layer_, source_, backend_), observer);
}

void LayerWalk::run_next(const LayerWeights& weights, SiteObserver& observer) {
  run_layer(spec_, layer_, weights, batch_, backend_, hidden_.mutable_data<float>(), &observer);
  ++layer_;
}

}  // namespace nibble
